"""MNIST in memory: the fork server loads this, and all runs of a sweep share the arrays that it has unpacked."""

from experiments.dataset.mnist import bundled
from experiments.system.errors import UserError

try:
    bundled()
except UserError as error:  # the run that needs them says what is wrong; the fork server goes on without
    raise ImportError(str(error)) from error
