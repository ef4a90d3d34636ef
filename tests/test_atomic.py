"""Files are replaced as a whole: a failed write keeps the old file, and a reader never gets a part."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from farvox._atomic import atomic_file, read_json, write_json
from farvox.errors import DataError, ResourceError


def test_a_failed_write_keeps_the_old_file_and_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"dice": 0.5})
    with pytest.raises(ResourceError, match=r"^cannot write .*metrics\.json: no space left on the disk; hint: free"):
        _fail(path, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(KeyboardInterrupt):
        _fail(path, KeyboardInterrupt())
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"dice": float("nan")})
    assert read_json(path) == {"dice": 0.5}
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    with atomic_file(path) as temporary:
        temporary.write_text("complete", encoding="utf-8")
        assert not path.exists()
        assert temporary.name == path.name
    assert path.read_text(encoding="utf-8") == "complete"
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_a_reader_gets_a_complete_file_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    write_json(path, [0] * 50_000)
    done = threading.Event()

    def write() -> None:
        for number in range(1, 30):
            write_json(path, [number] * 50_000)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    numbers = []
    while not done.is_set():
        content = json.loads(path.read_text(encoding="utf-8"))
        assert len(content) == 50_000
        assert len(set(content)) == 1
        numbers.append(content[0])
    writer.join()
    assert numbers == sorted(numbers)


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ResourceError, match=r"cannot write .*file/a\.json: .*; hint: check the space and rights"):
        write_json(tmp_path / "file" / "a.json", 1)
    with pytest.raises(DataError, match=r"none\.json cannot be read"):
        read_json(tmp_path / "none.json")


def _fail(path: Path, error: BaseException) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text('{"dice": ', encoding="utf-8")
        raise error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
