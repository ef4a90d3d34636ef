"""What a training step is given: patches as the recipe asks for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from farvox.data import LoadedCase
from farvox.geometry import Grid
from farvox.labels import LabelTable
from farvox.preprocessing.cases import preprocess_case
from farvox.preprocessing.config import IntensityNormalization, Preprocessing
from farvox.recipes import load_recipe
from farvox.training.fold import setup_fabric
from farvox.training.loop import Training


def test_patches_of_the_prostate_recipes_are_z_scored_one_by_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    classes = np.zeros((20, 16, 12), np.uint8)
    classes[4:9, 4:9, 4:9] = 1
    image = np.linspace(10, 500, 20)[:, None, None] + rng.normal(0, 3, (1, *classes.shape))
    preprocessing = Preprocessing(
        spacing=(1, 1, 1), channels=("MR",), intensity=(IntensityNormalization(kind="zscore"),)
    )
    case = preprocess_case(LoadedCase("a", image, classes, Grid(classes.shape, np.eye(4))), preprocessing, 2, tmp_path)
    assert abs(float(case.image.mean())) < 1e-3
    recipe = load_recipe("tiramisu-p3b", ["patch.size=[8, 8, 4]", "train.batch=3"])
    training = Training(
        recipe,
        preprocessing,
        LabelTable((0, 1), ("background", "prostate")),
        [case],
        [],
        tmp_path,
        setup_fabric(recipe, "cpu"),
        "float32",
        on_progress=lambda progress: None,
        stop=lambda: False,
    )
    batch = training._sampler(None).batch(0, rng)
    images = batch.image
    assert batch.target.shape == (3, 8, 8, 4)
    torch.testing.assert_close(images.mean((2, 3, 4)), torch.zeros(3, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.var((2, 3, 4), unbiased=False), torch.ones(3, 1))
    assert len({round(float(x), 3) for x in images[:, 0, 0, 0, 0]}) == 3
