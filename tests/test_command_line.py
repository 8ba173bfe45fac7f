"""The command line as Hydra reads it: file names are literal, and ambiguous arguments are rejected at once."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from experiments.runs.command_line import MAX_JOBS, check_overrides, count_jobs, normalize, parse_error
from experiments.runs.configuration import compose_request
from experiments.system.errors import UserError
from experiments.system.files import check_regular
from tests.conftest import run, save_images

NAMES = (
    "epoch=12-val_acc=0.97.keras", "model (1).keras", "my model.keras", "it's.keras", 'say "hi".keras', "a,b.keras",
    "modèle.keras", "m:1.keras", "007.keras", "12", "1e5", "true", "null", "$x.keras", "${x}.keras", "a[1].keras",
    "a{b}.keras", "@new.keras", "x~1.keras", "a%b.keras", "-m.keras", "a#1.keras", r"C:\models\net.keras", "a\\.keras",
    "[a].keras", "{a:1}", "choice(a,b)", " spaces .keras", "a;b&c|d>e.keras", "a!b*c?.keras", "'quoted'.keras",
    "日本.keras",
)  # fmt: skip


def value_of(argument: str) -> object:
    return OverridesParser.create().parse_override(argument).value()


@pytest.mark.parametrize("name", NAMES)
def test_file_name_is_literal(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    (argument,) = normalize([f"model.path={name}"])
    assert value_of(argument) == name.replace("${", r"\${")  # which OmegaConf reads as ${


@pytest.mark.parametrize("name", NAMES)
def test_proposed_command_passes_the_name_through_a_shell(name: str) -> None:
    typed = f"model.path={name}"
    proposed = parse_error(typed, [typed]).rpartition("\npython -m experiments.run ")[2]
    script = f"{shlex.quote(sys.executable)} -c 'import sys; print(sys.argv[1], end=str())' {proposed}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert value_of(done.stdout) == name.replace("${", r"\${")  # which OmegaConf reads as ${


def test_file_names_in_a_sweep_are_literal() -> None:
    _, argument = normalize(["-m", "model.path=epoch=1.keras,epoch=2.keras"])
    assert argument == 'model.path="epoch=1.keras","epoch=2.keras"'


def test_file_names_like_interpolations_are_literal_in_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a${x}.keras", "b.keras"):
        Path(name).touch()
    assert normalize(["-m", "model.path=a${x}.keras,b.keras"])[1] == r'model.path="a\${x}.keras","b.keras"'


@pytest.mark.parametrize(
    "argument",
    ["model.path=${oc.env:HOME}/x.keras", "model.path='a b'", "epochs=1,5", "strategy.layers=[conv.*]", "model.path="],
)
def test_other_arguments_are_not_changed(argument: str) -> None:
    assert normalize([argument]) == [argument]


def test_options_may_follow_settings() -> None:
    assert normalize(["epochs=1", "-m", "strategy=none"]) == ["-m", "epochs=1", "strategy=none"]


@pytest.mark.parametrize("key", ["model.path", "dataset.path", "cache.dir"])
def test_tilde_is_the_home_folder(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    group = key.partition(".")[0]
    option = {"model": ["model=keras_file"], "dataset": ["dataset=npz"], "cache": []}[group]
    made = compose_request([*option, f"{key}=~/mine (1)"]).experiment
    assert getattr(getattr(made, group), key.partition(".")[2]) == tmp_path / "mine (1)"


def test_tilde_is_the_home_folder_in_store_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compose_request(["tracking.uri=sqlite:///~/runs.db"]).tracking.database == tmp_path / "runs.db"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["strategy={}"], r"strategy=\{\}: strategy requires the name of an option\. Known: annotate"),
        (["strategy={prune:1}"], "requires the name of an option"),
        (["strategy=[none,qat]"], "To sweep over several, type -m as the first argument and strategy=none,qat"),
        (["strategy=qat.yaml"], "strategy=qat.yaml: strategy requires the name of an option. Did you mean qat"),
        (["strategy=../strategy/qat"], "requires the name of an option"),
        (["model=null"], "model=null: model requires the name of an option. Known: article_cnn"),
        (["dataset=5"], "dataset=5: dataset requires the name of an option"),
        (["training={}"], r"training=\{\}: training requires a setting.*training.NAME=VALUE"),
        (["~hydra.callbacks.sweep"], "hydra.callbacks is set by the suite"),
        (["hydra.sweeper.max_batch_size=0"], "hydra.sweeper is set by the suite"),
        (["=1"], "=1: cannot be parsed as KEY=VALUE"),
        ([""], "cannot be parsed as KEY=VALUE, as in epochs=5"),
        (["épochs=1"], "cannot be parsed as KEY=VALUE"),
        (["--config-path", "/tmp"], "--config-path: cannot be changed in this suite.*--config-dir"),
        (["epochs=" + 20_000 * "1"], "20,007 characters; an argument has at most 10,000"),
        (["strategy.layers=" + 9_000 * "["], "cannot be parsed as KEY=VALUE"),
        (["model.path=a\udcff.keras"], r"not UTF-8 text"),
        (["seed=true"], "seed=true: requires a number"),
        (["keras=4"], "keras=4: input should be 2 or 3"),
        (["keras=3", "model=keras_file", "model.path=x.keras"], "keras=3: model=keras_file uses the version of Keras"),
        (["seed=null"], "seed=null: input should be a valid integer"),
        (["resume=null"], "resume=null: input should be a valid boolean"),
        (["+training.warm=true"], "training.warm=true: unknown setting"),
        (
            ["strategy=annotate", "strategy.layers=[null,true]"],
            "strategy.layers.0=null: input should be a valid string",
        ),
        (["model._target_=true"], r"_target_ \(true\) requires the name of a subclass"),
        (["--config-name", "model/mlp"], "--config-name: cannot be changed in this suite.*as in model=mlp"),
        (["--config-name=model/mlp"], "--config-name=model/mlp: cannot be changed in this suite"),
        (["seed=1.0"], "seed=1.0: requires an integer, such as 1"),
        (["seed=1e3"], "seed=1000.0: requires an integer, such as 1000"),
        (["latency.seconds=true"], "latency.seconds=true: requires a number"),
        (["latency.seconds=1e12"], "latency.seconds=1000000000000.0: input should be less than or equal to 604800"),
        (["epochs=99999999999999999999"], "training.epochs=99999999999999999999: input should be less than"),
        (["dataset.test_samples=99999999999999999999"], r"requires an integer below 2\*\*63"),
        (["threads=1000000"], "threads=1000000: input should be less than or equal to 1024"),
        (["cache.dir="], "cache.dir=: requires the name of a file or folder"),
        (["model=keras_file", "model.path=~nobody-of-this-name/x"], "unknown home folder"),
        (["tracking.uri=sqlite:///:memory:"], "requires a file: sqlite:///FILE.db"),
        (["tracking.uri=sqlite:///"], "requires a file"),
        (["tracking.experiment="], "requires the name of an experiment"),
        (["hydra.launcher.nothing=1"], "this launcher has no such setting"),
        (["+seed=1"], r"\+seed: already set. Type seed=VALUE, without the \+"),
        (["~nothing"], "~nothing: not set, so it cannot be removed"),
        (["+strategy=qat"], r"\+strategy: already chosen. Type strategy=NAME, without the \+"),
        (["+strategy.x=1"], "strategy.x=1: unknown setting"),
        (["strategy=qat", "strategy.range_init=tfmot"], "strategy.range_init: this setting was removed.*Delete"),
        (["strategy=qat", "+strategy.range_init=tfmot"], "strategy.range_init=tfmot: this setting was removed.*Delete"),
        (["seed=range(0,3)"], "several values require a sweep. Type -m"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_invalid_argument_causes_one_message(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose_request(arguments)


def test_split_file_name_is_rejected_with_the_correct_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    typed = ["model=keras_file", "model.path=a,b.keras"]
    monkeypatch.setattr(sys, "argv", ["run", *typed])
    with pytest.raises(UserError, match=r"\npython -m experiments.run model=keras_file 'model.path=\"a,b.keras\"'$"):
        compose_request(typed)


@pytest.mark.parametrize(
    ("swept", "count"),
    [
        (["seed=range(0,10)"], 10),
        (["seed=range(0,10,3)", "epochs=1,5"], 8),
        (["seed=range(0.0,1.0,0.1)"], 10),
        (["seed=range(10,0,-3)"], 4),
        (["seed=range(5,1)"], 0),
        (["seed=shuffle(range(0,4))"], 4),
        (["seed=choice(1,2,3)", "epochs=1"], 3),
        ([f"seed=range(0,{MAX_JOBS})"], MAX_JOBS),
    ],
)
def test_jobs_are_counted_without_creating_them(swept: list[str], count: int) -> None:
    assert count_jobs(OverridesParser.create().parse_overrides(swept)) == count


@pytest.mark.parametrize(
    ("swept", "message"),
    [
        (["seed=range(0,10000000)"], "10,000,000 jobs; a sweep has at most 10,000"),
        (["seed=range(0,3000)", "epochs=range(0,3000)"], r"9,000,000 jobs \(3,000 x 3,000\)"),
        (["seed=range(0,1,1e-9)"], "1,000,000,000 jobs"),
        (["seed=range(0,1,0)"], "the range is infinite"),
        (["seed=range(0,1.0,0.0)"], "the range is infinite"),
        (["seed=range(0,inf)"], "the range is infinite"),
        (["seed=range(nan,1)"], "the range is infinite"),
        (["seed=interval(0,1)"], "an interval has no single values"),
    ],
)
def test_unbounded_sweep_is_rejected_before_creating_jobs(swept: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        count_jobs(OverridesParser.create().parse_overrides(swept))


@pytest.fixture
def options(tmp_path: Path) -> Path:
    folder = tmp_path / "options" / "strategy"
    folder.mkdir(parents=True)
    (folder / "binary.yaml").write_bytes(b"\x00\x01\xff\xfe")
    (folder / "broken.yaml").write_text("a: [1\n b: {")
    (folder / "twice.yaml").write_text("bits: 1\nbits: 2\n")
    (folder / "code.yaml").write_text('!!python/object/apply:os.system ["echo"]\n')
    (folder / "tag.yaml").write_text("bits: !!bool x\n")
    (folder / "set.yaml").write_text("bits: !!set {a, b}\n")
    (folder / "itself.yaml").write_text("x: &a [*a]\n")
    return folder.parent


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("binary", "binary.yaml: not UTF-8 text (invalid start byte, byte 2)."),
        ("broken", "broken.yaml, line 2: invalid YAML (expected ',' or ']', but got ':')."),
        ("twice", "twice.yaml, line 2: invalid YAML (found duplicate key bits)."),
        ("code", "code.yaml, line 1: invalid YAML (could not determine a constructor"),
        ("itself", "The configuration contains itself"),
        ("tag", "tag.yaml, line 1: invalid YAML (x is not a valid !!bool). For text, use quotes and no tag."),
        ("set", "bits: Value 'set' is not a supported primitive type"),
    ],
)
def test_option_that_is_not_yaml_is_named(name: str, message: str, options: Path) -> None:
    for other in (options / "strategy").glob("*.yaml"):
        if other.stem != name:
            other.unlink()
    done = run(options.parent, "experiments.run", "--config-dir", str(options), f"strategy={name}")
    assert (done.returncode, message in done.stderr, "Traceback" in done.stderr) == (2, True, False)
    assert [path.name for path in options.parent.iterdir()] == ["options"]


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "pipe", "."], ids=["device", "stdin", "pipe", "folder"])
def test_only_regular_files_are_read(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    if path == "/dev/stdin" and Path(path).is_file():
        pytest.skip("standard input is a file here")
    with pytest.raises(UserError, match=r"x=1: requires a file, not a \w+\.|No such"):
        check_regular(Path(path), "x=1")


def test_file_larger_than_memory_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "hollow"
    with path.open("wb") as file:
        file.truncate(2**43)
    with pytest.raises(UserError, match=r"the file has 8,192 GiB, but this machine has only \d+ GiB of memory"):
        check_regular(path, "model.path=hollow")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["model=keras_file", "model.path=nowhere (1).keras"],
            "model.path=nowhere (1).keras: cannot be read (No such file or directory).",
        ),
        (["--config-name", "model/mlp"], "--config-name: cannot be changed in this suite"),
        (["hydra.run.dir=/dev/null/x"], "hydra.run.dir=/dev/null/x: the folder is not writable"),
        (["-m", "hydra.sweep.dir=/dev/null/x"], "hydra.sweep.dir=/dev/null/x: the folder is not writable"),
        (["cache.dir=/dev/null/x"], "cache.dir=/dev/null/x: the folder is not writable"),
        (["tracking.uri=http://127.0.0.1:1"], "tracking.uri=http://127.0.0.1:1: no server answers"),
        (["-m", "tracking.uri=http://127.0.0.1:1"], "tracking.uri=http://127.0.0.1:1: no server answers"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_rejected_command_leaves_no_files(arguments: list[str], told: str, tmp_path: Path) -> None:
    done = run(tmp_path, "experiments.run", *arguments)
    assert done.stderr.startswith(told)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])


def test_mergeable_settings_are_left_to_hydra() -> None:
    check_overrides(["training={epochs:5}", "+suite=smoke", "strategy=none,qat", "strategy=glob(*)", "~cache"])


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "arguments", [["strategy=none"], ["-m", "strategy=none,ptq_dynamic,ptq_int8"]], ids=["one", "sweep"]
)
def test_unloadable_model_file_is_rejected_once_before_any_run(arguments: list[str], tmp_path: Path) -> None:
    save_images(tmp_path / "data.npz")
    (tmp_path / "mine.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    given = ["model=keras_file", "model.path=mine.h5", "dataset=npz", "dataset.path=data.npz", "epochs=0"]
    done = run(tmp_path, "experiments.run", *arguments, *given)
    assert (done.returncode, done.stderr.count("model.path=mine.h5")) == (2, 1)
    assert not {"mlflow.db", "outputs", "multirun"} & {path.name for path in tmp_path.iterdir()}
