"""Optional packages: the extra that installs each, and the command to type if it is missing."""

from importlib.util import find_spec

from experiments.system.errors import UserError
from experiments.system.files import PACKAGE
from experiments.system.program import DISTRIBUTION

# A module of each extra of pyproject.toml, which shows whether the extra is installed.
MODULES = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
    "slurm": "hydra_plugins.hydra_submitit_launcher",
    "excel": "openpyxl",
    "parquet": "pyarrow",
    "int4": "litert_quantizer",
    "postgres": "psycopg2",
    "tfds": "tensorflow_datasets",
    "micro": "tflite_micro",
    "detection": "pycocotools",
}


def require(extra: str, setting: str) -> None:
    """Check that the packages of an extra are installed; `setting` is the setting or option that requires it.

    Raises:
        UserError: they are not installed.
    """
    if rule := missing(extra):
        raise UserError(f"{setting} {rule}")


def missing(extra: str) -> str:
    """Return the rest of a message: the missing extra and the command that installs it; empty if it is installed."""
    if find_spec(MODULES[extra]) is not None:
        return ""
    in_checkout = (PACKAGE.parent / "pyproject.toml").is_file()
    what = f"-c constraints.txt -e '.[{extra}]'" if in_checkout else f"'{DISTRIBUTION}[{extra}]'"
    return f"requires the extra '{extra}': pip install {what}"
