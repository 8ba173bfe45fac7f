"""Stores after a writer was killed: recovered when they are next opened, or reported in one message."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from benchmarks.harness.generated_runs import fill
from benchmarks.harness.kill_at_write import KillAtWrite, When, build, changes, has_compiler
from experiments.system.errors import UserError
from experiments.tracking import Store, Tracking, connect, creation, open_existing
from experiments.tracking.checking import check
from experiments.tracking.database import open_for_reading
from experiments.tracking.failures import explaining_failures

needs_compiler = pytest.mark.skipif(
    not (sys.platform == "linux" and has_compiler()), reason="needs Linux and a C compiler (apt-get install gcc)"
)
RUNS = 12
# A writer that is killed in the middle of a transaction, some pages of which are in the file by then.
KILLED_WRITER = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute(f"PRAGMA journal_mode = {sys.argv[2]}")
database.execute("PRAGMA cache_size = 1")
database.execute("BEGIN IMMEDIATE")
for table, column in (("tags", "value"), ("params", "value"), ("latest_metrics", "key"), ("alembic_version", "version_num")):
    database.execute(f"UPDATE {table} SET {column} = {column} || ' '")
if sys.argv[2] == "wal":
    database.execute("COMMIT")
os.kill(os.getpid(), signal.SIGKILL)
"""  # noqa: E501


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "mlflow.db"
    fill(connect(Tracking(uri=f"sqlite:///{path}")), RUNS)
    return path


@pytest.fixture
def copied(filled: Path, tmp_path: Path) -> Path:
    """A store that may be damaged, in a folder whose name needs quoting."""
    folder = tmp_path / "a store # 100%"
    folder.mkdir()
    return Path(shutil.copy(filled, folder / "mlflow.db"))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of MLflow without any run or experiment."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    creation._create_database(path)
    return path


@pytest.fixture
def made_at_once(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's tables appear by a copy; its migrations would take five seconds."""
    monkeypatch.setattr(creation, "_open", lambda path: shutil.copy(empty, path))


def kill_a_writer(path: Path, mode: str = "delete") -> None:
    done = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(path), mode], check=False)
    assert done.returncode == -signal.SIGKILL


def journal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-journal")


def opened(path: Path) -> Store:
    return open_existing(f"sqlite:///{path}")


def rows_of(path: Path) -> list[tuple[object, ...]]:
    with closing(open_for_reading(path)) as database:
        return sorted(database.execute("SELECT * FROM tags"))


def test_interrupted_commit_is_rolled_back(copied: Path) -> None:
    before = rows_of(copied)
    kill_a_writer(copied)
    assert journal_of(copied).stat().st_size
    assert len(opened(copied).rows("all")) == RUNS
    assert rows_of(copied) == before


def test_committed_write_ahead_log_is_read(copied: Path) -> None:
    kill_a_writer(copied, "wal")
    (version,) = open_for_reading(copied).execute("SELECT version_num FROM alembic_version").fetchone()
    assert version.endswith(" ")


