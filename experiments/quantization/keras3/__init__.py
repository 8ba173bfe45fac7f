"""Training of Keras 3 models with fake quantization, pruning and clustering."""
