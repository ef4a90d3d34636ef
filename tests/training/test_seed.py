"""The seed of a recipe decides the fresh weights, whatever was drawn before."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

import farvox
from tests.training.runs import make_dataset


def test_fresh_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    dataset = farvox.read_dataset(make_dataset(tmp_path / "data", cases=2, shape=(12, 12, 12)))
    weights = {}
    for number, (seed, before) in enumerate(((3, 0), (3, 1), (4, 0))):
        torch.manual_seed(before)
        settings = {
            "model.options": {"widths": [4, 8]},
            "patch.size": [8, 8, 8],
            "train.precision": "float32",
            "train.learning_rate": 1e-12,
            "train.seed": seed,
        }
        out = tmp_path / str(number)
        farvox.train(dataset, settings=settings, epochs=1, all_cases=True, out=out, device="cpu", progress=False)
        weights[number] = load_file(out / "fold-all" / "bundle" / "weights.safetensors")
    names = [name for name in weights[0] if name.endswith("weight") and weights[0][name].ndim > 1]
    assert names
    for name in names:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=0, atol=1e-6)
    assert any((weights[0][name] - weights[2][name]).abs().max() > 0.01 for name in names)
