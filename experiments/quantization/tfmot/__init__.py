"""The engine for Keras 2: TensorFlow Model Optimization (TFMOT), with additions."""
