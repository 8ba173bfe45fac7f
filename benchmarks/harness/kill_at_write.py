"""Processes that SIGKILL themselves at a chosen change of a chosen file: the n-th write into mlflow.db, say.

A C library is preloaded (Linux; it needs a C compiler, `has_compiler` says whether there is one). Changes are the calls
write, pwrite, writev, pwritev, sendfile, copy_file_range, ftruncate, fsync (with fdatasync), unlink, rename and create
(an open that makes a new file), of files whose absolute path matches; what libc writes within itself (fwrite) and what
is written through mmap is not seen. First count, then kill:

    library = build(folder)
    watch = KillAtWrite(library, ("*/mlflow.db*",), log=folder / "log")
    subprocess.run(command, env=watch.environment(os.environ))       # changes nothing, and lists every change
    for change in changes(folder / "log"):                           # number, process, call, bytes, path
        kill = replace(watch, log=None, at=change.number, when="within", whom="first")
        subprocess.run(command, env=kill.environment(os.environ))    # ends with -SIGKILL
"""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SOURCE = Path(__file__).with_suffix(".c")
COMPILERS = ("cc", "gcc", "clang")

When = Literal["before", "within", "after"]


@dataclass(frozen=True)
class KillAtWrite:
    """When a preloaded process kills itself; `environment` passes this to it and its children."""

    library: Path
    patterns: tuple[str, ...]  # as fnmatch's, of absolute paths; * also matches /
    at: int = 0  # the change to kill at, from 1; 0: only count
    when: When = "before"  # within: the first half of the bytes is written; a call without bytes is killed before
    calls: tuple[str, ...] = ()  # that count, such as ("pwrite", "unlink"); empty: all
    whom: Literal["self", "first"] = "self"  # first: the first process preloaded, and the one that writes
    counter: Path | None = None  # a file that does not exist yet: all processes count together; None: each for itself
    log: Path | None = None  # gets a line for each change

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a process to be killed: `given`, and what the library reads."""
        settings = {
            "LD_PRELOAD": " ".join(filter(None, (str(self.library), given.get("LD_PRELOAD", "")))),
            "KILL_PATTERN": ":".join(self.patterns),
            "KILL_AT": str(self.at),
            "KILL_WHEN": self.when,
            "KILL_CALLS": ",".join(self.calls),
            "KILL_WHOM": self.whom,
            "KILL_COUNTER": str(self.counter or ""),
            "KILL_LOG": str(self.log or ""),
        }
        return {**{name: value for name, value in given.items() if name != "KILL_FIRST"}, **settings}


@dataclass(frozen=True)
class Change:
    """A change of a file that was counted."""

    number: int
    process: int
    call: str
    bytes: int
    path: Path


def has_compiler() -> bool:
    """Whether the library can be built here."""
    return any(map(shutil.which, COMPILERS))


def build(folder: Path) -> Path:
    """Return the library, compiled into the folder.

    Raises:
        FileNotFoundError: there is no C compiler.
        subprocess.CalledProcessError: it refuses the source.
    """
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise FileNotFoundError(f"no C compiler ({', '.join(COMPILERS)}): apt-get install gcc libc6-dev")
    library = folder / "kill_at_write.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def changes(log: Path) -> list[Change]:
    """Return the changes that a log lists, in their order."""
    fields = (line.split(" ", 4) for line in log.read_text(errors="surrogateescape").splitlines())
    return [Change(int(number), int(pid), call, int(size), Path(path)) for number, pid, call, size, path in fields]
