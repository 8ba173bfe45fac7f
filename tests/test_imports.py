"""Importing the package changes nothing in the process; Keras 2 is selected when TensorFlow is loaded."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT, REPOSITORY
from tests.test_laws import is_heavy

# Libraries whose own import sets filters or variables; the rest of what a module imports must not.
LIBRARIES = ["numpy", "pandas", "scipy.stats", "matplotlib.pyplot", "pydantic", "rich", "hydra", "mlflow", "sqlalchemy"]
MODULES = sorted(
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
    for path in (REPOSITORY / "experiments").rglob("*.py")
)
IMPORT_EACH = """
import importlib, json, os, signal, sys, warnings
libraries, modules = json.loads(sys.argv[1])
sys.modules["tensorflow"] = None  # none of these needs it
for name in libraries:
    importlib.import_module(name)
def state():
    handlers = {each: signal.getsignal(each) for each in signal.Signals if each not in (signal.SIGKILL, signal.SIGSTOP)}
    hooks = (sys.excepthook, sys.unraisablehook, sys.displayhook, sys.stdout, sys.stderr)
    return {"environment": dict(os.environ), "filters": list(warnings.filters), "hooks": hooks, "signals": handlers,
            "folder": os.getcwd(), "arguments": list(sys.argv)}
before = state()
for name in modules:
    importlib.import_module(name)
    after = state()
    for what, value in before.items():
        if after[what] != value:
            print(f"import {name} changes the process's {what}")
    before = after
"""


def needs_tensorflow(module: str) -> bool:
    return is_heavy(module) or module == "runs.preload"


def output_of(code: str, *arguments: str, **environment: str) -> str:
    inherited = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("TF_")}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**inherited, **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_any_module_changes_nothing_in_the_process() -> None:
    without_tensorflow = [name for name in MODULES if not needs_tensorflow(name.removeprefix("experiments."))]
    assert len(without_tensorflow) > 100
    assert output_of(IMPORT_EACH, json.dumps([LIBRARIES, without_tensorflow])) == ""


def imports_at_the_top(path: Path) -> list[str]:
    names = []
    for statement in ast.parse(path.read_text()).body:
        match statement:
            case ast.Import(names=aliases):
                names += [alias.name for alias in aliases]
            case ast.ImportFrom(module=str(module)):
                names.append(module)
    return names


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "experiments" / "quantization").glob("*.py")), ids=lambda p: p.stem
)
def test_keras_is_chosen_before_tensorflow_model_optimization_is_imported(path: Path) -> None:
    names = imports_at_the_top(path)
    heavy = [place for place, name in enumerate(names) if name.startswith(("tensorflow", "tf_keras"))]
    assert not heavy or "experiments.system.tensorflow" in names[: heavy[0]]


@pytest.mark.tensorflow
@pytest.mark.parametrize("before", ["", "import tensorflow"])
def test_tensorflow_has_keras_2_even_if_imported_before(before: str) -> None:
    loaded = "from experiments.system.tensorflow import keras, tf"
    code = f"{before}\n{loaded}\nprint(keras.Model.__module__, tf.keras.Model.__module__)"
    first, second = output_of(code).split()
    assert first == second
    assert first.startswith("tf_keras.")


@pytest.mark.tensorflow
def test_process_that_already_uses_keras_3_gets_a_message() -> None:
    code = (
        "import tensorflow as tf\ntf.keras.layers\nfrom experiments.system.errors import UserError\n"
        "try:\n    import experiments.system.tensorflow\nexcept UserError as error:\n    print(error)"
    )
    told = output_of(code)
    assert "already loaded in this process with Keras 3, and" in told
    assert "Set TF_USE_LEGACY_KERAS=1 in the environment before Python starts" in told
