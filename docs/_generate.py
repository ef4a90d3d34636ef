"""MkDocs hook: parts of the reference are generated from the source when the site is built.

In a page, everything between `<!-- generate: KIND PATH -->` and `<!-- end -->` is replaced. KIND is `cli`,
or `model` or `settings` with the path of a pydantic model. The notebook of the first run becomes a page.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

_DOCS = Path(__file__).parent
_BLOCK = re.compile(r"<!-- generate: (\w+) ?(\S*) -->.*?<!-- end -->", re.DOTALL)
_NOTEBOOK = "getting-started/python"
_VALUES = {
    "str": "text",
    "TEXT": "text",
    "Path": "path",
    "PATH": "path",
    "int": "integer",
    "INTEGER": "integer",
}
_VALUES |= {"float": "number", "FLOAT": "number", "range": "number"}


def on_files(files: Any, config: Any) -> Any:
    """Add the notebook as a page."""
    from mkdocs.structure.files import File

    notebook = _DOCS / f"{_NOTEBOOK}.ipynb"
    files.append(
        File.generated(
            config,
            f"{_NOTEBOOK}.md",
            content=notebook_page(json.loads(notebook.read_text(encoding="utf-8"))),
        )
    )
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the generated parts of a page."""
    done: set[Any] = set()
    return _BLOCK.sub(lambda match: _GENERATORS[match[1]](match[2], done), markdown)


def command_line(*_: Any) -> str:
    """A section for each command: its help, arguments and options."""
    from typer.main import get_command

    from farvox.cli.app import app

    group = get_command(app)
    return "\n\n".join(
        _command(name, command)
        for name, command in group.commands.items()
        if not command.hidden
    )


def _command(name: str, command: Any) -> str:
    context = command.context_class(command, info_name=f"farvox {name}")
    usage = command.get_usage(context).removeprefix("Usage:").strip()
    lines = [
        f"## farvox {name}",
        "",
        inspect.cleandoc(command.help or ""),
        "",
        "```text",
        usage,
        "```",
    ]
    shown = [
        parameter
        for parameter in command.params
        if not getattr(parameter, "hidden", False)
    ]
    for title, kind in (("Argument", "argument"), ("Option", "option")):
        rows = [
            parameter
            for parameter in shown
            if parameter.param_type_name == kind and parameter.name != "help"
        ]
        if rows:
            head = [title, "Value", "Default", "Meaning"]
            lines += [
                "",
                _markdown_table(
                    head, [_parameter(parameter, context) for parameter in rows]
                ),
            ]
    return "\n".join(lines)


def _parameter(parameter: Any, context: Any) -> list[str]:
    names = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        names = [str(parameter.metavar or parameter.name).upper()]
    record = parameter.get_help_record(context) or ("", "")
    value = (
        ""
        if getattr(parameter, "is_flag", False)
        else record[0].rpartition(" ")[2].strip("<>")
    )
    value = value.removeprefix("list[").removesuffix("]").strip("[")
    value = "" if value in names or value[:1] in "-{" else _VALUES.get(value, value)
    default = parameter.default
    if default in (None, False, (), []) or callable(default):
        default = ""
    elif isinstance(default, (tuple, list)):
        default = " ".join(map(str, default))
    meaning = re.sub(r"\s*\[(required|default: [^]]*)\]", "", record[1])
    return [
        ", ".join(f"`{name}`" for name in names),
        value.replace("|", ", "),
        _code(default),
        meaning,
    ]


def recipes_table(*_: Any) -> str:
    """The shipped recipes."""
    from farvox.recipes import list_recipes, load_recipe

    rows = [
        [f"`{name}`", f"`{recipe.model.name}`", recipe.description, recipe.source]
        for name in list_recipes()
        for recipe in [load_recipe(name)]
    ]
    return _markdown_table(["Recipe", "Network", "Description", "Source"], rows)


def model_table(path: str, done: set[Any]) -> str:
    """A table of a pydantic model's fields; models inside it follow, each once in a page."""
    module, _, name = path.rpartition(".")
    model = getattr(import_module(module), name)
    sections, queue = [], [(model, "")]
    while queue:
        current, title = queue.pop(0)
        if current in done:
            continue
        done.add(current)
        sections.append(_model(current, title))
        queue += [(inner, inner.__name__) for inner in _inner_models(current)]
    return "\n\n".join(sections)


def settings_table(path: str, _: set[Any]) -> str:
    """All settings of a recipe as `section.key`, a table for each section."""
    module, _, name = path.rpartition(".")
    recipe = getattr(import_module(module), name)
    sections = {
        key: section
        for key, field in recipe.model_fields.items()
        for section in _inner_of(field.annotation)
    }
    top = {
        key: field for key, field in recipe.model_fields.items() if key not in sections
    }
    head = ["Setting", "Type", "Default", "Meaning"]
    parts = [_markdown_table(head, _rows(recipe, top, ""))]
    for key, section in sections.items():
        table = _markdown_table(head, _rows(section, section.model_fields, f"{key}."))
        parts.append(f"### {key}\n\n{_introduction(section)}\n\n{table}")
    return "\n\n".join(parts)


