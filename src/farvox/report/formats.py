"""Formats of the numbers in a report, and the rendering of its templates."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

from farvox.evaluation.schema import METRIC_INFOS, MetricEstimates
from farvox.report import texts
from farvox.report.texts import DASH

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def render(template: str, **context: object) -> Markup:
    """Render a template of `report/templates`; values are escaped unless they are `Markup`."""
    from markupsafe import Markup

    return Markup(_environment().get_template(template).render(**context))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("farvox.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": format_number,
        "count": format_count,
        "duration": format_duration,
        "memory": format_memory,
        "signed": format_signed,
        "p_value": format_p_value,
        "plain": format_plain,
    }
    environment.globals |= {"texts": texts, "metric_infos": METRIC_INFOS, "undefined": MetricEstimates(), "dash": DASH}
    return environment


def format_number(value: float | None, decimals: int | None) -> str:
    """A number with fixed decimals; for None two decimals, or three digits below 1; a dash if undefined."""
    if value is None or not math.isfinite(value):
        return DASH
    if decimals is None:
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    return f"{value:.{decimals}f}"


def format_count(count: float | None) -> str:
    """A count with thin spaces between thousands."""
    return DASH if count is None else f"{round(count):,}".replace(",", "\u202f")


def format_duration(seconds: float | None) -> str:
    """Seconds as "45 s", "8 min 0 s" or "2 h 5 min"."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def format_memory(megabytes: float | None) -> str:
    """Megabytes as "870 MB" or "1.43 GB"."""
    if megabytes is None or not math.isfinite(megabytes):
        return DASH
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.2f} GB"


def format_signed(value: float | None) -> str:
    """A difference with its sign and three decimals."""
    return DASH if value is None else f"{value:+.3f}".replace("-", "−")


def format_p_value(value: float | None) -> str:
    """A p-value with two digits."""
    if value is None:
        return DASH
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def format_plain(value: object) -> str:
    """Any value of a definition list as text."""
    if isinstance(value, list | tuple):
        return ", ".join(map(format_plain, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return DASH if value is None else str(value)
