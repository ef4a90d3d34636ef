"""The sentences a report says the same way each time: how to read its figures and numbers."""

from __future__ import annotations

DASH = "–"

BOXES = "A point is a case. Box: quartiles; line: median; whiskers: 1.5 box lengths. The axis need not begin at 0."

PICTURES = (
    "Outlines over the scan: reference above, prediction below. Radiological view: the patient's right (in the "
    "sagittal plane the front) is on the left of the picture, the front (elsewhere the head) on top. Planes follow the "
    "scan's axes, pass through the slices with most reference foreground and are cut to the structures, all at one "
    "scale. Grey runs from the 1st to the 99th percentile of what is shown. Of several channels the first is shown."
)

ESTIMATES = "Mean over cases with its 95 % interval; ± is the standard deviation over cases."

COMPARED = (
    "Means over the cases that all recipes have, with 95 % intervals; with several seeds each case's figures are "
    "averaged over the seeds first. The best of each column is in bold, whether or not the difference could be chance."
)

DIFFERENCES = (
    "Paired over cases: this recipe's mean Dice minus that of the first, with its 95 % interval. p: Wilcoxon's "
    "signed-rank test, two-sided; corrected: for the number of recipes, after Holm."
)

COMPARED_CURVES = (
    "Thick: mean over folds and seeds; thin: each fold. Dice of a few validation scans together, taken while training. "
    "Diamond: the finished networks, mean Dice of all their validation scans."
)

OFFSETS = (
    "How many offsets point where, in millimetres from the voxel that is answered for; of a pair both ends count. "
    "The same scale, bins and colours before and after; colours are logarithmic, white means none."
)

REACH = (
    "Distance of the offsets from the centre, before → after training. Field of view: what the network saw at once in "
    "training, on average: whole scans, or patches."
)

SPREAD = "Standard deviation of the offsets along each axis over the training, layer by layer."

NO_CASES = (
    "No case was validated, so nothing is known about quality: every case went into training, or no validation has "
    "been reached."
)

NO_SUMMARY = "summary.json is missing: the run has not ended, so the numbers of its folds are not put together yet."

NO_LIST = "No case is listed in a metrics.json of the folds, so cases cannot be shown."


def how_to_read(tolerance_mm: float | None) -> str:
    """What each metric means, in a paragraph."""
    within = "the tolerance" if tolerance_mm is None else f"{tolerance_mm:.3g} mm"
    return (
        "Dice: overlap of prediction and reference, 0 to 1. HD95: 95th percentile of the distances between the two "
        f"surfaces, mm. Surface Dice: share of the two surfaces that lie within {within} of each other. Sensitivity: "
        "share of the structure's voxels that were found; specificity: share of the other voxels left alone. "
        "Intervals: 95 % bootstrap interval of the mean over cases. "
        f"An en dash ({DASH}) stands for an undefined number."
    )
