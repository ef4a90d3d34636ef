"""JSON files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from farvox.errors import DataError, ResourceError


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
            f"cannot write {path}: {error.strerror}", remedy="free space or choose another place"
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
        raise DataError(f"{path} cannot be read: {error}", remedy="write it again or restore it") from None
