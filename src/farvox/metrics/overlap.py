"""Overlap of two masks: Dice, sensitivity and specificity from four counts of voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farvox.types import Array


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of one structure in one scan; a metric is None if its denominator is 0.

    Args:
        true_positives: Voxels in prediction and reference.
        false_positives: Voxels only in the prediction.
        false_negatives: Voxels only in the reference.
        true_negatives: Voxels in neither.
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @classmethod
    def of(cls, prediction: Array, reference: Array, voxels: int | None = None) -> Overlap:
        """Count the voxels of two boolean masks.

        >>> mask, reference = np.array([True, True, False, False]), np.array([True, False, True, False])
        >>> Overlap.of(mask, reference).dice
        0.5

        Args:
            prediction: Boolean mask.
            reference: Boolean mask, same shape.
            voxels: Number of voxels of the whole scan, if the masks are a crop of it; None: that of the masks.
        """
        true_positives = int(np.count_nonzero(prediction & reference))
        false_positives = int(np.count_nonzero(prediction)) - true_positives
        false_negatives = int(np.count_nonzero(reference)) - true_positives
        voxels = prediction.size if voxels is None else voxels
        return cls(
            true_positives,
            false_positives,
            false_negatives,
            voxels - true_positives - false_positives - false_negatives,
        )

    @property
    def prediction(self) -> int:
        """Voxels in the prediction."""
        return self.true_positives + self.false_positives

    @property
    def reference(self) -> int:
        """Voxels in the reference."""
        return self.true_positives + self.false_negatives

    @property
    def dice(self) -> float | None:
        """Twice the common voxels over the sum of both sizes, 0 to 1; None if both are empty."""
        return _ratio(2 * self.true_positives, self.prediction + self.reference)

    @property
    def sensitivity(self) -> float | None:
        """Fraction of the reference that is in the prediction, 0 to 1; None if the reference is empty."""
        return _ratio(self.true_positives, self.reference)

    @property
    def specificity(self) -> float | None:
        """Fraction of the voxels outside of the reference that the prediction excludes, 0 to 1; None without any."""
        return _ratio(self.true_negatives, self.true_negatives + self.false_positives)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
