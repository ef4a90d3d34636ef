"""Atomic writes: a file is replaced as a whole when its new content is complete."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from farvox.errors import DataError, ResourceError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole, UTF-8; its folder is created.

    Raises:
        ResourceError: The disk is full or the folder not writable.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON document, indented; NaN is refused, undefined values are null."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON document.

    Raises:
        DataError: The file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="write it again or restore it") from None


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path to write to in the block; the file replaces `path` when the block ends without an error.

    Raises:
        ResourceError: The disk is full or the folder not writable; the old file is kept.
    """
    # A temporary folder keeps the file's name, because an .mhd header names its data file.
    with writing(path), atomic_folder(path.parent) as folder:
        yield folder / path.name


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A temporary folder to write to in the block; its files move to `out` when the block ends without an error."""
    parent = out if out.is_dir() else out.parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=parent) as folder:
        yield Path(folder)
        out.mkdir(exist_ok=True)
        # An .mhd header is moved last, because it refers to the file with its voxels.
        for part in sorted(Path(folder).iterdir(), key=lambda part: part.suffix == ".mhd"):
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, out / part.name)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn any failure of the block, which writes `path`, into a ResourceError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        full = (isinstance(error, OSError) and error.errno in _NO_SPACE) or "No space left" in str(error)
        raise ResourceError(
            f"cannot write {path}: {'no space left on the disk' if full else reason(error)}",
            hint="free disk space, or write to another folder" if full else "check the space and rights of the folder",
        ) from error


def reason(error: BaseException) -> str:
    """Last line of an exception's text; ITK puts source file and line number first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][-200:] if lines else type(error).__name__
