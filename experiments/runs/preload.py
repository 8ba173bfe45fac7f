"""Loaded last by the fork server: computes the versions and digests of the code once for all runs.

Otherwise each run would read them from disk, where files may be installed or edited during a sweep.
"""

from experiments.system.stamp import runtimes, stamp
from experiments.training.loop import numerics

stamp()
runtimes()
numerics()
