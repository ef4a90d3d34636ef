"""JSON files that are written whole or not at all."""

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
    """Write beside and rename, so that a reader never meets half a file.

    Raises:
        ResourceError: The disk is full or the folder not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ResourceError(
            f"cannot write {path}: {error.strerror}", hint="free space or choose another place"
        ) from None


def write_json(path: Path, content: Any) -> None:
    """A JSON document, indented; NaN is refused, undefined figures are null."""
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
    """A path to write to in the block; what stands there takes its place at `path` when the block has ended well."""
    # A folder and not a file of another name: an .mhd header names the data file beside it.
    with writing(path), atomic_folder(path.parent) as folder:
        yield folder / path.name


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A folder to write to in the block; its files take their places in `out` when the block has ended well."""
    beside = out if out.is_dir() else out.parent
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=beside) as folder:
        yield Path(folder)
        out.mkdir(exist_ok=True)
        # An .mhd header comes last, since it names the file with its voxels.
        for part in sorted(Path(folder).iterdir(), key=lambda part: part.suffix == ".mhd"):
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
    """Last line of an exception's text; ITK puts source file and line before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][-200:] if lines else type(error).__name__
