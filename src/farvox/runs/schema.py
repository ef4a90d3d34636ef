"""The files of a run folder and of a comparison as typed models."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from farvox._tables import data_frame, table_html
from farvox.evaluation.schema import (
    ABSENT_RULE,
    CaseMetrics,
    Document,
    LabelInfo,
    MetricSummary,
)

if TYPE_CHECKING:
    import pandas
    from rich.table import Table


class FoldIdentity(Document):
    """`split.json`: the cases and settings of a fold, without the training duration.

    Attributes:
        fold: Name of the fold: a number as text, or "all".
        training_cases: Ids of the training cases.
        validation_cases: Ids of the validation cases.
        channels: Names of the image channels.
        labels: Label value → name.
        landmark_radius_mm: Radius of landmark labels, mm; None without landmarks.
        recipe: Lines of the recipe.
    """

    old_keys = {"training": "training_cases", "validation": "validation_cases", "radius": "landmark_radius_mm"}

    fold: str
    training_cases: tuple[str, ...] | None = None
    validation_cases: tuple[str, ...] | None = None
    channels: tuple[str, ...] = ()
    labels: dict[int, str] = {}
    landmark_radius_mm: float | None = None
    recipe: tuple[str, ...] = ()


class FoldResult(Document):
    """`result.json`: how the training of a fold ended. The file exists once the fold is complete.

    Attributes:
        stop_reason: "budget", "epochs" or "interrupted".
        epoch: Completed epochs.
        step: Completed training steps.
        seconds: Training time, s.
        peak_memory_mb: Peak memory of the training, MiB.
        parameters: Number of parameters of the network.
    """

    old_keys = {"reason": "stop_reason"}

    stop_reason: str | None = None
    epoch: int | None = None
    step: int | None = None
    seconds: float | None = None
    peak_memory_mb: float | None = None
    parameters: int | None = None


class FoldSummary(FoldResult):
    """A fold in `summary.json`.

    Attributes:
        cases: Number of validation cases.
        dice: Mean foreground Dice of the validation cases.
    """

    cases: int | None = None
    dice: float | None = None


class StartEvent(Document):
    """First line of `log.jsonl`: the conditions of the training."""

    old_keys = {"train": "training_cases", "validation": "validation_cases"}

    event: Literal["start"] = "start"
    fold: str | None = None
    dataset: str | None = None
    recipe: str | None = None
    model: str | None = None
    parameters: int | None = None
    device: str | None = None
    devices: int | None = None
    precision: str | None = None
    threads: int | None = None
    training_cases: tuple[str, ...] | None = None
    validation_cases: tuple[str, ...] | None = None


class EpochEvent(Document):
    """End of an epoch.

    Attributes:
        epoch: Completed epochs.
        step: Completed training steps.
        fraction_done: Completed fraction of the training, 0 to 1.
        seconds: Training time, s.
        loss: Mean loss of the epoch.
        learning_rate: Learning rate of the last step.
    """

    old_keys = {"progress": "fraction_done"}

    event: Literal["epoch"] = "epoch"
    epoch: int | None = None
    step: int | None = None
    fraction_done: float | None = None
    seconds: float
    loss: float | None = None
    learning_rate: float | None = None


class ValidationEvent(Document):
    """A validation during training, on a few validation cases.

    Attributes:
        epoch: Completed epochs.
        step: Completed training steps.
        seconds: Training time, s.
        dice: Label value → Dice over the voxels of all these cases.
        mean: Mean Dice over labels.
    """

    event: Literal["validation"] = "validation"
    epoch: int | None = None
    step: int | None = None
    seconds: float
    dice: dict[int, float] = {}
    mean: float | None = None


class EndEvent(Document):
    """Last line of `log.jsonl`: how the training ended; attributes as in `FoldResult`."""

    old_keys = {"reason": "stop_reason"}

    event: Literal["end"] = "end"
    stop_reason: str
    epoch: int | None = None
    step: int | None = None
    seconds: float | None = None
    peak_memory_mb: float | None = None


LogEvent = StartEvent | EpochEvent | ValidationEvent | EndEvent
_LOG_EVENT: TypeAdapter[LogEvent] = TypeAdapter(Annotated[LogEvent, Field(discriminator="event")])


def read_log(path: Path) -> tuple[LogEvent, ...]:
    """Events of a `log.jsonl`. Lines that were cut short by an interruption are skipped."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            events.append(_LOG_EVENT.validate_json(line))
        except ValidationError:
            continue
    return tuple(events)


class DatasetInfo(Document):
    """Name of a dataset and number of its cases."""

    name: str = ""
    cases: int | None = None


