"""Where the examples and targets of a source are, and how a user changes them, for messages."""

from dataclasses import dataclass
from pathlib import Path

from experiments.dataset.saving import save_line

PARTS = {"train": "the training part", "test": "the test part"}


@dataclass(frozen=True)
class Place:
    """The names that a user knows examples and targets by; by default, those of arrays in a file.

    The name of a part may end with that of one of several outputs: train/OUTPUT.
    """

    train: str = "y_train"
    test: str = "y_test"
    arrays: bool = True  # whether the user has arrays, so that code in a message can change them
    rule: str = "Labels require one value per example, (n,): integers, strings or bool; or one-hot rows, (n, classes)"
    remove: str = (
        "Remove those examples: keep = y_train >= 0; x_train, y_train = x_train[keep], y_train[keep], and the same for "
        "test"
    )
    keep_known: str = (
        "Remove the others: keep = np.isin(y_test, y_train); np.savez('data.npz', x_train=x_train, y_train=y_train, "
        "x_test=x_test[keep], y_test=y_test[keep])"
    )
    keep_normal: str = "Remove the others: keep = y_train == 0; x_train, y_train = x_train[keep], y_train[keep]"
    number: str = (
        "Save indices of the outputs, with names = [...] in the order of the outputs: "
        f"{save_line(y='np.array([names.index(label) for label in {}])')}"
    )
    unify: str = save_line(y="{}.astype(str)")
    standardize: str = ""  # the setting that standardizes features, if there is one

    def targets(self, part: str) -> str:
        """Return the name of the targets of a part."""
        if self.arrays:
            return f"y_{part}"
        return self.train if part.startswith("train") else self.test

    def inputs(self, part: str, entry: str = "") -> str:
        """Return the name of the examples of a part, or of one of their inputs."""
        if self.arrays:
            return f"x_{part}/{entry}" if entry else f"x_{part}"
        return PARTS[part]

    def code(self, purpose: str, line: str) -> str:
        """Return what a line of code is for, with the line; empty if the user has no arrays."""
        return f"{purpose}{line}" if self.arrays else ""


ARRAYS = Place()


def in_column(name: str, standardize: str = "") -> Place:
    """Return the place of targets in a column of a table."""
    return Place(
        train=f"dataset.target={name} of the training part",
        test=f"dataset.target={name} of the test part",
        arrays=False,
        rule="Labels require integers, texts or true and false",
        remove="Remove those rows",
        keep_known="Add rows with this label for training, or remove its rows. With a single file, another "
        "dataset.split_seed or dataset.test_share may leave some for training.",
        keep_normal="Move their rows to the file of dataset.test_path",
        number="Write the indices of the outputs into the column instead, 0, 1, ...",
        unify="Write the labels of both files in the same way.",
        standardize=standardize,
    )


def in_names(path: Path) -> Place:
    """Return the place of labels that are names of folders."""
    return Place(
        train=f"dataset.path={path}: the training part",
        test=f"dataset.path={path}: the test part",
        arrays=False,
        rule="Labels are the names of the folders",
        remove="Remove their folders",
        keep_known="Add files with this label for training, or remove its folder from the test part.",
        keep_normal="Move their folders to the test part",
        number="Rename the folders to the indices of the outputs, 0, 1, ...",
        unify="Name the folders of both parts in the same way.",
    )


def in_splits(train: str, test: str) -> Place:
    """Return the place of the targets of prepared splits, which a user can only choose."""
    other = "Use another split: dataset.train_split, dataset.test_split"
    return Place(
        train=f"dataset.train_split={train}",
        test=f"dataset.test_split={test}",
        arrays=False,
        rule="Labels require one integer or text per example",
        remove=other,
        keep_known=f"{other}.",
        keep_normal=other,
        number="Save the images with the indices of the outputs as labels, for dataset=npz",
        unify=f"{other}.",
    )
