"""Recipes from TOML: shipped ones by name, a user's own by path, single settings by `key=value`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from farvox.errors import RecipeError, suggest
from farvox.recipes.schema import Recipe


def list_recipes() -> list[str]:
    """Names of the recipes that come with the program."""
    folder = resources.files("farvox.recipes")
    return sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".toml"))


def load_recipe(name_or_path: str, settings: Sequence[str] = ()) -> Recipe:
    """A shipped recipe's name or the path of a `.toml` file, with `section.key=value` settings laid over it.

    Raises:
        RecipeError: Unknown recipe, unknown key (with file, line and nearest match) or a value out of range.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        if not path.is_file():
            raise RecipeError(f"no recipe file {path}", hint=f"give a path that exists or one of {_names()}")
        text, source = path.read_text(encoding="utf-8"), str(path)
    elif name_or_path in list_recipes():
        resource = resources.files("farvox.recipes") / f"{name_or_path}.toml"
        text, source = resource.read_text(encoding="utf-8"), f"recipe {name_or_path}"
    else:
        raise RecipeError(f"no recipe '{name_or_path}'", hint=suggest(name_or_path, list_recipes()))
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source} is not valid TOML: {error}", hint="mend that line") from None
    content.setdefault("name", path.stem)
    _validated(content, source, text)
    for setting in settings:
        _apply_override(content, setting)
    return _validated(content, "--set", "")


def parse_recipe(text: str, source: str) -> Recipe:
    """The recipe in a TOML document, such as the resolved one in a bundle."""
    try:
        return _validated(tomllib.loads(text), source, text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source} is not valid TOML: {error}") from None


def dump_recipe(recipe: Recipe, *, only_set: bool = False) -> str:
    """The recipe as a TOML document, with every setting spelled out, or those alone that were set."""
    import tomli_w

    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True, exclude_unset=only_set))


def with_settings(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A copy with `section.key` entries replaced and validated anew."""
    content = recipe.model_dump(mode="python")
    for key, value in changes.items():
        *sections, last = key.split(".")
        target = content
        for section in sections:
            target = target[section]
        target[last] = value
    return _validated(content, "settings", "")


def parse_toml_value(text: str) -> Any:
    """What stands right of the `=` of a setting: a TOML value, or the text as it is where it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _apply_override(content: dict[str, Any], setting: str) -> None:
    key, separator, raw = setting.partition("=")
    if not separator or not key.strip():
        raise RecipeError(f"--set {setting}", allowed="section.key=value, such as train.batch=4")
    value = parse_toml_value(raw)
    *sections, last = key.strip().split(".")
    target = content
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise RecipeError(f"--set {setting}: '{section}' is not a section", allowed="section.key=value")
    target[last] = value


def _validated(content: dict[str, Any], source: str, text: str) -> Recipe:
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        key = ".".join(part for part in path if part in text or not text) or ".".join(path)
        place = source if (line := _line_of(text, path)) is None else f"{source}, line {line}"
        if first["type"] == "extra_forbidden":
            parent = ".".join(path[:-1])
            hint = suggest(path[-1], _fields(path[:-1]))
            where = f"in section [{parent}]" if parent else "at the top level"
            raise RecipeError(f"{place}: unknown key '{path[-1]}' {where}", hint=hint) from None
        found = f"{place}: {key} = {first['input']!r}"
        raise RecipeError(found, allowed=first["msg"].removeprefix("Input should be ")) from None


def _fields(path: Sequence[str]) -> list[str]:
    model: type[BaseModel] = Recipe
    for part in path:
        model = type(model.model_fields[part].default)
    return list(model.model_fields)


def _line_of(text: str, path: Sequence[str]) -> int | None:
    for key in reversed(path):
        for number, line in enumerate(text.splitlines(), start=1):
            if re.match(rf"\s*(\[\s*)?\"?(\w+\.)*{re.escape(key)}\"?\s*(\]|=)", line):
                return number
    return None


def _names() -> str:
    return ", ".join(list_recipes())