class RunSummary(Document):
    """`summary.json`: the results of a run over its complete folds.

    Attributes:
        format: Format of the file.
        dataset: Name and size of the dataset.
        recipe: Name of the recipe.
        version: Version of farvox.
        folds: Fold name → how its training ended, and its mean Dice.
        labels: The foreground labels.
        absent_rule: How absent structures are counted.
        tolerance_mm: Tolerance of surface Dice, mm.
        summary: Statistics over all validated cases; None without any.
    """

    old_keys = {"rule": "absent_rule"}

    format: str = "farvox-run/2"
    dataset: DatasetInfo = DatasetInfo()
    recipe: str | None = None
    version: str | None = None
    folds: dict[str, FoldSummary] = {}
    labels: tuple[LabelInfo, ...] = ()
    absent_rule: str | None = None
    tolerance_mm: float | None = None
    summary: MetricSummary | None = None


class BundleInfo(Document):
    """What a report needs to know of a bundle's `manifest.json`, of any version.

    Attributes:
        dataset: Name of the dataset.
        model: Name of the network.
        in_channels: Image channels of the network.
        classes: Output classes, background included.
        options: Options of the network.
        patch_size: Voxels of a training patch; None for whole scans.
        shape: Voxels of the preprocessed scans, if all have the same.
        axes: Axis codes of the preprocessed scans, such as "RAS".
        versions: Library → version.
    """

    dataset: str = ""
    model: str | None = None
    in_channels: int = 1
    classes: int = 2
    options: dict[str, object] = {}
    patch_size: tuple[int, int, int] | None = None
    shape: tuple[int, int, int] | None = None
    axes: str = "RAS"
    versions: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        model = data.get("model") or {}
        preprocessing = data.get("preprocessing") or data.get("preparation") or {}
        patch_size = (data.get("inference") or {}).get("patch_size") or data.get("window")
        values = {
            "dataset": data.get("dataset"),
            "model": model.get("name"),
            **{key: model.get(key) for key in ("in_channels", "classes", "options")},
            "patch_size": patch_size,
            **{key: preprocessing.get(key) for key in ("shape", "axes")},
            "versions": data.get("versions") or data.get("made_with"),
        }
        return {key: value for key, value in values.items() if value is not None}


class PairedDifference(Document):
    """Difference of a metric between two recipes, paired over cases: the second minus the first.

    Attributes:
        pairs: Cases in which both are defined.
        mean: Mean difference.
        ci_low: Lower end of its 95 % bootstrap interval.
        ci_high: Upper end.
        higher: Cases in which the second is higher.
        lower: Cases in which the second is lower.
        statistic: Smaller sum of ranks of Wilcoxon's signed-rank test.
        p: Its two-sided p-value.
        p_holm: p corrected for the number of comparisons (Holm).
    """

    old_keys = {"low": "ci_low", "high": "ci_high"}

    pairs: int
    mean: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    higher: int = 0
    lower: int = 0
    statistic: float | None = None
    p: float | None = None
    p_holm: float | None = None


