"""Training with fake quantization, pruning and clustering: TFMOT for Keras 2, our own engine for Keras 3."""
