"""One process at a time on a fold's folder: an exclusive lock file that names its owner."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from farvox.errors import ResourceError, UsageError
from farvox.progress import Progress

NAME = ".lock"
_HEARTBEAT_SECONDS = 20.0
_STALE_SECONDS = 300.0
"""Age of the last heartbeat from which on a process of another machine counts as dead."""


@contextmanager
def locked(folder: Path, progress: Progress) -> Iterator[None]:
    """Keep other processes out of a folder while the block runs.

    A lock is stale when its process is gone from this machine, or when a process of another machine has not renewed it
    for five minutes. A stale lock is taken over with a message.

    Args:
        folder: The folder; made if it is missing.
        progress: Receives the message about a stale lock.

    Raises:
        UsageError: Another process works in the folder.
        ResourceError: The lock file cannot be written.
    """
    path = folder / NAME
    owner: dict[str, str | int] = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not _create(path, owner):
            other = _read(path)
            if not _is_stale(path, other):
                raise _in_use(folder, other)
            progress.message(
                f"note: took over {folder} from process {other.get('pid', '?')} on {other.get('host', '?')}, which has "
                "ended"
            )
            path.unlink(missing_ok=True)
            if not _create(path, owner):
                raise UsageError(f"{folder} was taken by another process", hint="wait until it has ended")
    except OSError as error:
        raise ResourceError(
            f"cannot write the lock {path}: {error.strerror}", hint="choose a folder that can be written to"
        ) from None
    ended = threading.Event()
    beat = threading.Thread(target=_renew, args=(path, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        if _read(path) == owner:
            with suppress(OSError):
                path.unlink()


def is_locked(folder: Path) -> bool:
    """Whether a living process works in a folder."""
    path = folder / NAME
    return path.exists() and not _is_stale(path, _read(path))


def require_unlocked(folder: Path) -> None:
    """Raise if a living process works in a folder.

    Raises:
        UsageError: The folder is in use; the message names the process.
    """
    if is_locked(folder):
        raise _in_use(folder, _read(folder / NAME))


def _in_use(folder: Path, other: dict[str, str | int]) -> UsageError:
    return UsageError(
        f"{folder} is in use by process {other.get('pid', '?')} on {other.get('host', '?')}, since "
        f"{other.get('started', '?')}",
        allowed="one training in a folder at a time",
        hint="wait until it has ended, or choose another folder",
    )


def _create(path: Path, owner: dict[str, str | int]) -> bool:
    """Write the lock file unless there is one."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(owner, file)
    return True


def _read(path: Path) -> dict[str, str | int]:
    """Who holds the lock; empty where the file is gone or not complete."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_stale(path: Path, owner: dict[str, str | int]) -> bool:
    pid = owner.get("pid")
    if owner.get("host") == socket.gethostname() and isinstance(pid, int):
        import psutil

        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    try:
        return time.time() - path.stat().st_mtime > _STALE_SECONDS
    except FileNotFoundError:
        return True


def _renew(path: Path, ended: threading.Event) -> None:
    while not ended.wait(_HEARTBEAT_SECONDS):
        with suppress(OSError):
            os.utime(path)
