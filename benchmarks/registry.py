"""Every benchmark: what it shows, how long it takes, and the commands that repeat it."""

import sys
from dataclasses import dataclass

from benchmarks.publish import on_disk
from benchmarks.studies import RUN, STUDIES

HOUR = 60  # minutes


@dataclass(frozen=True)
class Benchmark:
    """A claim and the commands that show it, one after another."""

    name: str
    title: str
    minutes: int  # about, on two cores
    commands: tuple[tuple[str, ...], ...]
    removed: str = ""  # the setting that its commands need and this version no longer has

    @property
    def published(self) -> bool:
        """Whether the repository holds its results."""
        return bool(on_disk(f"{self.name}/stamp.json"))

    @property
    def duration(self) -> str:
        """How long it takes, in words."""
        match self.minutes:
            case _ if self.removed:
                return "archived"
            case minutes if minutes < HOUR:
                return f"{minutes} min"
            case minutes:
                return f"{minutes / HOUR:g} h"


def _measured(name: str, title: str, minutes: int) -> Benchmark:
    """One that is a module of its own."""
    return Benchmark(name, title, minutes, ((sys.executable, "-m", f"benchmarks.{name}"),))


def _swept(name: str) -> Benchmark:
    """One that is a study: sweeps of the real command line, and their publication."""
    study = STUDIES[name]
    runs = tuple((sys.executable, *RUN, *overrides) for overrides in study.sweeps)
    publish = (sys.executable, "-m", "benchmarks.publish", name)
    return Benchmark(name, study.title, study.minutes, (*runs, publish), study.removed)


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        _measured("choices", "Which layers in int8 make the fastest file", 5),
        _measured("epoch", "What an epoch takes here, and by Keras' own model.fit on arrays", 3),
        _measured("evaluation", "How fast a file is evaluated", 3),
        _measured("exactness", "What annotation makes of all 15 subsets of the article's layers", 2),
        _measured("fresh_store", "Sweeps that start at once where there is no store yet", 10),
        _measured("killed", "Sweeps killed at chosen writes and run again", 20),
        _measured("memory", "Whether a long sweep stays flat in memory", 10),
        _measured("once", "What training once is worth", 40),
        _measured("overhead", "What a job costs beyond its work", 3),
        _measured("planted", "Whether a known difference is found", 15),
        _measured("precision", "What training a baseline in bfloat16 saves and costs", 30),
        _measured("profile", "Whether the ops of a file add up to the whole", 1),
        _measured("reading", "Reading many runs", 15),
        _measured("same_file", "Whether a file is called different from itself", 30),
        _measured("sensitivity", "Which layers of the article's network bear quantization", 2),
        _measured("sizes", "Files as large as MLPerf Tiny's reference files of the same networks", 1),
        _measured("spread", "How far a speedup scatters from one measurement to the next", 2),
        _measured("starting", "How long a sweep checks its jobs before it starts the first", 3),
        *map(_swept, STUDIES),
    )
}
