"""Training of a model, epoch by epoch, kept and continued to the bit."""
