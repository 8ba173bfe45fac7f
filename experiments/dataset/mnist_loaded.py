"""Load MNIST on import: the fork server imports this module, so that all runs of a sweep share the arrays."""

from experiments.dataset.mnist import bundled
from experiments.system.errors import UserError

try:
    bundled()
except UserError as error:  # the run that needs the arrays reports the error; the fork server continues without them
    raise ImportError(str(error)) from error
