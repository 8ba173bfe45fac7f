"""Loaded first by the fork server: it ends with the process that started it, even while it still loads TensorFlow.

Python's own fork server looks for its starter only when everything is loaded.
"""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1  # from Linux' sys/prctl.h

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it, also while it still loads
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