def _model(model: Any, title: str) -> str:
    rows = [[*row[:2], row[3]] for row in _rows(model, model.model_fields, "")]
    heading = f"#### {title}\n\n" if title else ""
    table = _markdown_table(["Key", "Type", "Meaning"], rows)
    return f"{heading}{_introduction(model)}\n\n{table}"


def _introduction(model: Any) -> str:
    return inspect.cleandoc(model.__doc__ or "").partition("\n\nAttributes:\n")[0]


def _rows(model: Any, fields: dict[str, Any], prefix: str) -> list[list[str]]:
    """Key, type, default and meaning of each field."""
    meanings = _attribute_docstrings(model)
    rows = []
    for key, field in fields.items():
        value = field.get_default(call_default_factory=True, validated_data={})
        default = "" if field.is_required() else _code(json.dumps(_plain(value)))
        name = field.serialization_alias or field.alias or key
        meaning = meanings.get(key) or field.description or ""
        rows.append([f"`{prefix}{name}`", _code(_type(field)), default, meaning])
    return rows


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return list(value) if isinstance(value, (tuple, set, frozenset)) else value


def _type(field: Any) -> str:
    limits = [
        f"{symbol} {getattr(rule, name)}"
        for rule in field.metadata
        for name, symbol in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
        if getattr(rule, name, None) is not None
    ]
    return ", ".join([_type_name(field.annotation), *limits])


def _type_name(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(json.dumps(value) for value in inner)
    if kind is type(None):
        return "null"
    if origin in (tuple, list):
        inner_names = [_type_name(part) for part in inner if part is not ...]
        return (
            f"list of {inner_names[0]}"
            if len(inner) < 2 or ... in inner
            else f"[{', '.join(inner_names)}]"
        )
    if origin in (dict,) or str(origin).endswith("Mapping'>"):
        return f"table of {_type_name(inner[0])} to {_type_name(inner[1])}"
    if getattr(kind, "__metadata__", None):
        return _type_name(
            origin if not hasattr(kind, "__origin__") else kind.__origin__
        )
    if inner:
        return " or ".join(_type_name(part) for part in inner)
    plain = {
        "str": "text",
        "int": "integer",
        "float": "number",
        "bool": "true or false",
        "Any": "any value",
        "object": "any value",
    }
    name = getattr(kind, "__name__", str(kind))
    return plain.get(name, name)


def _inner_models(model: Any) -> list[Any]:
    return [
        inner
        for field in model.model_fields.values()
        for inner in _inner_of(field.annotation)
    ]


def _inner_of(kind: Any) -> list[Any]:
    if hasattr(kind, "model_fields"):
        return [kind]
    return [inner for part in get_args(kind) for inner in _inner_of(part)]


@cache
def _attribute_docstrings(model: Any) -> dict[str, str]:
    """Meanings of the fields of a class and its parents: strings below them, or "Attributes" of its docstring."""
    found = {}
    for parent in reversed(model.__mro__):
        if not parent.__module__.startswith("farvox"):
            continue
        for other in re.findall(r"attributes as in `(\w+)`", parent.__doc__ or ""):
            found |= _attribute_docstrings(getattr(inspect.getmodule(parent), other))
        attributes = inspect.cleandoc(parent.__doc__ or "").partition(
            "\n\nAttributes:\n"
        )[2]
        for entry in re.split(r"\n(?!\s{4}\s)", attributes):
            name, _, text = entry.strip().partition(": ")
            found[name] = text
        body = ast.parse(textwrap.dedent(inspect.getsource(parent))).body[0].body
        for field, text in pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[field.target.id] = inspect.cleandoc(text.value.value)
    return found


def notebook_page(notebook: Any) -> str:
    """The notebook as Markdown; outputs that were saved with it follow their cells."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(
            source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
        )
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                image = "".join(data["image/png"]).strip()
                parts.append(f"![Output](data:image/png;base64,{image})")
            elif "text/html" in data:
                html = " ".join("".join(data["text/html"]).split())
                parts.append(f'<div class="jp-output">{html}</div>')
            else:
                text = "".join(output.get("text", []) or data.get("text/plain", []))
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def _code(value: object) -> str:
    return f"`{value}`" if value not in ("", None) else ""


def _markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A table without the columns that are empty in every row."""
    kept = [column for column in range(len(head)) if any(row[column] for row in rows)]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(_cell(line[column]) for column in kept) + " |"
        for line in lines
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


_GENERATORS = {
    "recipes": recipes_table,
    "cli": command_line,
    "model": model_table,
    "settings": settings_table,
}
