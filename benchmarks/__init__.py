"""Every figure that README.md and docs/ show: the command that makes it, and the published results with their stamp."""

import experiments as experiments  # first of all: it prepares the process for TensorFlow and for Ctrl-C
