"""Two processes on one folder: the second is told who is there, and a dead one's lock is taken over."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from farvox.errors import ResourceError, UsageError
from farvox.progress import NullProgress
from farvox.runs.lock import NAME, locked


class Messages(NullProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def test_the_second_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "fold-0", NullProgress()):
        with (
            pytest.raises(UsageError, match=f"in use by process {os.getpid()} on {socket.gethostname()}"),
            locked(tmp_path / "fold-0", NullProgress()),
        ):
            pytest.fail("two processes at once")
        with locked(tmp_path / "fold-1", NullProgress()):
            pass
    assert not (tmp_path / "fold-0" / NAME).exists()
    with locked(tmp_path / "fold-0", NullProgress()):
        pass


def test_the_lock_of_a_dead_process_is_taken_over_with_a_note(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    owner = {"host": socket.gethostname(), "pid": ended.pid, "started": "today"}
    (tmp_path / NAME).write_text(json.dumps(owner), encoding="utf-8")
    messages = Messages()
    with locked(tmp_path, messages):
        assert json.loads((tmp_path / NAME).read_text(encoding="utf-8"))["pid"] == os.getpid()
    assert messages.lines == [
        f"note: took over {tmp_path} from process {ended.pid} on {socket.gethostname()}, which has ended"
    ]


def test_a_lock_of_another_machine_is_stale_when_it_is_not_renewed(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": "today"}), encoding="utf-8")
    with pytest.raises(UsageError, match="process 1 on elsewhere, since today"), locked(tmp_path, NullProgress()):
        pass
    before = time.time() - 400
    os.utime(tmp_path / NAME, (before, before))
    messages = Messages()
    with locked(tmp_path, messages):
        pass
    assert "on elsewhere" in messages.lines[0]


def test_a_lock_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ResourceError, match="cannot write the lock"), locked(tmp_path / "file", NullProgress()):
        pass
