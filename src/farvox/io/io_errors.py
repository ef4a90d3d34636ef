"""Errors of file libraries as one line: which file, what is wrong with it, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farvox._atomic import reason
from farvox.errors import DataError, FarvoxError, ResourceError

_PLAIN = {
    "end-of-stream marker": "the file is cut short",
    "Expected": "the file is cut short",
    "Cannot work out file type": "this is no NIfTI file, or its header is damaged",
}
"""Words in a library's message → what they mean."""


@contextmanager
def reading(path: Path, case: str | None) -> Iterator[None]:
    """Turn any failure of the block, which reads `path`, into a DataError that names file and case.

    File libraries raise a dozen unrelated exception types on damaged files, hence the wide net.
    """
    try:
        _require_readable(path)
        yield
    except FarvoxError as error:
        error.found, error.case = f"{path.name}: {error.found}", error.case or case
        raise
    except MemoryError as error:
        raise ResourceError(
            f"{path.name} does not fit into memory",
            hint="use a machine with more memory, or crop the scan",
            case=case,
        ) from error
    except Exception as error:
        cause = next(
            (plain for words, plain in _PLAIN.items() if words in str(error)), f"cannot be read ({reason(error)})"
        )
        raise DataError(f"{path.name}: {cause}", hint="fetch or export the file again", case=case) from error


def _require_readable(path: Path) -> None:
    if not path.exists():
        raise DataError(f"no such file in {path.parent}", hint="add the file or remove it from the list")
    if path.is_dir():
        return
    if path.stat().st_size == 0:
        raise DataError("the file is empty (0 bytes)", hint="fetch or export the file again")
    if path.name.lower().endswith(".gz"):
        with path.open("rb") as file:
            if file.read(2) != b"\x1f\x8b":
                raise DataError(
                    "the name ends in .gz but the content is not gzip",
                    hint="fetch the file again, or rename it if it is a plain .nii",
                )
