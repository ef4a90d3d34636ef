"""The label table: label values in files, class indices in memory, and names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from farvox.errors import DataError
from farvox.types import Array, IntArray

IGNORE = 255
"""Class index of voxels that are ignored in loss and metrics (not annotated, or outside the scan)."""

_TABLE_SPAN = 2**17

_SIDES = (("left", "right"), ("lt", "rt"), ("l", "r"), ("sinister", "dexter"))


@dataclass(frozen=True)
class LabelTable:
    """Label values as in files, and their names; class 0 is background.

    Args:
        values: Value of each class in files, background (0) first, then ascending.
        names: Name of each class, same order.
        ignore: Value that means "not annotated", or None.
    """

    values: tuple[int, ...]
    names: tuple[str, ...]
    ignore: int | None = None

    def __post_init__(self) -> None:
        if not self.values or self.values[0] != 0 or list(self.values) != sorted(set(self.values)):
            raise DataError(f"label values {list(self.values)}", allowed="0 (background) first, then each value once")
        if len(self.values) != len(self.names):
            raise DataError(f"{len(self.values)} label values but {len(self.names)} names", allowed="one name a value")
        if len(self.values) < 2:
            raise DataError("no label except background", hint="add the structures to the label table")
        if len(self.values) > IGNORE:
            raise DataError(f"{len(self.values) - 1} labels", allowed=f"at most {IGNORE - 1} besides background")

    @classmethod
    def from_mapping(cls, names: Mapping[int, str], ignore: int | None = None) -> LabelTable:
        """Build from value → name; background is added when missing, the ignore value is set apart."""
        table = {0: "background", **{int(value): name for value, name in names.items()}}
        if ignore is not None:
            table.pop(ignore, None)
        values = tuple(sorted(table, key=lambda value: (value != 0, value)))
        if values[1:] and values[1] < 0:
            raise DataError(f"negative label value {values[1]} in the label table", allowed="0 and positive integers")
        return cls(values, tuple(table[value] for value in values), ignore)

    @property
    def classes(self) -> int:
        """Number of classes, background included."""
        return len(self.values)

    @property
    def foreground(self) -> list[tuple[int, int, str]]:
        """(class index, value, name) of every class but background."""
        return [(index, self.values[index], self.names[index]) for index in range(1, self.classes)]

    @cached_property
    def mirror_classes(self) -> IntArray:
        """Class index of each class after mirroring left to right; the same index for unpaired classes."""
        partner = np.arange(self.classes)
        keys = [_words(name) for name in self.names]
        for index, key in enumerate(keys):
            other = _swap_sides(key)
            if other != key and keys.count(other) == keys.count(key) == 1:
                partner[index] = keys.index(other)
        return partner

    @property
    def unpaired_sides(self) -> list[str]:
        """Names that contain a side and have no partner; mirroring keeps their class."""
        keys = [_words(name) for name in self.names]
        return [
            n for n, k, p in zip(self.names, keys, self.mirror_classes, strict=True) if _swap_sides(k) != k == keys[p]
        ]

    @property
    def mask_dtype(self) -> np.dtype:
        """Smallest unsigned integer type that holds every value."""
        return np.min_scalar_type(max(self.values))

    def to_classes(self, label: Array, case: str | None = None) -> Array:
        """File values → class indices as uint8, `IGNORE` where not annotated; float files with whole values are fine.

        Raises:
            DataError: A value that is not whole or not in the table.
        """
        if label.dtype.kind in "iu" and int(label.max()) - int(label.min()) < _TABLE_SPAN:
            return self._by_table(label, case)
        present = np.unique(label)
        if not np.all(np.isfinite(present)):
            raise DataError("label holds NaN or infinite values", allowed="whole numbers", case=case)
        if np.any(present != np.round(present)):
            odd = present[present != np.round(present)]
            raise DataError(
                f"label holds fractional values such as {odd[0]:g}",
                allowed="whole numbers",
                hint="save the label with nearest-neighbour interpolation, or threshold it",
                case=case,
            )
        codes = self._codes([int(value) for value in present], case)
        return codes[np.searchsorted(present, label)]

    def _by_table(self, label: Array, case: str | None) -> Array:
        """Whole numbers of small span: one look-up a voxel, slice by slice, so that indices never fill memory."""
        low, span = int(label.min()), int(label.max()) - int(label.min()) + 1
        out = np.empty(label.shape, dtype=np.uint8)
        occurs = np.zeros(span, dtype=bool)
        slices = [np.s_[..., k : k + 1] for k in range(label.shape[-1])]
        for part in slices:
            occurs[label[part].astype(np.intp) - low] = True
        present = np.flatnonzero(occurs)
        table = np.zeros(span, dtype=np.uint8)
        table[present] = self._codes([int(value) + low for value in present], case)
        for part in slices:
            out[part] = table[label[part].astype(np.intp) - low]
        return out

    def _codes(self, present: list[int], case: str | None) -> Array:
        """Class index of each file value that occurs; a value beyond the table is an error."""
        values = [*self.values, *([] if self.ignore is None else [self.ignore])]
        unknown = [value for value in present if value not in values]
        if unknown:
            shown = ", ".join(map(str, unknown[:8])) + (", …" if len(unknown) > 8 else "")
            raise DataError(
                f"label holds the value(s) {shown}",
                allowed=f"{', '.join(map(str, values[:12]))}{', …' if len(values) > 12 else ''}",
                hint="add them to the label table (dataset.json) or set them to 0 in the file",
                case=case,
            )
        table = {value: index for index, value in enumerate(self.values)}
        if self.ignore is not None:
            table[self.ignore] = IGNORE
        return np.array([table[value] for value in present], dtype=np.uint8)

    def to_values(self, classes: Array) -> Array:
        """Class indices → file values, in `mask_dtype`."""
        return np.asarray(self.values, dtype=self.mask_dtype)[classes]


def _words(name: str) -> tuple[str, ...]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return tuple(re.findall(r"[^\W_]+", spaced.lower()))


def _swap_sides(words: tuple[str, ...]) -> tuple[str, ...]:
    swap = {a: b for pair in _SIDES for a, b in (pair, pair[::-1])}
    return tuple(swap.get(word, word) for word in words)