class RecipeRow(Document):
    """Quality and cost of one recipe in a comparison.

    Attributes:
        name: Name of the recipe.
        network: Name of its network.
        folders: Run folders.
        seeds: Seeds, if the recipe was trained with several.
        folds: "run/fold-N" → how its training ended.
        budget: Training duration as set ("8m", "300 epochs"); one entry unless the folds differ.
        training_cases: Smallest and largest number of training cases of a fold.
        parameters: Number of parameters.
        multiply_adds_per_voxel: Multiply-adds per voxel of the preprocessed scan.
        reference_size: Size of the input that was counted, voxels.
        training_seconds: Mean training time of a fold, s.
        peak_memory_mb: Peak memory of the training, MiB.
        prediction_seconds: Median prediction time of a scan, s.
        cases: Metrics of each case, averaged over seeds.
        summary: Statistics over the cases.
        difference: Difference in Dice from the first recipe; None for the first.
    """

    old_keys: ClassVar[Mapping[str, str]] = {"length": "budget"}

    name: str
    network: str | None = None
    folders: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    folds: dict[str, FoldSummary] = {}
    budget: tuple[str, ...] = ()
    training_cases: tuple[int, int] | None = None
    parameters: int | None = None
    multiply_adds_per_voxel: float | None = None
    reference_size: tuple[int, int, int] | None = None
    training_seconds: float | None = None
    peak_memory_mb: float | None = None
    prediction_seconds: float | None = None
    cases: tuple[CaseMetrics, ...] = ()
    summary: MetricSummary = MetricSummary()
    difference: PairedDifference | None = None

    @model_validator(mode="before")
    @classmethod
    def _minutes_to_seconds(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("training_minutes") is not None:
            return {"training_seconds": 60 * data["training_minutes"], **data}
        return data


class Comparison(Document):
    """Recipes compared over the same cases: what `farvox.compare` returns and `comparison.json` contains.

    Attributes:
        format: Format of the file.
        version: Version of farvox.
        dataset: Name of the dataset.
        labels: The foreground labels.
        absent_rule: How absent structures are counted.
        tolerance_mm: Tolerance of surface Dice, mm.
        cases: Ids of the cases that all recipes have.
        recipes: A row for each recipe; the others are compared with the first.
        notes: Remarks, one line each.
        failed: Messages about folds that could not be trained.
        report: Path of the HTML report; not part of the file.
    """

    old_keys = {"rule": "absent_rule"}

    format: str = "farvox-comparison/2"
    version: str = ""
    dataset: str = ""
    labels: tuple[LabelInfo, ...] = ()
    absent_rule: str = ABSENT_RULE
    tolerance_mm: float | None = None
    cases: tuple[str, ...] = ()
    recipes: tuple[RecipeRow, ...] = ()
    notes: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    report: Path | None = Field(None, exclude=True)

    def csv(self) -> str:
        """A CSV document with one row per recipe; undefined values are empty."""
        rows = [self._row(row) for row in self.recipes]
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0] if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def to_dataframe(self) -> pandas.DataFrame:
        """A pandas data frame with one row per recipe."""
        return data_frame(self._row(row) for row in self.recipes)

    def table(self) -> Table:
        """A rich table with one row per recipe, at most 80 characters wide."""
        from rich.table import Table
        from rich.text import Text

        several, cases = len(self.recipes) > 1, len(self.cases)
        caption = f"mean [95 % interval] over {cases} {'case' if cases == 1 else 'cases'}"
        if several:
            caption += f"; difference in Dice from {self.recipes[0].name}, p by Wilcoxon's signed-rank test"
        if len(self.recipes) > 2:
            caption += ", corrected after Holm"
        table = Table(caption=caption)
        table.add_column("recipe", overflow="fold")
        for title in ("parameters", "Dice", "HD95 (mm)", "min", *(["difference"] if several else [])):
            table.add_column(title, justify="right", no_wrap=True)
        for row in self.recipes:
            dice, difference = row.summary.foreground.dice, row.difference
            interval = "" if dice.ci_low is None else f"\n[{dice.ci_low:.3f}, {dice.ci_high:.3f}]"
            minutes = None if row.training_seconds is None else row.training_seconds / 60
            cells = [
                _text(row.parameters, ","),
                _text(dice.mean, ".3f") + interval,
                _text(row.summary.foreground.hd95_mm.mean, ".2f"),
                _text(minutes, ".1f"),
            ]
            if difference:
                cells.append(f"{_text(difference.mean, '+.3f')}\np {_text(difference.p_holm, '.2g')}")
            table.add_row(Text(row.name), *cells)
        return table

    def _repr_html_(self) -> str:
        return table_html(self.table())

    def __repr__(self) -> str:
        means = [(row.name, row.summary.foreground.dice.mean) for row in self.recipes]
        dice = [f"{name} {_text(mean, '.3f')}" for name, mean in means]
        return f"<Comparison on {len(self.cases)} cases: Dice {', '.join(dice)}>"

    __str__ = __repr__

    def _row(self, row: RecipeRow) -> dict[str, object]:
        cells: dict[str, object] = {
            "recipe": row.name,
            **{key: getattr(row, key) for key in ("network", "parameters", "multiply_adds_per_voxel")},
            "seeds": len(row.seeds),
            "cases": len(row.cases),
        }
        for metric in ("dice", "hd95_mm", "surface_dice"):
            overall = row.summary.foreground[metric]
            cells |= {metric: overall.mean, f"{metric}_ci_low": overall.ci_low, f"{metric}_ci_high": overall.ci_high}
        for metric in ("dice", "hd95_mm"):
            for label in self.labels:
                cells[f"{metric} {label.name}"] = row.summary.labels[label.value][metric].mean
        cells |= {key: getattr(row, key) for key in ("training_seconds", "peak_memory_mb", "prediction_seconds")}
        difference = row.difference
        cells |= {"pairs": difference and difference.pairs, "difference": difference and difference.mean}
        return cells | {key: getattr(difference, key, None) for key in ("p", "p_holm")}


def _text(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
