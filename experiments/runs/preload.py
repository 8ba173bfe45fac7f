"""Loaded last by the fork server: what a run says of its code and versions is what was loaded, and keys its results.

Otherwise each run would read it from disk, and could see files that were installed or edited during a sweep.
"""

from experiments.system.stamp import runtimes, stamp
from experiments.training.loop import numerics

stamp()
runtimes()
numerics()
