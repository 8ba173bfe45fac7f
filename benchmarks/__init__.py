"""Every figure in README.md and docs/: the command that measures it, and the published results with their stamp."""

import experiments as experiments  # first: it prepares the process for TensorFlow and Ctrl-C
