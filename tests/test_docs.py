"""The documentation is true: Python blocks and the notebook run, commands and settings exist, links lead somewhere.

Each page runs in a folder of its own that holds small scans and trained runs under the names that the pages use
(`DATASET`, `RUN`, `scan.nii.gz` ...). The blocks of a page share their variables, as a reader's session would. Budgets
are shortened to a second. A block after the comment `<!-- not run: reason -->` is only compiled.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

import farvox
from farvox.recipes import Recipe, list_recipes
from tests.test_imports import ALLOWED
from tests.tiny import write_tiny_dataset

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
NOTEBOOK = ROOT / "docs" / "getting-started" / "python.ipynb"
BLOCK = re.compile(r"(<!-- not run[^\n]*\n+)?^( *)```(\w+)[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
# What a page needs at least: more of the scans are not there to train on, and no test waits for minutes.
SHORTER = [
    (re.compile(r'budget="\d+[smh]"'), 'budget="1s"'),
    (re.compile(r"training=8, testing=1"), "training=4, testing=1"),
]


def blocks(page: Path, language: str) -> Iterator[tuple[str, bool]]:
    """Each block of a language, and whether it is to be run."""
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if match[3] == language:
            yield textwrap.dedent(match[4]), not match[1]


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


WITH_PYTHON = [page for page in PAGES if any(True for _ in blocks(page, "python"))]


def run_source(source: str, variables: dict[str, object], name: str) -> None:
    """Execute a block; the value of a last expression is shown, as a notebook would."""
    for pattern, replacement in SHORTER:
        source = pattern.sub(replacement, source)
    tree = ast.parse(source, name)
    shown = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), variables)
    if shown:
        value = eval(compile(ast.Expression(shown.value), name, "eval"), variables)
        html = value._repr_html_() if hasattr(value, "_repr_html_") else None
        assert repr(value)
        assert html is None or html.startswith("<")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pages find around them."""
    root = tmp_path_factory.mktemp("docs")
    write_tiny_dataset(root / "DATASET")
    for number, name in enumerate(("scan", "new_scan", "fixed", "moving")):
        shutil.copy(root / "DATASET" / "imagesTr" / f"case_{number}.nii.gz", root / f"{name}.nii.gz")
        shutil.copy(root / "DATASET" / "labelsTr" / f"case_{number}.nii.gz", root / f"{name}_labels.nii.gz")
    for folder in ("masks", "references"):
        (root / folder).mkdir()
        shutil.copy(root / "scan_labels.nii.gz", root / folder / "scan.nii.gz")
    for number in range(3):
        (root / "OUR_FOLDER" / f"p{number}").mkdir(parents=True)
        for part, name in (("imagesTr", "scan"), ("labelsTr", "mask")):
            source = root / "DATASET" / part / f"case_{number}.nii.gz"
            shutil.copy(source, root / "OUR_FOLDER" / f"p{number}" / f"{name}.nii.gz")
    dataset = farvox.read_dataset(root / "DATASET")
    farvox.train(dataset, "quick", budget="3s", folds=3, fold=0, out=root / "RUN", device="cpu")
    farvox.train(dataset, "obelisk-dense", budget="1s", folds=3, fold=0, out=root / "POINT_RUN", device="cpu")
    return root


@pytest.mark.parametrize("page", [*WITH_PYTHON, NOTEBOOK], ids=relative)
def test_python_of_a_page_runs(
    page: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(scans, tmp_path / "page")
    monkeypatch.chdir(tmp_path / "page")
    if page == NOTEBOOK:
        cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
        sources = [("".join(cell["source"]), True) for cell in cells if cell["cell_type"] == "code"]
    else:
        sources = list(blocks(page, "python"))
    variables: dict[str, object] = {"__name__": "__main__"}
    for number, (source, is_run) in enumerate(sources, 1):
        name = f"{relative(page)}, block {number}"
        missing = [
            m for m in re.findall(r"^# requires: (\w+)", source, re.MULTILINE) if not importlib.util.find_spec(m)
        ]
        if is_run and not missing:
            run_source(source, variables, name)
        else:
            compile(source, name, "exec")


def commands() -> dict[str, set[str]]:
    """Options of each command."""
    from typer.main import get_command

    from farvox.cli.app import app

    options = {}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        flags = [flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)]
        options[name] = {flag for flag in flags if flag.startswith("-")}
    return options


