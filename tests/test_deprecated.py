"""Names of earlier releases still work, with a warning."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from farvox import ops
from farvox.types import Shape


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("farvox.ops", "Step", "PointwiseLayer"),
        ("farvox.ops", "few_channel_conv", "fused_conv"),
        ("farvox.blocks", "FewChannelUnit", "FusedConvUnit"),
        ("farvox.blocks", "fold_norm_before", "fuse_norm_into_next"),
        ("farvox.blocks", "fold_norm_behind", "fuse_norm_into_previous"),
        ("farvox.blocks", "may_fold", "can_fuse"),
        ("farvox.blocks", "norm_as_affine", "batch_norm_scale_shift"),
        ("farvox.models", "ModelFacts", "ModelInfo"),
        ("farvox.models", "model_facts", "model_info"),
        ("farvox.losses", "make_loss", "Loss"),
        ("farvox.recipes", "setting_value", "parse_toml_value"),
    ],
)
def test_renamed_objects(module: str, old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"^{module}\.{old} is now {module}\.{new}$"):
        assert getattr(import_module(module), old) is getattr(import_module(module), new)


def test_objects_of_another_module_and_unknown_ones() -> None:
    with pytest.warns(DeprecationWarning, match=r"farvox\.blocks\.Triple is now farvox\.types\.Shape"):
        assert import_module("farvox.blocks").Triple is Shape
    with pytest.raises(AttributeError, match=r"module 'farvox\.ops' has no attribute 'nothing'"):
        import_module("farvox.ops").nothing  # noqa: B018


def test_the_renamed_argument_of_sparse_sampling() -> None:
    torch.manual_seed(0)
    image, offsets, points = torch.randn(1, 2, 4, 5, 6), torch.randn(3, 3) / 3, torch.rand(1, 7, 3) - 0.5
    transforms = torch.randn(1, 7, 3, 3)
    expected = ops.sparse_sample(image, offsets, points=points, offset_transforms=transforms)
    with pytest.warns(DeprecationWarning, match=r"sparse_sample\(matrices=\.\.\.\) is now offset_transforms="):
        assert torch.equal(ops.sparse_sample(image, offsets, points=points, matrices=transforms), expected)
    weight = torch.randn(4, 6)
    expected = ops.sparse_conv(image, offsets, weight, points=points, offset_transforms=transforms)
    with pytest.warns(DeprecationWarning, match="sparse_conv"):
        assert torch.equal(ops.sparse_conv(image, offsets, weight, points=points, matrices=transforms), expected)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("farvox.predict", "farvox.prediction"),
        ("farvox.predict.predictor", "farvox.prediction.predictor"),
        ("farvox.data.io", "farvox.io"),
        ("farvox.data.io.nifti", "farvox.io.nifti"),
        ("farvox.data.phantom", "farvox.synthetic"),
        ("farvox.data.case", "farvox.data.dataset"),
        ("farvox.data.prepare", "farvox.preprocessing.preprocess"),
    ],
)
def test_moved_modules(old: str, new: str) -> None:
    for name in [name for name in sys.modules if name == old or name.startswith(f"{old}.")]:
        del sys.modules[name]
    with pytest.warns(DeprecationWarning, match=f"^the module {old} is now {new}$") as caught:
        moved = import_module(old)
    assert moved is import_module(new)
    assert moved.__name__ == new
    assert {Path(warning.filename).name for warning in caught} <= {"test_deprecated.py", "__init__.py"}
