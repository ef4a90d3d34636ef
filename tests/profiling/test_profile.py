"""`farvox.profile` from Python: names, bundles and modules."""

from __future__ import annotations

import pytest
from torch import nn

import farvox
from farvox.errors import UsageError


def test_a_network_by_name() -> None:
    measured = farvox.profile("unet3d", (8, 8, 8), classes=3, options={"widths": [4, 8]}, repeats=2)
    assert isinstance(measured, farvox.Profile)
    assert measured.arguments == {"in_channels": 4, "classes": 3, "widths": [4, 8]}
    network = farvox.create_model("unet3d", 4, 3, widths=[4, 8])
    assert measured.parameters == sum(p.numel() for p in network.parameters())
    assert measured.receptive_field is not None
    assert measured.receptive_field.has_global_normalization
    document = measured.to_dict()
    assert document["seconds"] == measured.seconds == pytest.approx(document["seconds_per_voxel"] * 512)
    assert document["receptive_field_truncated"] == measured.receptive_field.truncated
    assert "\n" not in repr(measured)
    assert repr(measured).startswith(
        f"Profile of unet3d (in_channels=4, classes=3, widths=[4, 8]); parameters {measured.parameters:,}; "
    )
    assert f"<tr><th>parameters</th><td>{measured.parameters:,}</td></tr>" in measured._repr_html_()


def test_an_own_module_and_an_own_builder() -> None:
    module = nn.Conv3d(2, 3, 3, padding=1)
    measured = farvox.profile(module, (6, 7, 8), in_channels=2, repeats=1)
    assert (measured.name, measured.size, measured.arguments) == ("Conv3d", (6, 7, 8), {"in_channels": 2})
    assert measured.multiply_adds_per_voxel == 3 * 2 * 27
    assert measured.receptive_field is not None
    assert measured.receptive_field.voxels == (3, 3, 3)
    assert str(measured.receptive_field) == "3×3×3 voxels"
    own = farvox.profile("farvox.models.unet2d:build", (16, 16, 1), repeats=1)
    assert own.parameters == farvox.profile("unet2d", (16, 16, 1), repeats=1).parameters == 1_082_211
    assert "farvox.models.unet2d:build" not in farvox.list_models()


def test_wrong_use() -> None:
    with pytest.raises(UsageError, match="a module without its number of channels; hint: give in_channels"):
        farvox.profile(nn.Conv3d(1, 2, 1))
    with pytest.raises(UsageError, match="size 4 4; expected: three numbers of voxels"):
        farvox.profile("unet2d", (4, 4))  # type: ignore[arg-type]
