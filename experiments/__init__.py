"""Which quantization of a Keras model to ship as TFLite, with the evidence."""

import os
import sys
import warnings
from types import TracebackType

# TensorFlow Model Optimization accepts Keras 2 models only, and TensorFlow decides which Keras it is when it is
# imported. So this has to stand before anybody imports TensorFlow.
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Launchers' options have the names of the plugins they configure, whose schemas they are checked against.
warnings.filterwarnings("ignore", message=r"(?s)\s*'hydra/launcher/\w+' is validated against ConfigStore schema")


def _without_traceback(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("stopped.\n")
        sys.exit(130)
    else:
        sys.__excepthook__(kind, error, traceback)


# The name is "-m" where `python -m` imports this package to find a command in it. What the command then imports takes
# seconds, before it can deal with Ctrl-C itself; a process that only uses this package keeps its own hook.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = _without_traceback
