"""Training, epoch by epoch: cached, and resumed bit for bit."""

from experiments.training.loop import Trained, Training, _compile, ends_in_softmax, fit

# Names from earlier versions, which users' options and external code may still import from here.
__all__ = ["Trained", "Training", "_compile", "ends_in_softmax", "fit"]
