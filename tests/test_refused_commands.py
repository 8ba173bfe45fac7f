"""Commands that cannot work: one message and exit code 2, before anything is made."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.system.options import CONF
from tests.conftest import ENVIRONMENT, run, run_from_scratch

pytestmark = pytest.mark.endtoend
SMALL = ("model=mlp", "dataset=npz", "dataset.path=images.npz", "training.batch_size=50", "latency.seconds=0.1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["strategy=qatt"], "strategy=qatt: unknown option in conf/strategy. Did you mean qat?"),
        (["-m", "strategy=none,qatt"], "strategy=qatt: unknown option"),
        (["model=resnet"], "Did you mean resnet8?"),
        (["dataset=minst"], "Did you mean mnist?"),
        (["epohcs=3"], "epohcs: unknown setting. Did you mean epochs?"),
        (["-m", "epohcs=3,4"], "epohcs: unknown setting. Did you mean epochs?"),
        (["strategy=annotate", "strategy.layer=[a]"], "Did you mean strategy.layers"),
        (["-m", "strategy=none,annotate", "strategy.layers=[Dense]"], "type ++strategy.layers=VALUE"),
        (["epochs=-1"], "training.epochs=-1: input should be greater than or equal to 0"),
        (["-m", "epochs=1,-1"], "no run was started"),
        (["-m", "strategy=glob(ptq_int9*)"], "strategy=glob(ptq_int9*): the sweep has no job"),
        (["-m", "strategy=none", "seed=range(0)"], "seed=range(0): the sweep has no job"),
        (["epochs=many"], "training.epochs=many: input should be a valid integer"),
        (["seed=-1"], "seed=-1: input should be greater than or equal to 0"),
        (["seed=4294967296"], "seed=4294967296: input should be less than 4294967296"),
        (["+epohcs=3"], "epohcs: unknown setting. Did you mean epochs?"),
        (["~latency"], "latency: this setting is required"),
        (["strategy=null"], "strategy=null: strategy requires the name of an option. Did you mean none?"),
        (["cache.dir="], "cache.dir=: requires the name of a file or folder"),
        (["tracking=server", "tracking.uri=http://host:port"], "http://host:port: not usable"),
        (["tracking.uri=postgresql://me:secret@127.0.0.1:9/db"], "postgresql://***@127.0.0.1:9/db: not usable"),
        (["strategy=qat", "epochs=0"], "finetune.epochs=0: strategy=qat requires at least 1"),
        (["training.precision=bfloat16"], "training.precision=bfloat16"),
        (["+finetune.precision=mixed_bfloat16"], "requires float32, like fake quantization"),
        (["strategy=annotate", "strategy.layers=[last:0]"], "'last:0' selects no layer"),
        (["strategy=annotate", "strategy.layers=[]"], "strategy.layers=[]: "),
        (["strategy=ptq_int8", "strategy.interface=int4"], "input should be 'float32', 'int8' or 'uint8'"),
        (["dataset=npz"], "dataset.path: requires a value"),
        (["dataset=npz", "dataset.path=nothing.npz"], "dataset.path=nothing.npz: cannot be read (No such file"),
        (["-m", "dataset=npz", "dataset.path=nothing.npz"], "dataset.path=nothing.npz: cannot be read (No such file"),
        (["model=keras_file", "model.path=nothing.keras"], "model.path=nothing.keras: cannot be read (No such file"),
        (["dataset.validation_split=1"], "dataset.validation_split=1: input should be less than 1"),
        (["tracking.uri=mlflow.db"], "requires sqlite:///FILE.db, http://HOST:PORT"),
        (["tracking=server", "tracking.uri=http://127.0.0.1:9"], "http://127.0.0.1:9: no server answers"),
        (["-m", "tracking=server", "tracking.uri=http://127.0.0.1:9"], "http://127.0.0.1:9: no server answers"),
        (["tracking.uri=sqlite:////dev/null/mlflow.db"], "sqlite:////dev/null/mlflow.db: not usable"),
        (["strategy"], "strategy"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_configuration_is_one_message_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = run(tmp_path, "experiments.run", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a .npz file"), (b"PK\x03\x04 cut", "not a .npz file, or a truncated one")],
)
def test_a_bad_data_file_is_refused_before_tensorflow_is_imported_and_anything_is_made(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.npz").write_bytes(content)
    watch = "import sys; from experiments.run import main\ntry: main()\nfinally: print('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", watch, "dataset=npz", "dataset.path=bad.npz"],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()[-1]) == (2, "False"), done.stderr
    assert message in done.stderr
    assert not (tmp_path / "mlflow.db").exists()


def test_help_lists_every_option_that_pays_without_importing_anything_heavy() -> None:
    watch = (
        "import sys; sys.argv = ['run', '--help']; from experiments.run import main; main()\n"
        "print([name for name in ('tensorflow', 'mlflow', 'hydra', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", watch], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
    options = [path.stem for path in CONF.glob("*/*.yaml")]
    assert [name for name in options if f"\n   {name} " not in done.stdout] == ["ptq_int4_int8"]


@pytest.mark.parametrize(
    "module", ["experiments.run", "experiments.compare", "experiments.latency", "experiments.sensitivity", "benchmarks"]
)
def test_ctrl_c_while_a_command_is_still_imported_shows_no_traceback(module: str, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise KeyboardInterrupt\n")  # found before the library

    done = run_from_scratch(tmp_path, module)

    assert done.stderr.startswith("interrupted.") and done.stderr.count("\n") == 1
    assert done.returncode in {130, -signal.SIGINT}


@pytest.mark.parametrize("mode", [[], ["-m"]], ids=["a run", "a sweep"])
def test_a_cache_that_cannot_be_written_is_found_before_anything_runs(mode: list[str], folder: Path) -> None:
    (folder / "file").write_text("not a folder")
    done = run(folder, "experiments.run", *mode, "cache.dir=file/cache", *SMALL)
    assert done.returncode == 2
    assert "Use another: cache.dir=FOLDER" in done.stderr
    assert not (folder / "mlruns").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no file "),
        (["--uri", "mlflow.db"], "requires sqlite:///FILE.db"),
        (["--uri", "http://127.0.0.1:9"], "no server answers"),
    ],
)
def test_comparing_nothing_is_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = run(tmp_path, "experiments.compare", *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert message in done.stderr


@pytest.mark.parametrize("error", ["MemoryError", "ImportError('x.so: failed to map segment from shared object')"])
def test_too_little_memory_is_one_message(error: str, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text(f"raise {error}\n")  # found before the library

    done = run_from_scratch(tmp_path, "experiments.compare")

    assert done.returncode == 1
    assert done.stderr.startswith("out of memory: ") and done.stderr.count("\n") == 1
