"""Recipes: every shipped one is valid, nothing unknown passes, settings lie over files."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from farvox import create_model
from farvox.errors import FarvoxError, RecipeError
from farvox.models import count_parameters
from farvox.recipes import Recipe, dump_recipe, list_recipes, load_recipe, parse_duration, parse_recipe, with_settings
from farvox.recipes.schema import TrainSettings


@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipes_survive_being_written_out(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert parse_recipe(dump_recipe(recipe), "again") == recipe


def test_the_hybrid_trains_as_its_paper_says() -> None:
    for name, variant in (("obelisk-hybrid", {}), ("obelisk-hybrid-visceral", {"variant": "visceral"})):
        recipe = load_recipe(name)
        assert (recipe.model.name, recipe.model.options, recipe.patch.size) == ("obelisk-hybrid", variant, "whole")
        assert (recipe.loss.terms, recipe.loss.keep_fraction) == (("topk_cross_entropy",), 0.25)
        assert recipe.loss.class_weights
        train = recipe.train
        assert (train.optimiser, train.learning_rate, train.weight_decay) == ("adam", 0.002, 0)
        assert (train.epochs, train.batch, train.schedule) == (300, 1, "exponential")
        assert (train.warmup, train.gradient_clip_norm) == (0, 0)
        augment = recipe.augment
        assert (augment.affine, augment.flip) == (0.075, ())
        assert (augment.contrast, augment.brightness, augment.gamma, augment.noise) == (0, 0, 0, 0)
    ours = load_recipe("obelisk-hybrid-quick")
    assert (ours.source, ours.train.epochs, ours.train.optimiser) == ("", 0, "adamw")
    assert "not the paper's" in ours.description


@pytest.mark.parametrize(
    ("recipe", "settings", "classes", "parameters", "printed", "within"),
    [
        # Printed counts are for 4 channels and 3 classes (Distill DSM) or 1 channel and 8 or 9 (OBELISK-Net).
        ("unet2d", [], 3, 1_082_211, 1_082_211, 0),
        ("dsm-residual", [], 3, 1_082_211, 1_082_211, 0),
        ("dsm-distill-quarter", [], 3, 1_116_059, 1_115_606, 0.002),
        ("dsm-distill", [], 3, 1_217_299, 1_216_266, 0.002),
        ("dsm-distill-full", [], 3, 1_621_955, 1_619_330, 0.002),
        ("unet3d-dsm", [], 3, 4_339_059, 4_288_208, 0.02),
        ("obelisk-hybrid", [], 9, 229_217, 229_217, 0),
        ("obelisk-hybrid-visceral", [], 8, 230_208, 230_208, 0),
        ("unet-allconv", [], 9, 883_740, 883_740, 0),
        ("unet-allconv", ["model.options.variant=visceral"], 8, 877_313, 880_000, 0.01),
        ("unet-global", [], 9, 16_286_236, 16_000_000, 0.03),
        ("unet-global", ["model.options.variant=visceral"], 8, 13_081_422, 13_000_000, 0.03),
    ],
)
def test_recipes_build_the_networks_their_papers_count(
    recipe: str, settings: list[str], classes: int, parameters: int, printed: int, within: float
) -> None:
    model = load_recipe(recipe, settings).model
    with torch.device("meta"):
        network = create_model(model.name, 4 if classes == 3 else 1, classes, **model.options)
    assert count_parameters(network) == parameters
    assert abs(parameters - printed) <= within * printed


def test_networks_of_one_paper_are_trained_alike() -> None:
    for name in ("unet2d", "dsm-residual", "dsm-distill-quarter", "dsm-distill-full", "unet3d-dsm", "vfn"):
        recipe, sister = load_recipe(name), load_recipe("dsm-distill")
        assert (recipe.loss, recipe.train) == (sister.loss, sister.train)
        assert (sister.loss.terms, sister.train.weight_decay) == (("dice",), 0)
    for name in ("obelisk-hybrid-visceral", "unet-allconv", "unet-allconv-lean", "unet-global"):
        recipe, sister = load_recipe(name), load_recipe("obelisk-hybrid")
        assert (recipe.augment, recipe.patch, recipe.grid) == (sister.augment, sister.patch, sister.grid)


def test_settings_lie_over_the_file() -> None:
    recipe = load_recipe(
        "default", ["train.batch=3", "grid.spacing=[1, 2.5, 3]", "patch.sampling=uniform", 'loss.terms=["dice"]']
    )
    assert (recipe.train.batch, recipe.grid.spacing, recipe.patch.sampling) == (3, (1.0, 2.5, 3.0), "uniform")
    assert recipe.loss.terms == ("dice",)
    assert with_settings(recipe, {"train.batch": 5}).train.batch == 5


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train.bach=2", ("unknown key 'bach'", "did you mean 'batch'?")),
        ("trian.batch=2", ("unknown key 'trian'", "did you mean 'train'?")),
        ("train.batch=0", ("train.batch = 0", "greater than or equal to 1")),
        ("train.batch", ("setting 'train.batch'", "section.key=value")),
        ("loss.terms=[]", ("loss.terms", "at least 1 item")),
        ("grid.spacing=[1,2]", ("grid.spacing", "[1, 2]")),
        ("name.x=1", ("'name' is not a section",)),
    ],
)
def test_wrong_settings_are_named(setting: str, words: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe("default", [setting])
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({"train.batch": 3, "patch.size": (8, 9, 10)}, ["train.batch=3", "patch.size=[8, 9, 10]"]),
        ({"model.options.widths": (4, 8)}, ["model.options.widths=[4, 8]"]),
        ({"train.budget": "45s"}, ['train.budget="45s"']),
        ({"train.budget": "45s"}, ["train.budget=45s"]),
    ],
)
def test_settings_as_a_mapping_equal_those_as_text(settings: dict[str, object], same: list[str]) -> None:
    by_mapping, by_text = load_recipe(settings=settings), load_recipe("default", same)
    assert (
        by_mapping.model_dump(mode="json") == by_text.model_dump(mode="json") != load_recipe().model_dump(mode="json")
    )


def test_a_recipe_constructed_wrongly_raises_a_recipe_error() -> None:
    with pytest.raises(RecipeError, match=r"unknown key 'epochz' in section \[train\].*did you mean 'epochs'"):
        Recipe(train={"epochz": 1})
    with pytest.raises(RecipeError, match=r"TrainSettings: batch = 0.*greater than or equal to 1"):
        TrainSettings(batch=0)
    with pytest.raises(RecipeError, match="settings: unknown key 'bach'"):
        with_settings(Recipe(), {"train.bach": 1})


OLD = """
[intensity]
kind = "z-score"
[patch]
centre = "classes"
z_score = true
[points]
draw = "classes"
label = "nearest"
scans = 5
steps = 6
[loss]
terms = ["hard_cross_entropy_half", "dice"]
[train]
clock = "processor"
decayed = "convolutions"
clip_gradient = 2.0
"""

NEW = """
[intensity]
normalization = "zscore"
[patch]
sampling = "class-balanced"
normalize = true
[points]
sampling = "class-balanced"
label_interpolation = "nearest"
cases_per_step = 5
steps_per_epoch = 6
[loss]
terms = ["topk_cross_entropy", "dice"]
keep_fraction = 0.5
[train]
clock = "cpu"
weight_decay_on = "convolutions"
gradient_clip_norm = 2.0
"""


def test_keys_of_earlier_releases_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(OLD, encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe = parse_recipe(NEW, "new")
        assert parse_recipe(OLD, "a bundle's recipe") == recipe
    assert recipe.loss.terms == ("topk_cross_entropy", "dice")
    with pytest.warns(FutureWarning) as notes:
        assert load_recipe(path) == recipe.model_copy(update={"name": "mine"})
    texts = [str(note.message) for note in notes]
    assert f"{path}: patch.z_score is now patch.normalize" in texts
    assert f'{path}: intensity.normalization = "z-score" is now "zscore"' in texts
    assert len(texts) == 14
    with pytest.warns(FutureWarning, match="settings: train.decayed is now train.weight_decay_on"):
        assert load_recipe(settings=["train.decayed=convolutions"]).train.weight_decay_on == "convolutions"


def test_an_unknown_key_in_a_file_comes_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('description = "mine"\n\n[train]\nbatch = 2\nlerning_rate = 0.1\n', encoding="utf-8")
    with pytest.raises(RecipeError) as error:
        load_recipe(str(path))
    assert f"{path}, line 5" in str(error.value)
    assert "did you mean 'learning_rate'?" in str(error.value)


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[train\nbatch = 2", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"not valid TOML.*line 1"):
        load_recipe(str(path))


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'default'"):
        load_recipe("defautl")
    with pytest.raises(RecipeError, match="no recipe file"):
        load_recipe("nowhere/at.toml")


@pytest.mark.parametrize(("text", "seconds"), [("45s", 45), ("8m", 480), ("1.5h", 5400), (" .5m ", 30)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["0", "0m", "-3m", "8", "m", "8 minutes", "nan"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(FarvoxError, match="above zero") as error:
        parse_duration(text)
    assert error.value.exit_code == 2
