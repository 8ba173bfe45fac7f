"""Every figure that the README shows: the command that makes it, and the published results with their stamp."""

import experiments as experiments  # first of all: it prepares the process for TensorFlow and for Ctrl-C
