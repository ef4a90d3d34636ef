"""Fixed sentences of the reports: captions and explanations."""

from __future__ import annotations

DASH = "–"

BOXES = (
    "Each point is a case. The box spans the quartiles, the line is the median, and the whiskers extend to 1.5 box "
    "lengths. The axis may not start at 0."
)

PICTURES = (
    "Outlines of the reference (top row) and the prediction (bottom row) over the scan, in radiological convention: "
    "the patient's right (in the sagittal plane anterior) is on the left of the picture, and superior (in the axial "
    "plane anterior) is at the top. The planes follow the scan's axes and pass through the slices with most reference "
    "foreground. All pictures of a case have the same scale and are cropped to the structures. The grey scale spans "
    "the 1st to the 99th percentile of the region shown. If the scan has several channels, the first is shown."
)

ESTIMATES = "Mean over cases with its 95 % interval; ± is the standard deviation over cases."

COMPARED = (
    "Means over the cases that all recipes have, with 95 % intervals. With several seeds, the metrics of each case are "
    "averaged over the seeds first. The best value of each column is in bold, whether or not the difference is "
    "significant."
)

DIFFERENCES = (
    "Mean Dice of this recipe minus that of the first, paired over cases, with its 95 % interval. p: Wilcoxon's "
    "signed-rank test, two-sided; corrected for the number of recipes by Holm's method."
)

COMPARED_CURVES = (
    "Thick lines: mean over folds and seeds; thin lines: each fold. Dice is measured during training on a few "
    "validation scans. Diamonds: the trained networks, with the mean Dice of all their validation scans."
)

COST = "Each point is a recipe; its line is the 95 % interval of the mean over cases."

OFFSETS = (
    "Number of offsets in each direction, in millimetres from the voxel that is predicted; both ends of a pair are "
    "counted. Scale, bins and colours are the same before and after training; colours are logarithmic, and white means "
    "none."
)

OFFSET_DISTANCES = (
    "Distance of the offsets from the centre, before → after training. Field of view: mean size of the training input "
    "(whole scans, or patches)."
)

OFFSET_SD = "Standard deviation of the offsets of each layer along each axis during training."

NO_CASES = (
    "No case was validated, so the quality is unknown: all cases were used for training, or the validation has not "
    "started."
)

NO_SUMMARY = "summary.json is missing: the run is not finished, so there are no statistics over its folds yet."

NO_LIST = "No metrics.json of a fold lists a case, so no cases are shown."

NO_DICE = "Dice is undefined in every case, so no case can be chosen."

NO_LOG = "No log.jsonl with learning curves was found."

NO_BUNDLE = "No bundle was found, so the resolved settings are not shown."


def how_to_read(tolerance_mm: float | None) -> str:
    """The meaning of each metric, in a paragraph."""
    tolerance = "the tolerance" if tolerance_mm is None else f"{tolerance_mm:.3g} mm"
    return (
        "Dice: overlap of prediction and reference, 0 to 1. HD95: 95th percentile of the distances between the two "
        f"surfaces, mm. Surface Dice: fraction of the two surfaces within {tolerance} of each other. Sensitivity: "
        "fraction of the structure's voxels that were predicted; specificity: fraction of the other voxels that were "
        "not predicted. Intervals: 95 % bootstrap interval of the mean over cases. "
        f"An en dash ({DASH}) marks an undefined value."
    )
