"""Published checkpoints become our networks and answer as recorded; anything else is refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from farvox import create_model
from farvox.bundle.convert_published import convert_state_dict
from farvox.errors import BundleError
from farvox.models import count_parameters
from tests.conftest import real_data


def published(name: str) -> dict[str, torch.Tensor]:
    path = real_data("obelisk_original_weights") / f"{name}_fold1.pth"
    return torch.load(path, map_location="cpu", weights_only=True)


def golden(name: str) -> tuple[torch.Tensor, np.ndarray, int]:
    with np.load(real_data("obelisk_original_weights") / f"{name}_fold1_golden.npz") as file:
        image = torch.from_numpy(file["input_int8"] / file["divisor"]).float()[None, None]
        return image, file["logits"], int(file["stride"])


def built(state: dict[str, torch.Tensor], **changed: object) -> torch.nn.Module:
    name, arguments, weights = convert_state_dict(state)
    network = create_model(name, **(arguments | changed))
    network.load_state_dict(weights)
    return network.eval()


@pytest.mark.parametrize(
    ("file", "model", "classes", "parameters"),
    [
        ("obeliskhybrid_tcia", "obelisk-hybrid", 9, 229_217),
        ("obeliskhybrid_visceral", "obelisk-hybrid", 8, 230_208),
        ("obelisk_visceral", "obelisk-dense", 8, 131_464),
        ("allconvunet_tcia", "unet-allconv", 9, 883_740),
    ],
)
def test_each_layout_is_recognised_and_every_value_used(file: str, model: str, classes: int, parameters: int) -> None:
    state = published(file)
    name, arguments, weights = convert_state_dict(state)
    assert (name, arguments["in_channels"], arguments["classes"]) == (model, 1, classes)
    network = create_model(name, **arguments)
    network.load_state_dict(weights)
    assert count_parameters(network) == parameters
    totals = [sum(v.double().abs().sum().item() for v in s.values() if v.is_floating_point()) for s in (state, weights)]
    assert totals[0] == pytest.approx(totals[1], rel=1e-12)


def test_tcia_hybrid_gives_the_recorded_answer() -> None:
    image, expected, step = golden("obeliskhybrid_tcia")
    with torch.no_grad():
        found = built(published("obeliskhybrid_tcia"))(image)[0, :, ::step, ::step, ::step].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_original_network_gives_the_recorded_answer() -> None:
    image, expected, _ = golden("obelisk_visceral")  # smoothed already, and answered at half the size
    network = built(published("obelisk_visceral"), smoothing=[])
    half = torch.from_numpy(expected)[None]
    with torch.no_grad():
        quarter = network.logits_on_grid(image)
        found = F.interpolate(quarter, size=half.shape[2:], mode="trilinear", align_corners=False)
        torch.testing.assert_close(found, half, rtol=0, atol=1e-3)
        full = F.interpolate(half, size=image.shape[2:], mode="trilinear", align_corners=False)
        torch.testing.assert_close(network(image), full, rtol=0, atol=1e-3)


def test_original_network_smooths_as_the_published_preparation() -> None:
    image = torch.randn(1, 1, 9, 4, 11, generator=torch.Generator().manual_seed(0))
    expected = image
    for size in (5, 5, 3):
        expected = F.avg_pool3d(F.pad(expected, (size // 2,) * 6), size, 1)
    torch.testing.assert_close(built(published("obelisk_visceral")).prepare(image), expected, rtol=1e-5, atol=1e-6)


def _unit(state: dict[str, torch.Tensor], x: torch.Tensor, name: str, slope: float, stride: int = 1) -> torch.Tensor:
    x = F.conv3d(x, state[f"conv{name}.weight"], state[f"conv{name}.bias"], stride, padding=1)
    return F.leaky_relu(_norm(state, x, f"batch{name}"), slope)


def _norm(state: dict[str, torch.Tensor], x: torch.Tensor, name: str) -> torch.Tensor:
    return F.batch_norm(x, *(state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))


def _upsample(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="trilinear", align_corners=False)


def test_all_convolutional_unet_answers_as_its_published_wiring() -> None:
    state = published("allconvunet_tcia")
    image = torch.randn(1, 1, 33, 40, 36, generator=torch.Generator().manual_seed(0)) * 300
    maps = [_unit(state, image, "0", 0.1)]
    for level in "12345":
        maps.append(_unit(state, _unit(state, maps[-1], level, 0.1, stride=2), 2 * level, 0.1))
    x = maps.pop()
    for name in ("6dU", "6cU", "6bU", "6U", "7U"):
        beside = maps.pop()
        x = _unit(state, torch.cat((_upsample(x, beside), beside), 1), name, 0.1)
    expected = F.conv3d(x, state["conv77U.weight"], state["conv77U.bias"], padding=1)
    with torch.no_grad():
        found = built(state)(image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.std().item())


def test_visceral_hybrid_answers_as_its_published_wiring() -> None:
    state = published("obeliskhybrid_visceral")
    image = torch.randn(1, 1, 21, 18, 25, generator=torch.Generator().manual_seed(0))

    def kernel(seen: torch.Tensor, number: int, shape: tuple[int, ...]) -> torch.Tensor:
        theta = torch.eye(3, 4)[None]
        nodes = F.affine_grid(theta, [1, 1, *shape], align_corners=True).reshape(1, 1, -1, 1, 3)
        read = F.grid_sample(seen, nodes + state[f"offset{number}"], align_corners=True)
        x = F.relu(F.conv3d(read.reshape(1, -1, *shape), state[f"linear{number}a.weight"], groups=4))
        for norm, linear in ("ab", "bc", "cd"):
            y = F.conv3d(_norm(state, x, f"batch{number}{norm}"), state[f"linear{number}{linear}.weight"])
            x = torch.cat((x, F.relu(y)), 1)
        return F.relu(F.conv3d(_norm(state, x, f"batch{number}d"), state[f"linear{number}e.weight"]))

    full = _unit(state, image, "0", 0.05)
    half = _unit(state, _unit(state, full, "1", 0.05, stride=2), "11", 0.05)
    quarter = _unit(state, half, "2", 0.05, stride=2)
    near = kernel(full, 1, tuple(quarter.shape[2:]))
    far = kernel(F.avg_pool3d(image, 3, 1, 1), 2, tuple((size + 1) // 2 for size in quarter.shape[2:]))
    x = _unit(state, torch.cat((quarter, _upsample(far, quarter)), 1), "6bU", 0.05)
    x = _unit(state, torch.cat((_upsample(x, half), _upsample(near, half), half), 1), "6U", 0.05)
    expected = _upsample(F.conv3d(x, state["conv8.weight"], state["conv8.bias"]), image)
    with torch.no_grad():
        found = built(state)(image)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_a_checkpoint_of_another_class_count_and_channels_is_understood() -> None:
    state = dict(published("allconvunet_tcia"))
    state["conv0.weight"] = torch.zeros(5, 2, 3, 3, 3)
    name, arguments, _ = convert_state_dict(state)
    assert (name, arguments) == ("unet-allconv", {"in_channels": 2, "classes": 9, "variant": "tcia"})


def _without(state: dict, key: str) -> dict:
    return {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("file", "change", "word"),
    [
        ("obelisk_visceral", lambda s: _without(s, "BN3b.bias"), "missing: grow_norms.1.bias"),
        ("obelisk_visceral", lambda s: s | {"LIN5.weight": s["LIN4.weight"]}, "'LIN5.weight' is not part of it"),
        ("obelisk_visceral", lambda s: s | {"LIN2.weight": s["LIN4.weight"]}, "shape"),
        ("obelisk_visceral", lambda s: s | {"offset1": s["offset1"][:, :512]}, "obelisk.offsets has shape"),
        ("obelisk_visceral", lambda s: _without(s, "LIN4.weight"), "'LIN4.weight' is missing"),
        ("allconvunet_tcia", lambda s: _without(s, "conv0.weight"), "'conv0.weight' is missing"),
        ("obeliskhybrid_tcia", lambda s: _without(s, "offset1"), "near.offsets"),
        ("obeliskhybrid_tcia", lambda s: s | {"offset1": torch.zeros(1, 128, 1, 3, 1)}, "'offset1' has shape"),
        ("obelisk_visceral", lambda s: s | {"offset1": torch.tensor(1.0)}, r"'offset1' has shape \(\)"),
        ("obelisk_visceral", lambda s: s | {"offset1": torch.zeros(0, 3)}, r"'offset1' has shape \(0, 3\)"),
        ("obeliskhybrid_visceral", lambda s: {"state_dict": s}, "unknown layout"),
        ("obelisk_visceral", lambda s: s | {"offset1": [1.0]}, "unknown layout"),
    ],
)
def test_damaged_checkpoints_are_refused(file: str, change: object, word: str) -> None:
    with pytest.raises(BundleError, match=word) as error:
        convert_state_dict(change(dict(published(file))))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("state", [{}, {"conv0.weight": torch.zeros(4, 1, 3, 3, 3)}])
def test_unknown_layouts_are_refused(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(BundleError, match="unknown layout"):
        convert_state_dict(state)
