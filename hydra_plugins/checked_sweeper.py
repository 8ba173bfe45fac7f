"""How jobs of a sweep are made. Hydra takes sweepers from this namespace only, which its other plugins share."""

import random
from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override


class CheckedSweeper(BasicSweeper):
    """Hydra's sweeper, for jobs that were checked before: it would compose all of them once more before the first."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing: `experiments.runs.composition.Composer` has made a request of each."""

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """The overrides of each job, by batches; what is shuffled has the same order whenever this is called."""
        state = random.getstate()
        random.seed(0)
        try:
            batches: list[list[list[str]]] = BasicSweeper.split_arguments(overrides, max_batch_size)
        finally:
            random.setstate(state)
        return batches
