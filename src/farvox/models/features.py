"""Features of a trained network: the maps that enter its last layer.

Heinrich, Oktay and Bouteldja, "OBELISK", MIDL 2018, section 3.1, use "a forward pass up to the second last layer" to
register scans.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from farvox.blocks import crop_to
from farvox.errors import ModelError
from farvox.models.point_network import PointNetwork
from farvox.ops import SampleGrid

_SLAB_POINTS = 1 << 15
"""Points evaluated at a time: 32 MB for 256 features of each."""
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def classification_layer(network: nn.Module) -> nn.Module:
    """The last convolution, which computes logits from features.

    Args:
        network: A registered network, or one whose last convolution is its attribute `head`.

    Raises:
        ModelError: The network has no such layer.
    """
    head, decoder = getattr(network, "head", None), getattr(network, "decoder", None)
    if isinstance(head, _LAYERS):
        return head
    if isinstance(decoder, nn.Sequential) and len(decoder) and isinstance(decoder[-1], _LAYERS):
        return decoder[-1]
    raise ModelError(
        f"{type(network).__name__} has no last convolution whose inputs could be used as features",
        allowed="a network that `farvox models` lists, or one whose last convolution is its attribute `head`",
    )


def feature_maps(network: nn.Module, image: torch.Tensor, stride: int | None = None) -> torch.Tensor:
    """Inputs of the last layer, without gradients; the mode of the network stays as it is.

    The maps cover the image evenly (half-pixel convention), so that their size defines their grid.

    Args:
        network: A registered network.
        image: (B, in_channels, I, J, K).
        stride: For point networks: voxels between points along each axis; None: the network's own. Others have maps of
            the size of the image, or half of it if the last layer works at half the size.

    Returns:
        (B, features, I', J', K').

    Raises:
        ModelError: The network's last layer cannot be found.
    """
    return features_and_logits(network, image, stride)[0]


def features_and_logits(
    network: nn.Module, image: torch.Tensor, stride: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`feature_maps`, and the logits of the same pass: (B, classes, I, J, K), or on the grid of the points."""
    layer = classification_layer(network)
    with torch.no_grad():
        if isinstance(network, PointNetwork):
            maps = _at_points(network, image, stride or int(getattr(getattr(network, "config", None), "stride", 1)))
            return maps, layer(maps.flatten(2)).unflatten(2, maps.shape[2:])
        inputs_of_layer: list[torch.Tensor] = []
        # The hook also keeps blocks from skipping the layer in a fused operation.
        handle = layer.register_forward_pre_hook(lambda _layer, inputs: inputs_of_layer.append(inputs[0]))
        try:
            logits: Any = network(image)
        finally:
            handle.remove()
    maps = inputs_of_layer[-1]
    if isinstance(layer, nn.Conv2d):
        maps = _volumes(maps, image)
    fits = [min(size, whole) for size, whole in zip(maps.shape[2:], image.shape[2:], strict=True)]
    return crop_to(maps, fits), logits


def _volumes(slices: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """(B·K, F, I', J') → (B, F, I', J', K)."""
    size = slices.shape[2:]
    if size[0] < image.shape[2] or size[1] < image.shape[3]:
        # Quarter-size maps whose corners match those of the padded image: upsampled as the network upsamples its
        # logits.
        i, j = (4 * (n - 1) + 1 for n in size)
        slices = F.interpolate(slices, (i, j), mode="bilinear", align_corners=True)
    return slices.unflatten(0, (image.shape[0], image.shape[-1])).movedim(1, -1)


def _at_points(network: PointNetwork, image: torch.Tensor, stride: int) -> torch.Tensor:
    """(B, features, ⌈I / stride⌉, …), slab by slab along I."""
    prepared = network.prepare(image)
    i, j, k = (-(-size // stride) for size in image.shape[2:])
    thick = max(1, _SLAB_POINTS // (j * k))
    slabs = []
    for start in range(0, i, thick):
        slab = SampleGrid((i, j, k), start=start, stop=min(start + thick, i))
        points = slab.positions(image).expand(len(image), -1, -1)
        slabs.append(network.point_features(prepared, points).unflatten(2, slab.output_shape))
    return torch.cat(slabs, 2)