def test_concurrent_readers_see_the_recovered_store(copied: Path) -> None:
    kill_a_writer(copied)
    code = (
        "import sys; from pathlib import Path; from experiments.tracking.database import open_for_reading;"
        "print(open_for_reading(Path(sys.argv[1])).execute('SELECT count(*) FROM runs').fetchone()[0])"
    )
    readers = [
        subprocess.Popen([sys.executable, "-c", code, str(copied)], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert {reader.communicate()[0].strip() for reader in readers} == {f"{RUNS + 1}"}  # with the sweep


@pytest.mark.parametrize("content", [b"", bytes(512), b"\xd9\xd5\x05\xf9", b"no journal at all" * 99])
def test_empty_journal_is_ignored(content: bytes, copied: Path) -> None:
    journal_of(copied).write_bytes(content)
    assert len(opened(copied).rows("all")) == RUNS


@pytest.mark.parametrize("create", [True, False])
def test_journal_of_another_version_is_rejected_unchanged(create: bool, filled: Path, copied: Path) -> None:
    with closing(sqlite3.connect(copied)) as database:
        database.execute("CREATE TABLE more (a)")
        database.executemany("INSERT INTO more VALUES (?)", [("x" * 900,)] * 99)
        database.commit()
    kill_a_writer(copied)
    shutil.copy(filled, copied)  # a backup is put in its place
    before = copied.read_bytes()
    with pytest.raises(UserError, match=r"mlflow\.db-journal beside it belongs to another database"):
        connect(Tracking(uri=f"sqlite:///{copied}"), create=create)
    assert copied.read_bytes() == before
    assert journal_of(copied).exists()


def test_log_of_another_database_is_rejected(filled: Path, copied: Path) -> None:
    kill_a_writer(copied, "wal")
    shutil.copy(filled, copied)
    with pytest.raises(UserError, match=r"mlflow\.db-wal beside it belongs to another database"):
        opened(copied)


@pytest.mark.usefixtures("made_at_once")
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_old_journal_is_not_applied_to_a_new_database(
    mode: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kill_a_writer(copied, mode)
    copied.unlink()
    store = connect(Tracking(uri=f"sqlite:///{copied}"))
    assert store.rows("all") == []
    assert "belongs to a deleted database. Moved it to" in capsys.readouterr().out
    assert len(list(copied.parent.glob("*.left-behind"))) == 1


@pytest.fixture
def writer(copied: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(copied, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield database


def test_writer_is_named_after_the_timeout(writer: sqlite3.Connection, copied: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from experiments.tracking.database import open_for_reading;"
        "open_for_reading(Path(sys.argv[1]), 0.3)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(copied)], capture_output=True, text=True, check=False)
    assert f"(process {os.getpid()}: " in done.stderr
    assert "has been writing to it for more than 0.3 s" in done.stderr


def test_writer_that_ends_in_time_is_waited_for(copied: Path) -> None:
    code = (
        "import sqlite3, sys, time; d = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "d.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); time.sleep(0.5)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(copied)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert len(rows_of(copied)) > 0


@pytest.fixture
def of_another_user() -> Iterator[Path]:
    """A folder that `as_nobody` can reach."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="another-user-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_change_that_cannot_be_rolled_back_is_explained(filled: Path, of_another_user: Path) -> None:
    path = Path(shutil.copy(filled, of_another_user / "mlflow.db"))
    kill_a_writer(path)
    for each in of_another_user.iterdir():
        each.chmod(0o444)
    of_another_user.chmod(0o555)
    code = (
        "import os, sys; from pathlib import Path; from experiments.tracking.database import open_for_reading;"
        "os.geteuid() == 0 and os.setuid(65534); open_for_reading(Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    of_another_user.chmod(0o755)
    assert "Rolling back its change from mlflow.db-journal" in done.stderr
    assert f"requires write access to {path}, which belongs to {path.owner()}" in done.stderr


def test_read_only_store_is_read(filled: Path, of_another_user: Path) -> None:
    path = Path(shutil.copy(filled, of_another_user / "mlflow.db"))
    path.chmod(0o444)
    of_another_user.chmod(0o555)
    code = (
        "import os, sys; from pathlib import Path; from experiments.tracking.database import open_for_reading;"
        "os.geteuid() == 0 and os.setuid(65534);"
        "print(open_for_reading(Path(sys.argv[1])).execute('SELECT count(*) FROM runs').fetchone()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    of_another_user.chmod(0o755)
    assert done.stdout.strip() == str(RUNS + 1)


def no_version(database: sqlite3.Connection) -> None:
    database.execute("DELETE FROM alembic_version")


def a_version_behind_its_tables(database: sqlite3.Connection) -> None:
    database.execute("UPDATE alembic_version SET version_num = '75868b020152'")


@pytest.fixture(params=[no_version, a_version_behind_its_tables])
def incomplete(empty: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """What is left where MLflow was killed while it made its tables: its next migration finds them there already."""
    path = Path(shutil.copy(empty, tmp_path / "mlflow.db"))
    spoil: Callable[[sqlite3.Connection], None] = request.param
    with closing(sqlite3.connect(path)) as database:
        spoil(database)
        database.commit()
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))
    return path


def test_a_run_replaces_an_incomplete_store(incomplete: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert connect(Tracking(uri=f"sqlite:///{incomplete}")).rows("all") == []
    assert "was an incomplete store without runs" in capsys.readouterr().out
    assert incomplete.with_name("mlflow.db.unfinished").exists()


def test_reading_an_incomplete_store_reports_it(incomplete: Path) -> None:
    before = incomplete.read_bytes()
    with pytest.raises(UserError, match=r"no complete store in .*Type `python -m experiments\.run`"):
        opened(incomplete)
    assert incomplete.read_bytes() == before


@pytest.mark.usefixtures("made_at_once")
def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.touch()
    assert connect(Tracking(uri=f"sqlite:///{path}")).rows("all") == []


def pipe(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    ("make", "reason"),
    [(pipe, "requires a file, not a pipe"), (loop, "is a link to"), (Path.mkdir, "requires a file, not a folder")],
)
def test_a_file_that_cannot_be_a_database_is_not_opened(
    make: Callable[[Path], None], reason: str, create: bool, tmp_path: Path
) -> None:
    make(tmp_path / "mlflow.db")
    with pytest.raises(UserError, match=reason):
        connect(Tracking(uri=f"sqlite:///{tmp_path / 'mlflow.db'}"), create=create)


@pytest.mark.parametrize(
    ("schema", "advice"),
    [
        ("451aebb31d03", r"an older MLflow wrote it .*Copy it.*: mlflow db upgrade 'sqlite:////.*mlflow\.db'$"),
        ("ffffffffffff", "a newer MLflow wrote it .*Use that MLflow, or another store"),
    ],
)
def test_a_store_of_another_mlflow_is_explained(schema: str, advice: str, copied: Path) -> None:
    with closing(sqlite3.connect(copied)) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (schema,))
        database.commit()
    with pytest.raises(UserError, match=advice):
        connect(Tracking(uri=f"sqlite:///{copied}"), create=False)


@pytest.mark.parametrize("make", [Path.touch, loop])
def test_files_that_could_not_be_recorded_are_refused_before_any_work(
    make: Callable[[Path], None], copied: Path
) -> None:
    make(copied.parent / "mlruns")
    with pytest.raises(UserError, match=r"the folder of its files, \S.*mlruns, is not writable"):
        connect(Tracking(uri=f"sqlite:///{copied}"))
    connect(Tracking(uri=f"sqlite:///{copied}"), create=False)


@pytest.mark.parametrize("create", [True, False])
def test_address_with_a_query_is_rejected_with_the_correct_one(create: bool, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"Type sqlite:///{tmp_path}/mlflow\.db\."):
        connect(Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db?timeout=60"), create=create)


# Three transactions, the first of which makes the file, and the last of which writes pages before it is committed.
WRITER = """
import sqlite3
database = sqlite3.connect("a.db", isolation_level=None)
database.execute("PRAGMA cache_size = 1")
for statements in (
    ["CREATE TABLE numbers (n, filler)"],
    ["INSERT INTO numbers VALUES (1, '')"],
    ["UPDATE numbers SET n = 2", "INSERT INTO numbers SELECT 2, hex(zeroblob(2000)) FROM (VALUES (1), (2), (3))"],
):
    database.execute("BEGIN")
    for statement in statements:
        database.execute(statement)
    database.execute("COMMIT")
"""
STATES = [None, [], [(1, 1)], [(2, 4)]]  # no table; (n, how many)


def state_of(path: Path) -> list[tuple[int, int]] | None:
    if not path.exists() or not path.stat().st_size:
        return None
    with closing(open_for_reading(path)) as database:
        try:
            return database.execute("SELECT n, count(*) FROM numbers GROUP BY n").fetchall()
        except sqlite3.OperationalError as error:
            assert "no such table" in str(error)
            return None


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("library"))


def killed(code: str, watch: KillAtWrite, folder: Path) -> int:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-I", "-S", "-c", code]
    return subprocess.run(command, cwd=folder, env=watch.environment(os.environ), check=False).returncode


@needs_compiler
@pytest.mark.parametrize("when", get_args(When))
def test_database_is_consistent_after_a_kill_at_any_write(when: When, library: Path, tmp_path: Path) -> None:
    watch = KillAtWrite(library, ("*/a.db*",))
    assert killed(WRITER, replace(watch, log=tmp_path / "log"), tmp_path / "whole") == 0
    found = []
    for change in changes(tmp_path / "log"):
        folder = tmp_path / str(change.number)
        assert killed(WRITER, replace(watch, at=change.number, when=when), folder) == -signal.SIGKILL
        found.append(STATES.index(state_of(folder / "a.db")))
    assert found == sorted(found)
    assert set(found) == ({0, 1, 2, 3} if when == "after" else {0, 1, 2})  # the last call ends the last transaction


PAIR_WRITER = """
import sqlite3
database = sqlite3.connect("a.db", isolation_level=None)
database.execute("ATTACH 'b.db' AS b")
for statement in ("CREATE TABLE main.numbers (n)", "CREATE TABLE b.numbers (n)",
    "BEGIN", "INSERT INTO main.numbers VALUES (1)", "INSERT INTO b.numbers VALUES (1)", "COMMIT"):
    database.execute(statement)
"""


@needs_compiler
def test_two_databases_are_consistent_after_a_kill_at_any_write(library: Path, tmp_path: Path) -> None:
    watch = KillAtWrite(library, ("*/[ab].db*",))
    assert killed(PAIR_WRITER, replace(watch, log=tmp_path / "log"), tmp_path / "whole") == 0
    listed = changes(tmp_path / "log")
    decided = next(change.number for change in listed if "-mj" in change.path.name)
    found = []
    for change in listed[decided:]:
        folder = tmp_path / str(change.number)
        assert killed(PAIR_WRITER, replace(watch, at=change.number), folder) == -signal.SIGKILL
        states = [state_of(folder / name) for name in ("a.db", "b.db")]
        assert states[0] == states[1]
        found.append(len(states[0] or []))
    assert found == sorted(found)
    assert set(found) == {0, 1}


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT x AS {} FROM n"


@pytest.mark.parametrize(
    ("table", "column"), [("params", "run_uuid"), ("alembic_version", "version_num"), ("Runs", "run_uuid")]
)
def test_a_view_in_place_of_a_table_is_not_asked(table: str, column: str, copied: Path) -> None:
    with closing(sqlite3.connect(copied)) as database:
        database.execute(f"DROP TABLE {table}")
        database.execute(f"CREATE VIEW {table} AS {ENDLESS.format(column)}")
        database.commit()
    with pytest.raises(UserError, match="is not an MLflow store"):
        opened(copied)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_store_is_reported_with_what_to_do(share: float, copied: Path) -> None:
    """As after a copy that was interrupted."""
    size = copied.stat().st_size
    os.truncate(copied, int(share * size))
    with pytest.raises(
        UserError, match=r"\(database disk image is malformed\)\. .*: Restore a backup, or recover readable"
    ):
        opened(copied)


def test_damage_that_is_found_later_is_reported_with_what_to_do(copied: Path) -> None:
    said = r"the database is damaged \(.* malformed\)\. Restore a backup.*: sqlite3 mlflow\.db \.recover"
    with pytest.raises(UserError, match=said), explaining_failures(Tracking(uri=f"sqlite:///{copied}")):
        raise sqlite3.DatabaseError("database disk image is malformed")


def test_damage_that_is_no_text_is_reported_with_what_to_do(copied: Path) -> None:
    """SQLite names the damaged text in its message, which Python cannot decode."""
    content = copied.read_bytes()
    copied.write_bytes(content.replace(b'CREATE TABLE "tags"', b'CREATE T\xb7BLE "tags"'))
    with pytest.raises(UserError, match=r"cannot be read as a database .*: Restore a backup, or recover readable"):
        opened(copied)
    (finding,) = check(copied)
    assert finding.what == "the database is damaged"
