"""The content of `metrics.json` as typed models: values per case and label, and their summary over cases."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from farvox._atomic import write_text
from farvox._tables import data_frame, table_html
from farvox.errors import FarvoxError, UsageError
from farvox.labels import LabelTable

if TYPE_CHECKING:
    import pandas
    from rich.table import Table

ABSENT_RULE = (
    "A structure absent from prediction and reference has no metrics except volumes of 0 and is left out of all means; "
    "a structure absent from only one of them counts as Dice 0, surface Dice 0 and HD95 = the diagonal of the scan; "
    "sensitivity is undefined if the reference lacks the structure."
)
"""How absent structures are counted."""


class MetricInfo(NamedTuple):
    """Name of a metric in files, its heading in tables, and the decimals shown (None: depends on the size)."""

    key: str
    title: str
    decimals: int | None


METRIC_INFOS = (
    MetricInfo("dice", "Dice", 3),
    MetricInfo("hd95_mm", "HD95 (mm)", 2),
    MetricInfo("surface_dice", "surface Dice", 3),
    MetricInfo("sensitivity", "sensitivity", 3),
    MetricInfo("specificity", "specificity", 4),
    MetricInfo("reference_ml", "reference (ml)", None),
    MetricInfo("prediction_ml", "prediction (ml)", None),
)

METRICS = tuple(info.key for info in METRIC_INFOS)
"""All metrics of a label, in the order of tables."""

QUALITY_METRICS = METRICS[:5]
"""Metrics that rate a prediction; means over labels are taken of these and not of volumes."""


class Document(BaseModel):
    """Base of the models of JSON files. Unknown keys are ignored and keys of earlier versions are translated."""

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)

    old_keys: ClassVar[Mapping[str, str]] = {}
    """Key of an earlier version → key of this version."""

    @model_validator(mode="before")
    @classmethod
    def _translate_old_keys(cls, data: Any) -> Any:
        return {cls.old_keys.get(key, key): value for key, value in data.items()} if isinstance(data, dict) else data

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a JSON file.

        Raises:
            FarvoxError: The file is not JSON or does not have the expected content.
        """
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            message = f"{path} has an unexpected value at {where} ({error.errors()[0]['msg']})"
        except ValueError as error:
            message = f"{path} is not JSON ({error})"
        raise FarvoxError(message, hint="remove the file and repeat the step that writes it")

    def write(self, path: Path) -> None:
        """Write an indented JSON file; the file appears completely or not at all.

        Raises:
            ResourceError: The disk is full or the folder cannot be written to.
            ValueError: A value is NaN or infinite.
        """
        write_text(path, json.dumps(self.model_dump(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


class LabelInfo(Document):
    """A foreground label.

    Attributes:
        value: Value in files.
        name: Name of the structure.
    """

    value: int
    name: str


def label_infos(labels: LabelTable) -> tuple[LabelInfo, ...]:
    """The foreground labels of a table."""
    return tuple(LabelInfo(value=value, name=name) for _, value, name in labels.foreground)


class QualityValues(Document):
    """Metrics that rate a prediction, as attributes or by name (`values["dice"]`); None where undefined.

    Attributes:
        dice: Dice coefficient, 0 to 1.
        hd95_mm: 95th percentile of the distances between the surfaces, mm.
        surface_dice: Fraction of the surfaces within the tolerance of each other, 0 to 1.
        sensitivity: Fraction of the structure's voxels that were predicted, 0 to 1.
        specificity: Fraction of the other voxels that were not predicted, 0 to 1.
    """

    dice: float | None = None
    hd95_mm: float | None = None
    surface_dice: float | None = None
    sensitivity: float | None = None
    specificity: float | None = None

    def __getitem__(self, metric: str) -> float | None:
        value: float | None = getattr(self, _known(metric), None)
        return value


class MetricValues(QualityValues):
    """Metrics of one label in one case.

    Attributes:
        reference_ml: Volume of the structure in the reference, ml.
        prediction_ml: Volume of the structure in the prediction, ml.
    """

    reference_ml: float | None = None
    prediction_ml: float | None = None


class CaseMetrics(Document):
    """Metrics of one case.

    Attributes:
        case: Case id.
        prediction: Path of the predicted mask.
        reference: Path of the reference mask.
        scan: Path of the scan.
        seconds: Time the prediction took, s.
        labels: Label value → metrics.
        mean: Mean over the labels for which a metric is defined.
    """

    case: str = ""
    prediction: str | None = None
    reference: str | None = None
    scan: str | None = None
    seconds: float | None = None
    labels: dict[int, MetricValues] = {}
    mean: QualityValues = QualityValues()


class Estimate(Document):
    """A mean over cases; None where undefined.

    Attributes:
        mean: Mean over cases.
        sd: Standard deviation over cases.
        ci_low: Lower end of the 95 % bootstrap interval of the mean.
        ci_high: Upper end.
        cases: Number of cases in which the metric is defined.
    """

    old_keys = {"low": "ci_low", "high": "ci_high"}

    mean: float | None = None
    sd: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    cases: int = 0


class QualityEstimates(Document):
    """Estimates of the metrics that rate a prediction, as in `QualityValues`."""

    dice: Estimate = Estimate()
    hd95_mm: Estimate = Estimate()
    surface_dice: Estimate = Estimate()
    sensitivity: Estimate = Estimate()
    specificity: Estimate = Estimate()

    def __getitem__(self, metric: str) -> Estimate:
        estimate: Estimate = getattr(self, _known(metric), Estimate())
        return estimate


class MetricEstimates(QualityEstimates):
    """Estimates of all metrics of a label, as in `MetricValues`."""

    reference_ml: Estimate = Estimate()
    prediction_ml: Estimate = Estimate()


class MetricSummary(Document):
    """Statistics over cases.

    Attributes:
        labels: Label value → estimates.
        foreground: Estimates of each case's mean over labels.
    """

    labels: dict[int, MetricEstimates] = {}
    foreground: QualityEstimates = QualityEstimates()


class Failure(Document):
    """A case that could not be evaluated, and the reason."""

    case: str
    error: str


class Metrics(Document):
    """Metrics of all cases: what `farvox.evaluate` returns and `metrics.json` contains.

    Attributes:
        format: Format of the file.
        absent_rule: How absent structures are counted.
        tolerance_mm: Tolerance of surface Dice, mm.
        labels: The foreground labels.
        cases: Metrics of each case.
        failed: Cases that could not be evaluated.
        notes: Remarks on what was evaluated, one line each.
        summary: Statistics over the cases.
    """

    old_keys = {"rule": "absent_rule"}

    format: str = "farvox-metrics/2"
    absent_rule: str = ABSENT_RULE
    tolerance_mm: float | None = None
    labels: tuple[LabelInfo, ...] = ()
    cases: tuple[CaseMetrics, ...] = ()
    failed: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    summary: MetricSummary = MetricSummary()

    def write(self, path: Path) -> None:
        """Write the metrics as JSON, and next to it a CSV file with one row per case and label.

        Undefined values are `null` in JSON and empty in CSV. Each file appears completely or not at all.

        Args:
            path: The JSON file; missing folders are created.

        Raises:
            ResourceError: The disk is full or the folder cannot be written to.
            UsageError: `path` ends in .csv.
            ValueError: A value is NaN or infinite.
        """
        path = Path(path)
        if path.suffix.lower() == ".csv":
            raise UsageError(
                f"metrics cannot be written to {path.name}",
                allowed="a .json file; the .csv file is written next to it",
                hint=f"use the name {path.with_suffix('.json').name}",
            )
        super().write(path)
        text = io.StringIO()
        writer = csv.DictWriter(text, ["case", "label", "name", *METRICS], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows())
        write_text(path.with_suffix(".csv"), text.getvalue())

    def to_dataframe(self) -> pandas.DataFrame:
        """A pandas data frame with one row per case and label."""
        return data_frame(self._rows())

    def table(self) -> Table:
        """A rich table: mean ± standard deviation of each label, with the 95 % interval of the mean below.

        The table is at most 80 characters wide; "cases" counts those with a defined Dice.
        """
        from rich.table import Table
        from rich.text import Text

        tolerance = "" if self.tolerance_mm is None else f"; surface Dice at {self.tolerance_mm:.3g} mm"
        table = Table(caption=f"mean ± sd [95 % interval of the mean]{tolerance}")
        table.add_column("label")
        table.add_column("cases", justify="right")
        for info in METRIC_INFOS[:3]:
            table.add_column(info.title, justify="right", no_wrap=True)
        for label in self.labels:
            estimates = self.summary.labels.get(label.value, MetricEstimates())
            table.add_row(Text(f"{label.value} {label.name}"), *_cells(estimates))
        table.add_section()
        table.add_row("foreground", *_cells(self.summary.foreground))
        return table

    def _repr_html_(self) -> str:
        return table_html(self.table())

    def __repr__(self) -> str:
        values = (("mean", self.summary.foreground), *((i.name, self.summary.labels.get(i.value)) for i in self.labels))
        dice = [f"{name} {row.dice.mean:.3f}" for name, row in values if row and row.dice.mean is not None]
        return f"<Metrics of {len(self.cases)} cases: Dice {', '.join(dice) or 'undefined'}>"

    __str__ = __repr__

    def _rows(self) -> Iterator[dict[str, object]]:
        names = {label.value: label.name for label in self.labels}
        for case in self.cases:
            for value, metrics in case.labels.items():
                identity = {"case": case.case, "label": value, "name": names.get(value, "")}
                yield identity | {metric: metrics[metric] for metric in METRICS}


def _known(metric: str) -> str:
    if metric not in METRICS:
        raise KeyError(metric)
    return metric


def _cells(row: QualityEstimates) -> list[str]:
    return [str(row.dice.cases), *(_cell(row[info.key], info.decimals) for info in METRIC_INFOS[:3])]


def _cell(entry: Estimate, digits: int | None) -> str:
    if entry.mean is None:
        return "–"
    if entry.sd is None:
        return f"{entry.mean:.{digits}f}"
    interval = f"[{entry.ci_low:.{digits}f}, {entry.ci_high:.{digits}f}]"
    return f"{entry.mean:.{digits}f} ± {entry.sd:.{digits}f}\n{interval}"
