"""Where a clean process enters: `python child_entrance.py SCRIPT FOLDER` runs `SCRIPT FOLDER` while its starter lives.

It imports nothing but the standard library, and neither may the scripts import anything of ours.
"""

import os
import runpy
import sys
from threading import Thread


def end_with_starter() -> None:
    """Standard input is open as long as somebody waits for what the script finds."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    Thread(target=end_with_starter, daemon=True).start()
    sys.path.pop(0)  # this folder, where profile.py hides the standard library's module of that name
    sys.argv.pop(0)
    runpy.run_path(sys.argv[0], run_name="__main__")
