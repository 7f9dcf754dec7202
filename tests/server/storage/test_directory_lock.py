"""One process per data directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.storage.directory_lock import DirectoryLock
from server.storage.startup_errors import DirectoryLocked

_HOLD = """
import sys
from pathlib import Path
from server.storage.directory_lock import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_directory_is_refused_while_another_process_holds_it_and_free_after_its_end(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(DirectoryLocked) as raised:
            DirectoryLock(tmp_path)
        child.kill()
    assert raised.value.pid == child.pid
    assert str(tmp_path) in str(raised.value)
    assert str(child.pid) in str(raised.value)
    DirectoryLock(tmp_path).close()


def test_a_locked_directory_is_private_and_records_its_process(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    (tmp_path / "a").mkdir()
    with DirectoryLock(directory):
        assert (directory / "LOCK").read_text() == f"{os.getpid()}\n"
        assert directory.stat().st_mode & 0o077 == 0
        with pytest.raises(DirectoryLocked):
            DirectoryLock(directory)
    DirectoryLock(directory).close()
