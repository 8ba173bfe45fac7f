"""Training of a model, epoch by epoch, kept and continued to the bit."""

from experiments.training.loop import Trained, Training, _compile, ends_in_softmax, fit

# What stood in one module in earlier versions: options, and code that measures the suite from outside, name it here.
__all__ = ["Trained", "Training", "_compile", "ends_in_softmax", "fit"]