def has_setting(path: str) -> bool:
    """Whether a recipe has the setting `section.key`; options of networks are free."""
    from farvox.recipes import Recipe

    section, _, key = path.partition(".")
    field = Recipe.model_fields.get(section)
    if field is None:
        return False
    fields = getattr(field.annotation, "model_fields", {})
    return (key.startswith("options.") and section == "model") or key in fields


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_commands_and_settings_of_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    options = commands()
    lines = [line for source, _ in blocks(page, "bash") for line in source.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(farvox [^`]+)`", text)
    for line in lines:
        program = line.partition("  #")[0]
        words = program.replace("python -m farvox", "farvox").split()
        words = words[1:] if words and words[0].endswith("/farvox") else words
        if not words or words[0] != "farvox" or len(words) < 2 or words[1].isupper() or words[1].startswith("-"):
            continue
        assert words[1] in options, f"{line!r}: no such command"
        named = {word.partition("=")[0] for word in words[2:] if word.startswith("--")} - {"--help"}
        assert named <= options[words[1]], f"{line!r}: {sorted(named - options[words[1]])}"
    for setting in re.findall(r"--set '?(\w+\.[\w.]+)=", text):
        assert has_setting(setting) or setting == "section.key", f"--set {setting}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_of_a_page_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]*(?:#[^)\s]*)?)\)", page.read_text(encoding="utf-8")):
        target, _, heading = link.partition("#")
        if target.startswith(("http", "mailto")):
            stored = re.match(r"https://github.com/farvox/farvox/(?:blob|tree)/main/(.*)", target)
            assert not stored or (ROOT / stored[1]).exists(), link
            continue
        path = (page.parent / target).resolve() if target else page
        if path == NOTEBOOK.with_suffix(".md"):
            path = NOTEBOOK
        assert path.exists(), link
        if heading and path.suffix == ".md":
            headings = re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {slug(text) for text in headings}, link


def slug(heading: str) -> str:
    """The anchor that MkDocs gives a heading."""
    plain = re.sub(r"[^\w\s-]", "", heading.encode("ascii", "ignore").decode()).strip().lower()
    return re.sub(r"[-\s]+", "-", plain)


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [*(ROOT / "docs").rglob("*.md"), NOTEBOOK.with_suffix(".md")]
    missing = [page for page in pages if f" {page.relative_to(ROOT / 'docs').as_posix()}" not in navigation]
    assert not missing


def test_the_architecture_page_has_every_package() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| `")}
    listed = {name.strip(" `") for row in rows for name in row.split(",")}
    source = ROOT / "src" / "farvox"
    modules = {path.stem for path in source.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert listed == modules - {"__init__", "__main__"}
    for package, imports in ALLOWED.items():
        assert set(re.findall(r"`(\w+)`", rows[f"`{package}`"].split("|")[3])) == imports, package


def test_every_public_name_is_in_the_reference() -> None:
    reference = "\n".join(
        page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference" / "api").glob("*.md")
    )
    described = set(re.findall(r"^::: farvox\.(\w+)$", reference, re.MULTILINE))
    assert set(farvox.__all__) - {"__version__"} == described - {"models", "ops", "blocks"}


def test_the_generated_reference_has_every_command_and_setting() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "_generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    text = "\n".join(
        generate.on_page_markdown(page.read_text(encoding="utf-8"))
        for page in (ROOT / "docs" / "reference").glob("*.md")
    )
    for command, options in commands().items():
        assert f"## farvox {command}\n" in text
        missing = [option for option in options - {"--help", "-h"} if f"`{option}`" not in text]
        assert not missing, f"farvox {command}: {missing}"
    for section, settings in Recipe():
        for key, default in settings if isinstance(settings, BaseModel) else [("", settings)]:
            row = f"| `{section}.{key}` |" if key else f"| `{section}` |"
            assert row in text
            if isinstance(default, (str, int, float)) and key:
                assert f"`{json.dumps(default)}`" in text.partition(row)[2].partition("\n")[0]
    assert all(f"| `{name}` |" in text for name in list_recipes())
    assert "<!-- generate" not in text
    assert "| `stop_reason` |" in text
