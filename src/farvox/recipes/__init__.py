"""Recipes: settings as data, one TOML file per system and setting."""

from farvox.recipes.duration import parse_duration
from farvox.recipes.load import dump_recipe, list_recipes, load_recipe, parse_recipe, parse_toml_value, with_settings
from farvox.recipes.schema import Recipe

__all__ = [
    "Recipe",
    "dump_recipe",
    "list_recipes",
    "load_recipe",
    "parse_duration",
    "parse_recipe",
    "parse_toml_value",
    "with_settings",
]
