"""Agreement of two masks voxel by voxel: Dice, sensitivity and specificity from four counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farvox.types import Array


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of one structure in one scan; every figure is None where it would divide by nothing.

    Args:
        both: Voxels in prediction and reference (true positives).
        false_positives: Voxels in the prediction alone (false positives).
        false_negatives: Voxels in the reference alone (false negatives).
        neither: Voxels in neither (true negatives).
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @classmethod
    def of(cls, prediction: Array, reference: Array, voxels: int | None = None) -> Overlap:
        """Count two boolean masks of one shape.

        Args:
            prediction: Boolean mask.
            reference: Boolean mask, same shape.
            voxels: Voxels that take part in the whole scan, where the masks are a crop of it; None for the masks' own.
        """
        both = int(np.count_nonzero(prediction & reference))
        false_positives = int(np.count_nonzero(prediction)) - both
        false_negatives = int(np.count_nonzero(reference)) - both
        voxels = prediction.size if voxels is None else voxels
        return cls(both, false_positives, false_negatives, voxels - both - false_positives - false_negatives)

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
        """Twice the common voxels over the sum of both sizes, 0 to 1; None where both are empty."""
        return _ratio(2 * self.true_positives, self.prediction + self.reference)

    @property
    def sensitivity(self) -> float | None:
        """Share of the reference that was found, 0 to 1; None where the reference is empty."""
        return _ratio(self.true_positives, self.reference)

    @property
    def specificity(self) -> float | None:
        """Share of the voxels outside the reference left out of the prediction, 0 to 1; None where there are none."""
        return _ratio(self.true_negatives, self.true_negatives + self.false_positives)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
