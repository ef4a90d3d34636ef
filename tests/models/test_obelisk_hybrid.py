"""The hybrid OBELISK network against the published weights and their recorded answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from farvox import create_model
from farvox.blocks import count_parameters
from farvox.errors import ModelError
from tests.conftest import real_data

TCIA = {"encode_quarter": ["2", "22", "3"], "decode_half": "6U", "decode_full": "7U", "head": "conv77U"}
VISCERAL = {"encode_quarter": ["2"], "decode_half": "6U", "head": "conv8"}


def _translate(published: dict[str, torch.Tensor], names: dict) -> dict[str, torch.Tensor]:
    """Published names and axis order (reversed offsets) → ours."""
    units = {"encode_full": "0", "encode_half.0": "1", "encode_half.1": "11", "decode_quarter": "6bU"}
    units |= {f"encode_quarter.{n}": name for n, name in enumerate(names["encode_quarter"])}
    units |= {ours: names[ours] for ours in ("decode_half", "decode_full") if ours in names}
    parts = {}
    for ours, theirs in units.items():
        parts |= {f"{ours}.0": f"conv{theirs}", f"{ours}.1": f"batch{theirs}"}
    for kernel, number in (("near", 1), ("far", 2)):
        for n, letter in enumerate("abcd"):
            layer = f"{kernel}_dense.gather" if letter == "d" else f"{kernel}_dense.layers.{n}"
            parts |= {f"{layer}.0": f"batch{number}{letter}", f"{layer}.1": f"linear{number}{chr(ord(letter) + 1)}"}
    parts["head"] = names["head"]
    ours = {}
    for new, old in parts.items():
        ours |= {new + key.removeprefix(old): value for key, value in published.items() if key.startswith(f"{old}.")}
    for kernel, number in (("near", 1), ("far", 2)):
        ours[f"{kernel}.offsets"] = published[f"offset{number}"].reshape(-1, 3).flip(-1)
        ours[f"{kernel}.weight"] = published[f"linear{number}a.weight"].flatten(1)
    return ours


def _load(variant: str, names: dict, classes: int) -> torch.nn.Module:
    path = real_data("obelisk_original_weights") / f"obeliskhybrid_{variant}_fold1.pth"
    published = torch.load(path, map_location="cpu", weights_only=True)
    network = create_model("obelisk-hybrid", classes=classes, variant=variant, compat="published")
    network.load_state_dict(_translate(published, names))
    return network.eval()


def test_published_tcia_weights_give_the_recorded_answer() -> None:
    network = _load("tcia", TCIA, 9)
    with np.load(real_data("obelisk_original_weights") / "obeliskhybrid_tcia_fold1_golden.npz") as golden:
        image = torch.from_numpy(golden["input_int8"] / golden["divisor"]).float()[None, None]
        expected, stride = golden["logits"], int(golden["stride"])
    with torch.no_grad():
        found = network(image)[0, :, ::stride, ::stride, ::stride].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_published_visceral_weights_fit_and_keep_to_the_layout() -> None:
    network = _load("visceral", VISCERAL, 8)
    assert count_parameters(network) == 230_208
    image = torch.randn(1, 1, 21, 18, 25, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.isfinite(network(image)).all()


def test_compat_changes_the_sampling() -> None:
    torch.manual_seed(0)
    ours = create_model("obelisk-hybrid", classes=3)
    published = create_model("obelisk-hybrid", classes=3, compat="published")
    published.load_state_dict(ours.state_dict())
    image = torch.randn(1, 1, 24, 24, 24)
    with torch.no_grad():
        difference = (ours.eval()(image) - published.eval()(image)).abs().max()
    assert difference > 1e-4


@pytest.mark.parametrize("option", [{"variant": "brats"}, {"compat": "pulished"}])
def test_unknown_choice(option: dict[str, str]) -> None:
    with pytest.raises(ModelError, match="allowed: "):
        create_model("obelisk-hybrid", **option)
