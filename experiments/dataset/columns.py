"""What the sources of tables and of series have in common: CSV or Parquet files with a column to predict."""

from typing import Annotated

from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Raw, Source
from experiments.dataset.frames import AHEAD, check_frame
from experiments.dataset.targets import Kind
from experiments.system.errors import UserError
from experiments.system.files import UserPath
from experiments.system.options import OPTION


@option(frozen=True, config=OPTION, kw_only=True)
class ColumnSource(Source):
    """A source that reads columns of files; a subclass defines `read_for`."""

    path: UserPath
    target: str
    test_path: UserPath | None = None  # null: a share of the first file is the test part
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    split_seed: NonNegativeInt = 0
    skip_broken: bool = False

    def check(self) -> None:
        """Check that the files can be read."""
        check_frame(self.path, "dataset.path")
        if self.test_path:
            check_frame(self.test_path, "dataset.test_path")
            if self.test_path.samefile(self.path):
                raise UserError(
                    f"dataset.test_path={self.test_path}: is the file of the training part. Name another file, or type "
                    "dataset.test_path=null to hold out a share of the rows."
                )

    def check_targets(self, kind: Kind | None, output: str | None = None) -> None:
        """Check the columns and values of a small file."""
        if self.path.stat().st_size <= AHEAD:
            self.examples(kind)

    def read(self) -> Raw:
        """See read_for."""
        return self.read_for(None)
