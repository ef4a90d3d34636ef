"""The page shows the content of the files, loads nothing, and tolerates missing files."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from farvox.errors import FarvoxError, UsageError
from farvox.report import write_report
from tests.report.conftest import NAMES
from tests.report.runs import METRICS, RULE, write_run


class Cells(HTMLParser):
    """Text of each table as rows of cells, and every attribute of every element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("meta", "img", "br", "path", "use", "rect", "i"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.cell = True
        elif tag == "br" and self.cell:
            self.tables[-1][-1][-1] += " "

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag, f"</{tag}> closes something else"
        if tag in ("td", "th"):
            self.cell = False

    def handle_data(self, data: str) -> None:
        if self.cell:
            self.tables[-1][-1][-1] += data


def text(page: str) -> str:
    """Text of the page without pictures."""
    page = re.sub(r"<(svg|style).*?</\1>", "", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", page))


def edit(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


@pytest.fixture
def copied_run(run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change; the scans are not copied."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_table_by_label_repeats_the_summary(run: Path, page: str) -> None:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))["summary"]
    head, *rows = Cells(page).tables[0]
    assert [row[0] for row in rows] == [*NAMES.values(), "mean of labels"]
    blocks = [*(summary["labels"][str(value)] for value in NAMES), summary["foreground"]]
    for row, block in zip(rows, blocks, strict=True):
        for cell, metric in zip(row[1:], METRICS, strict=False):
            if metric not in block:
                assert cell == "–"
                continue
            mean, low, high, sd = map(float, re.findall(r"\d+(?:\.\d+)?", cell.replace("–", " ")))
            for shown, key in ((mean, "mean"), (low, "ci_low"), (high, "ci_high"), (sd, "sd")):
                assert shown == pytest.approx(abs(block[metric][key]), abs=0.005, rel=0.005), (metric, key)
        assert row[-1] == "3"
    assert head[1:4] == ["Dice", "HD95 (mm)", "surface Dice"]


def test_headline_is_the_mean_foreground_dice_with_its_interval(run: Path, page: str) -> None:
    dice = json.loads((run / "summary.json").read_text(encoding="utf-8"))["summary"]["foreground"]["dice"]
    shown = f"<b>{dice['mean']:.3f}</b><small>95 % interval<br>{dice['ci_low']:.3f}–{dice['ci_high']:.3f}</small>"
    assert shown in page


def test_table_by_case_lists_all_from_worst_to_best(run: Path, page: str) -> None:
    entries = [
        e for f in (0, 1) for e in json.loads((run / f"fold-{f}/metrics.json").read_text(encoding="utf-8"))["cases"]
    ]
    entries.sort(key=lambda entry: entry["mean"]["dice"])
    rows = Cells(page).tables[1][1:]
    assert [row[0] for row in rows] == [entry["case"] for entry in entries]
    for row, entry in zip(rows, entries, strict=True):
        assert row[2] == f"{entry['mean']['dice']:.3f}"
        assert row[-3:] == [f"{entry['labels'][str(value)]['dice']:.3f}" for value in NAMES]
    assert re.findall(r"(Worst|Median|Best) case: (\w+)", page) == [
        (title, entry["case"]) for title, entry in zip(("Worst", "Median", "Best"), entries, strict=True)
    ]


def test_cost_settings_rule_and_versions_are_shown(page: str) -> None:
    words = text(page)
    fold = Cells(page).tables[2][1]
    assert fold[3:] == ["1\u202f459\u202f921", "8 min 0 s", "1.43 GB", "budget"]
    assert RULE in words
    assert 'budget = "8m"' in words
    assert "torch 2.7.1" in " ".join(words.split())
    assert "radiological convention" in words


def test_page_loads_nothing_and_is_small(page: str) -> None:
    for tag, name, value in Cells(page).attributes:
        assert tag not in ("script", "link", "iframe", "object"), tag
        if name in ("src", "href", "xlink:href", "srcset", "data"):
            assert value.startswith(("data:image/png;base64,", "#")), (tag, name, value[:60])
    assert not re.search(r"@import|url\((?!#)", page)
    assert len(page) < 3_000_000


def test_names_are_escaped(page: str) -> None:
    assert "<b>&right" not in page
    assert page.count("Kidney &lt;b&gt;&amp;right&lt;/b&gt;") >= 4  # table, box plot, legend, facts


def test_case_ids_and_documents_are_escaped(copied_run: Path) -> None:
    def spoil(document: Any) -> None:
        document["cases"][0]["case"] = "<script>alert(1)</script>"

    edit(copied_run / "fold-0" / "metrics.json", spoil)
    (copied_run / "fold-0" / "bundle" / "recipe.toml").write_text('note = "</pre><script>"\n', encoding="utf-8")
    page = write_report(copied_run).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_undefined_numbers_are_dashes(copied_run: Path) -> None:
    def undefine(document: Any) -> None:
        for entry in document["cases"]:
            entry["labels"]["63"] = dict.fromkeys(METRICS)
            entry["mean"]["hd95_mm"] = None

    def forget(document: Any) -> None:
        document["summary"]["labels"]["63"]["dice"] = {
            "mean": None,
            "sd": None,
            "ci_low": None,
            "ci_high": None,
            "cases": 0,
        }

    for fold in (0, 1):
        edit(copied_run / f"fold-{fold}" / "metrics.json", undefine)
    edit(copied_run / "summary.json", forget)
    page = write_report(copied_run).read_text(encoding="utf-8")
    tables = Cells(page).tables
    assert tables[0][3][:2] == ["Spleen", "–"]
    assert [row[3] for row in tables[1][1:]] == ["–"] * 3
    assert [row[-1] for row in tables[1][1:]] == ["–"] * 3
    assert "undefined in every case" in page
    assert "None" not in text(page)
    assert "nan" not in text(page)


def test_a_missing_scan_leaves_a_note_and_the_other_pictures(copied_run: Path) -> None:
    gone: list[str] = []

    def move(document: Any) -> None:
        document["cases"][0]["scan"] = "/nowhere/scan.nii.gz"
        gone.append(document["cases"][0]["case"])

    edit(copied_run / "fold-0" / "metrics.json", move)
    page = write_report(copied_run).read_text(encoding="utf-8")
    assert "No picture: the scan is no longer at /nowhere/scan.nii.gz." in text(page)
    assert page.count("<img") == 2


def test_a_damaged_scan_and_one_on_another_grid_leave_notes(copied_run: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.nii.gz").write_bytes(b"not a scan")
    other = (
        write_run(tmp_path / "other" / "run", NAMES, folds=1, spacing=(2, 2, 2)) / "fold-0/predictions/case_001.nii.gz"
    )

    def damage(document: Any) -> None:
        document["cases"][0]["scan"] = str(tmp_path / "damaged.nii.gz")

    def misplace(document: Any) -> None:
        document["cases"][0]["prediction"] = str(other)

    edit(copied_run / "fold-0" / "metrics.json", damage)
    edit(copied_run / "fold-1" / "metrics.json", misplace)
    page = write_report(copied_run).read_text(encoding="utf-8")
    assert page.count("No picture:") == 2
    assert "prediction and scan have different grids" in page
    assert page.count("<img") == 1


def test_a_run_that_was_moved_finds_its_predictions(run: Path, tmp_path: Path) -> None:
    source = write_run(tmp_path / "before" / "run", {1: "Atrium"}, folds=1)
    moved = shutil.move(source, tmp_path / "after")
    assert write_report(moved).read_text(encoding="utf-8").count("<img") == 3


def test_failed_cases_and_notes_of_the_evaluation_are_shown(copied_run: Path) -> None:
    failed = {"case": "case_009", "error": "case case_009: label holds the value(s) <7>"}
    for fold in (0, 1):
        edit(
            copied_run / f"fold-{fold}" / "metrics.json",
            lambda d: d.update(failed=[failed], notes=["surface tolerance"]),
        )
    page = write_report(copied_run).read_text(encoding="utf-8")
    assert page.count("Not evaluated: case case_009: label holds the value(s) &lt;7&gt;") == 1
    assert page.count("Note: surface tolerance") == 1


def test_a_single_case_has_no_interval(copied_run: Path) -> None:
    alone = {"mean": 0.8125, "sd": None, "ci_low": None, "ci_high": None, "cases": 1}
    edit(copied_run / "summary.json", lambda document: document["summary"]["foreground"].update(dice=alone))
    page = write_report(copied_run).read_text(encoding="utf-8")
    assert "<b>0.812</b><small>one case, no interval</small>" in page
    assert Cells(page).tables[0][-1][1] == "0.812"


def test_pictures_do_not_depend_on_the_axis_order_of_the_files(tmp_path: Path) -> None:
    pictures = []
    for code in ("RAS", "PIL"):
        folder = write_run(tmp_path / code / "run", {1: "Liver", 2: "Spleen"}, folds=1, code=code)
        pictures.append(re.findall(r'src="([^"]+)"', write_report(folder).read_text(encoding="utf-8")))
    assert len(pictures[0]) == 3
    assert pictures[0] == pictures[1]


def test_without_validation_cases_the_page_says_so(copied_run: Path) -> None:
    shutil.rmtree(copied_run / "fold-1")
    (copied_run / "fold-0" / "metrics.json").unlink()
    edit(copied_run / "summary.json", lambda document: document.update(summary={}, folds={"0": {"seconds": 61}}))
    page = write_report(copied_run).read_text(encoding="utf-8")
    assert "No case was validated" in page
    assert "1 min 1 s" in page
    assert "training loss" in page


def test_an_unfinished_run_shows_its_folds(copied_run: Path) -> None:
    (copied_run / "summary.json").unlink()
    log = copied_run / "fold-0" / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines()
    log.write_text("\n".join(lines[:9]) + '\n{"event": "epo', encoding="utf-8")
    shutil.rmtree(copied_run / "fold-1" / "bundle")
    words = text(write_report(copied_run).read_text(encoding="utf-8"))
    assert "the run is not finished" in words
    assert "not ended" in Cells((copied_run / "report.html").read_text(encoding="utf-8")).tables[1][1]
    assert "case_001" in words


def test_one_label_has_no_mean_row_and_the_same_files_give_the_same_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {1: "Atrium"}, folds=1)
    page = write_report(folder).read_text(encoding="utf-8")
    assert [row[0] for row in Cells(page).tables[0]] == ["label", "Atrium"]
    assert write_report(folder).read_text(encoding="utf-8") == page


def test_many_labels_keep_the_page_small(tmp_path: Path) -> None:
    names = {value: f"structure {value}" for value in range(1, 38)}
    page = write_report(write_run(tmp_path / "run", names, folds=2, extra_cases=40)).read_text(encoding="utf-8")
    assert len(page) < 3_000_000
    assert [row[0] for row in Cells(page).tables[0][1:-1]] == list(names.values())
    assert "<details><summary>43 cases" in page


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="contains no run"):
        write_report(tmp_path)
    (tmp_path / "summary.json").write_text("{", encoding="utf-8")
    with pytest.raises(FarvoxError, match="is not JSON"):
        write_report(tmp_path)
