"""Cases on disk between the check and the end of a training, so that every file is read and preprocessed once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from zipfile import BadZipFile

import numpy as np

from farvox.data import CasePaths, Dataset, LoadedCase, load_case
from farvox.errors import ResourceError
from farvox.geometry import Grid
from farvox.io import Scan
from farvox.io.read import read_header
from farvox.preprocessing.cases import PreprocessedCase, open_preprocessed, preprocess_case
from farvox.preprocessing.config import Preprocessing
from farvox.preprocessing.planning import Fingerprint, fingerprint
from farvox.progress import Progress

_Value = TypeVar("_Value")


class CaseCache:
    """Decoded voxels, fingerprints and preprocessed arrays of the cases of a dataset, memory-mapped.

    An entry is found by what identifies the content of its files: path, size and time of change of each, with the
    channels and labels of the dataset. A digest of the content itself would cost another read of every file.
    Entries appear whole, so that several processes can share a folder. An entry that is damaged is made again. Where
    the folder cannot be written, files are read again each time, with one message.

    Args:
        folder: Where the entries are; made when the first one is written.
        dataset: The cases.
        progress: Receives messages about a folder that cannot be used.
    """

    def __init__(self, folder: Path, dataset: Dataset, progress: Progress) -> None:
        self.folder, self._dataset, self._progress = folder, dataset, progress
        self._writable = True

    def store(self, case: CasePaths, loaded: LoadedCase) -> None:
        """Keep the voxels and the fingerprint of a case that was read."""
        entry = self._entry(case)
        if not self._writable or (entry / "image.npy").exists():
            return
        summary = fingerprint(loaded)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=self.folder))
            try:
                np.save(scratch / "image.npy", loaded.image)
                np.save(scratch / "classes.npy", np.asarray(loaded.classes))
                np.savez(scratch / "facts.npz", affine=loaded.grid.affine, **vars(summary))
                shutil.rmtree(entry, ignore_errors=True)
                os.replace(scratch, entry)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        except OSError as error:
            if not (entry / "image.npy").exists():  # another process may have written the same entry
                self._give_up(error)

    def load(self, case: CasePaths) -> LoadedCase:
        """The case with its voxels and classes."""

        def opened(entry: Path) -> LoadedCase:
            image = np.load(entry / "image.npy", mmap_mode="r")
            classes = np.load(entry / "classes.npy", mmap_mode="r")
            with np.load(entry / "facts.npz") as facts:
                grid = Grid(classes.shape, facts["affine"])
            if image.shape[1:] != classes.shape:
                raise ValueError("image and label of different shapes")
            return LoadedCase(case.id, image, classes, grid)

        return self._opened(case, opened) or self._read(case)

    def scan(self, case: CasePaths) -> Scan:
        """The case's scan, with the header that its mask needs."""
        loaded = self.load(case)
        path = case.images[0]
        return Scan(loaded.image, loaded.grid, path, read_header(path, case=case.id))

    def fingerprint(self, case: CasePaths) -> Fingerprint:
        """The fingerprint of the case."""

        def opened(entry: Path) -> Fingerprint:
            with np.load(entry / "facts.npz") as facts:
                return Fingerprint(**{name: facts[name] for name in Fingerprint.__dataclass_fields__})

        return self._opened(case, opened) or fingerprint(self._read(case))

    def preprocessed(self, case: CasePaths, preprocessing: Preprocessing, instead: Path) -> PreprocessedCase:
        """The case on the network's grid.

        Args:
            case: The case.
            preprocessing: The transforms to network space.
            instead: Folder for the arrays where the cache cannot be written.

        Raises:
            ResourceError: The disk is full.
        """
        digest = hashlib.sha256(preprocessing.model_dump_json().encode()).hexdigest()[:16]
        entry = self._entry(case)
        folder = entry / digest
        if (folder / "done").exists():
            try:
                return open_preprocessed(folder, case.id)
            except (OSError, ValueError, KeyError, BadZipFile):
                self._progress.message(f"note: the cache of case {case.id} is damaged and is made again")
                shutil.rmtree(folder, ignore_errors=True)
        loaded, classes = self.load(case), self._dataset.labels.classes
        if self._writable and entry.exists():
            scratch = folder.with_name(f"{digest}-{os.getpid()}")
            try:
                preprocess_case(loaded, preprocessing, classes, scratch)
                (scratch / "done").touch()
                with suppress(OSError):  # another process was first
                    os.replace(scratch, folder)
                return open_preprocessed(folder, case.id)
            except OSError as error:
                self._give_up(error)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        try:
            return preprocess_case(loaded, preprocessing, classes, instead)
        except OSError as error:
            raise ResourceError(
                f"cannot write to {instead}: {error.strerror}", hint="free space or choose another --out"
            ) from None

    def remove(self) -> None:
        """Delete all entries."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _give_up(self, error: OSError) -> None:
        """Write nothing more, and say so once."""
        self._writable = False
        self._progress.message(
            f"note: cannot write the cache {self.folder} ({error.strerror}); scans are read again for every fold"
        )

    def _read(self, case: CasePaths) -> LoadedCase:
        """Read the files of a case, and keep what was read."""
        loaded = load_case(self._dataset, case)
        self.store(case, loaded)
        return loaded

    def _opened(self, case: CasePaths, read: Callable[[Path], _Value]) -> _Value | None:
        """What is read from the entry of a case; None where there is none, or no longer a whole one."""
        entry = self._entry(case)
        if not entry.exists():
            return None
        try:
            return read(entry)
        except (OSError, ValueError, KeyError, BadZipFile):
            self._progress.message(f"note: the cache of case {case.id} is damaged; its files are read again")
            shutil.rmtree(entry, ignore_errors=True)
            return None

    def _entry(self, case: CasePaths) -> Path:
        files = [*case.images, *([case.label] if isinstance(case.label, Path) else [])]
        if case.label is not None and not isinstance(case.label, Path):
            files.append(case.label.path)
        parts = [path for file in files for path in (sorted(file.iterdir()) if file.is_dir() else [file])]
        facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in parts]
        labels = self._dataset.labels
        identity = [case.id, facts, self._dataset.channels, labels.values, labels.ignore, repr(case.label)]
        digest = hashlib.sha256(json.dumps(identity, default=str).encode()).hexdigest()[:16]
        return self.folder / f"{digest}"
