"""Recipes: all settings of a training, as TOML files with a typed schema."""

from farvox._deprecated import renamed
from farvox.recipes.load import dump_recipe, list_recipes, load_recipe, parse_recipe, parse_toml_value, with_settings
from farvox.recipes.schema import Recipe, parse_duration

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

__getattr__ = renamed(__name__, setting_value="parse_toml_value")
