"""MNIST in memory: the fork server imports this module, so that all runs of a sweep share the unpacked arrays."""

from experiments.dataset.mnist import bundled
from experiments.system.errors import UserError

try:
    bundled()
except UserError as error:  # the run that needs the arrays reports the error; the fork server continues without
    raise ImportError(str(error)) from error
