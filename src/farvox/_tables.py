"""Result tables outside the terminal: HTML for notebooks and pandas data frames."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from farvox._optional import import_optional

if TYPE_CHECKING:
    import pandas
    from rich.table import Table


def table_html(table: Table) -> str:
    """A rich table as an HTML table, for `_repr_html_`."""
    head = "".join(f"<th>{_cell(column.header)}</th>" for column in table.columns)
    rows = zip(*(column.cells for column in table.columns), strict=True)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>" for row in rows)
    caption = f"<caption>{_cell(table.caption)}</caption>" if table.caption else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def data_frame(rows: Iterable[Mapping[str, object]]) -> pandas.DataFrame:
    """Rows as a pandas data frame.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    frame: pandas.DataFrame = import_optional("pandas", "dataframe").DataFrame([dict(row) for row in rows])
    return frame


def _cell(content: object) -> str:
    return html.escape(str(content)).replace("\n", "<br>")
