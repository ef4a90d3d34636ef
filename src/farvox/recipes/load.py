"""Recipes from TOML: shipped ones by name, a user's own by path, single settings by `section.key`."""

from __future__ import annotations

import os
import tomllib
import warnings
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from farvox.errors import RecipeError, suggest
from farvox.recipes.schema import Recipe, recipe_error

_RENAMED_KEYS = {
    "intensity.kind": "intensity.normalization",
    "patch.centre": "patch.sampling",
    "patch.z_score": "patch.normalize",
    "points.draw": "points.sampling",
    "points.label": "points.label_interpolation",
    "points.scans": "points.cases_per_step",
    "points.steps": "points.steps_per_epoch",
    "train.clip_gradient": "train.gradient_clip_norm",
    "train.decayed": "train.weight_decay_on",
}
"""Keys of earlier releases."""

RENAMED_VALUES: dict[str, dict[str, str]] = {
    "intensity.normalization": {"per-scan": "percentile", "fixed": "dataset", "z-score": "zscore"},
    "patch.sampling": {"classes": "class-balanced"},
    "points.sampling": {"classes": "class-balanced"},
    "train.clock": {"processor": "cpu"},
}
"""Values of earlier releases, by the present key."""

_TOPK_TERMS = {"hard_cross_entropy_half": 0.5, "hard_cross_entropy_quarter": 0.25}


def list_recipes() -> list[str]:
    """Names of the recipes that are shipped with farvox.

    >>> "default" in list_recipes()
    True
    """
    folder = resources.files("farvox.recipes")
    return sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".toml"))


def load_recipe(
    name_or_file: str | os.PathLike[str] = "default", settings: Mapping[str, object] | Iterable[str] = ()
) -> Recipe:
    """Read a shipped recipe by its name, or a `.toml` file, and change single settings.

    >>> recipe = load_recipe("default", {"train.budget": "45s", "patch.size": (96, 96, 64)})
    >>> recipe.train.budget, load_recipe("quick", ["train.batch=4"]).train.batch
    ('45s', 4)

    Args:
        name_or_file: One of `list_recipes()`, or the path of a TOML file.
        settings: `{"section.key": value}`, or strings `section.key=value` with a TOML value.

    Returns:
        The validated recipe.

    Raises:
        RecipeError: Unknown recipe, unknown key (with file, line and closest match) or a value out of range.
    """
    path = Path(name_or_file)
    if path.suffix == ".toml":
        if not path.is_file():
            raise RecipeError(
                f"no recipe file {path}", hint=f"use an existing path or one of {', '.join(list_recipes())}"
            )
        text, source = path.read_text(encoding="utf-8"), str(path)
    elif str(name_or_file) in list_recipes():
        text = (resources.files("farvox.recipes") / f"{path}.toml").read_text(encoding="utf-8")
        source = f"recipe {path}"
    else:
        raise RecipeError(f"no recipe '{path}'", hint=suggest(str(path), list_recipes()))
    content = _parse_toml(text, source)
    content.setdefault("name", path.stem)
    recipe = _validated(content, source, text)
    return with_settings(recipe, settings) if settings else recipe


def parse_recipe(text: str, source: str) -> Recipe:
    """Read a recipe from the text of a TOML document, such as a bundle's `recipe.toml`; `source` names it in errors."""
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        return _validated(_parse_toml(text, source), source, text)


def dump_recipe(recipe: Recipe, *, only_set: bool = False) -> str:
    """Write a recipe as a TOML document, with all settings or only those that differ from their defaults by choice."""
    import tomli_w

    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True, exclude_unset=only_set))


def with_settings(recipe: Recipe, settings: Mapping[str, object] | Iterable[str]) -> Recipe:
    """Copy a recipe with single settings changed, and validate it.

    Args:
        recipe: Stays as it is.
        settings: As in `load_recipe`.

    Raises:
        RecipeError: Unknown key, or a value out of range.
    """
    content = recipe.model_dump(mode="python", exclude_unset=True)
    for key, value in settings.items() if isinstance(settings, Mapping) else map(_parse_setting, settings):
        *sections, last = key.split(".")
        target = content
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise RecipeError(f"setting '{key}': '{section}' is not a section", allowed="section.key")
        target[last] = value
    return _validated(content, "settings")


def parse_toml_value(text: str) -> object:
    """Read a TOML value; text that is not one is returned as a string."""
    try:
        value: object = tomllib.loads(f"value = {text}")["value"]
        return value
    except tomllib.TOMLDecodeError:
        return text.strip()


def _parse_setting(setting: str) -> tuple[str, object]:
    key, separator, value = setting.partition("=")
    if not separator or not key.strip():
        raise RecipeError(f"setting '{setting}'", allowed="section.key=value, such as train.batch=4")
    return key.strip(), parse_toml_value(value)


def _parse_toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source} is not valid TOML: {error}", hint="correct that line") from None


def _validated(content: dict[str, Any], source: str, text: str = "") -> Recipe:
    _rename_old_settings(content, source)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise recipe_error(error, source, text) from None


def _rename_old_settings(content: dict[str, Any], source: str) -> None:
    """Replace keys and values of earlier releases, with a warning each."""

    def warn(old: str, new: str) -> None:
        warnings.warn(f"{source}: {old} is now {new}", FutureWarning, stacklevel=2)

    def section(name: str) -> dict[str, Any]:
        value = content.get(name)
        return value if isinstance(value, dict) else {}

    for old, new in _RENAMED_KEYS.items():
        (name, old_key), new_key = old.split("."), new.split(".")[1]
        if old_key in section(name):
            section(name)[new_key] = section(name).pop(old_key)
            warn(old, new)
    for full, values in RENAMED_VALUES.items():
        name, key = full.split(".")
        value = section(name).get(key)
        if isinstance(value, str) and value in values:
            section(name)[key] = values[value]
            warn(f'{full} = "{value}"', f'"{values[value]}"')
    terms = section("loss").get("terms")
    for old, fraction in _TOPK_TERMS.items():
        if isinstance(terms, (list, tuple)) and old in terms:
            terms = ["topk_cross_entropy" if term == old else term for term in terms]
            content["loss"] |= {"terms": terms, "keep_fraction": fraction}
            warn(f'loss term "{old}"', f'"topk_cross_entropy" with loss.keep_fraction = {fraction}')
