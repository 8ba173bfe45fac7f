"""Loaded last by the fork server: what a run says of its code and versions is what was loaded, and keys its results.

Read from the disk by each run, it would be what somebody has installed or edited while a sweep goes on.
"""

from experiments.system.stamp import runtimes, stamp
from experiments.training.loop import numerics

stamp()
runtimes()
numerics()
