"""The field's words: the terms that were replaced do not come back, in code, messages or documentation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = sorted((ROOT / "src").rglob("*.py"))
PAGES = [
    *(path for suffix in ("md", "toml", "j2", "html", "css") for path in sorted((ROOT / "src").rglob(f"*.{suffix}"))),
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CITATION.cff")),
]

WORDS = {
    "hint, fix": r"remedy|remedies|mend(ing|ed|s)?",
    "expected:": r"allowed: (?!What is expected|str|tuple)",
    "progress": r"Watcher|told|finished share",
    "evaluate": r"asked|asks|ask_points|ask_voxels",
    "output, predictions": r"answers?|answered|PointAnswers",
    "receives": r"sees|begun",
    "validation scans": r"unseen",
    "receptive field": r"measure_reach|Reach",
    "standard deviation": r"unit spread",
    "values": r"undefined figures",
    "upsample": r"enlarge[ds]?|enlarging",
    "inverse, resampled back": r"way back|brought back",
    "again": r"anew",
    "continue": r"(?<!cannot )(go|goes|gone|going) on",
    "is, is at": r"lies|lie|stands?(?! for)",
    "is required": r"(is|are) due",
    "ignored": r"passed over",
    "regardless of": r"[Ww]hatever",
    "is identified by": r"goes by",
    "next to": r"beside",
    "after": r"behind",
    "affected": r"at stake",
    "command": r"(?<!functions are )(?<!have the )verbs?",
    "package": r"house",
    "spheres": r"balls?|Balls|paint_balls",
    "preprocessing": r"Preparation|to_network_space|PreparedCase",
    "the names of this release": r"CaseFiles|RunFiles|run_files|OpenScan|Scorer|ScoreStream|PatchFeed|PointFeed"
    r"|fewer_cases|evaluate_pairs|make_document|recognises|sound_cases|length_settings|stream_scores|make_scorer"
    r"|refine_scores|why_no_shortcut|z_scored|change_intensities|turning_matrices|draw_patch|draw_points|mean_of"
    r"|voxel_sample|is_done|sound_grid|whole_files?|scan_stem|setting_value(?!=)|share_out|even_parts|run_alone|leave_processes"
    r"|open_fabric|MissingLibrary|TrainingFailed|answers_points|open_scan|prepared_image|few_channels?|absent_labels"
    r"|known_suffix|pick_device|pick_precision|class_at|read_any|write_any|lines_of|undeformed|roughness"
    r"|even_places|estimate_mass|certainty|mean_extent|blend_weights|borrow|give_back|why_not",
}
"""Word to use → regular expression of the words that it replaced, each as a whole word."""

PARTICIPLES = {"found", "known", "seen", "held", "given", "wanted", "told", "chosen", "picked"}
"""Names that tell how a value was obtained and not what it is."""


def lines(path: Path) -> Iterator[tuple[int, str]]:
    yield from enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)


@pytest.mark.parametrize("word", WORDS)
def test_replaced_words_do_not_come_back(word: str) -> None:
    pattern = re.compile(rf"(?<![\w-])(?:{WORDS[word]})(?![\w-])")
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in (*SOURCE, *PAGES)
        for number, line in lines(path)
        if pattern.search(line)
    ]
    assert not hits, f"use: {word}\n" + "\n".join(hits)


@pytest.mark.parametrize("path", SOURCE, ids=lambda path: str(path.relative_to(ROOT / "src" / "farvox")))
def test_local_variables_say_what_they_hold(path: Path) -> None:
    hits = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.id}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in PARTICIPLES
    ]
    assert not hits
