"""Training with fake quantization, pruning and clustering, by TensorFlow Model Optimization."""
