"""Which quantization of a Keras model to ship as TFLite, with the evidence."""
