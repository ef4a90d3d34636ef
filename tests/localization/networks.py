"""A point network with a known output: a structure is where its channel is brighter than 0.5."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from farvox.bundle import Bundle, Inference, LabelEntry, Manifest, ModelEntry
from farvox.geometry import Grid
from farvox.models import create_model
from farvox.models.obelisk_dense import ObeliskPoints
from farvox.preprocessing.config import IntensityNormalization, Preprocessing
from farvox.recipes import load_recipe
from farvox.types import Array, FloatArray

NAMES = ("apex", "base")
OPTIONS = {"offsets": 8, "smoothing": [], "stride": 1}


def threshold_network(sharpness: float = 20.0) -> ObeliskPoints:
    """An `obelisk-unary` of two channels with logits 0, s·(a − ½), s·(b − ½) for intensities a and b, 0 or above.

    All offsets are zero, so the network samples the point itself; one feature passes each channel to the last layer.
    """
    network: ObeliskPoints = create_model("obelisk-unary", in_channels=2, classes=3, **OPTIONS)  # type: ignore[assignment]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for norm in (network.norm, network.reduce[1], *network.grow_norms):
            norm.weight.fill_(1)  # type: ignore[union-attr, operator]
        # Groups 0 and 1 sample the first channel, 2 and 3 the second; 64 of the 256 features each.
        for channel, feature in enumerate((0, 128)):
            network.obelisk.weight[feature] = 1 / network.obelisk.weight.shape[1]
            network.reduce[0].weight[channel, feature] = 1  # type: ignore[index, operator]
            network.head.weight[channel + 1, channel] = sharpness
            network.head.bias[channel + 1] = -sharpness / 2  # type: ignore[index]
    return network.eval()


def threshold_bundle(spacing: tuple[float, float, float], window: tuple[int, int, int] | None = None) -> Bundle:
    """The network above with a preprocessing that does not change intensities from 0 to 1."""
    labels = tuple(LabelEntry(value=v, name=n) for v, n in enumerate(("background", *NAMES)))
    manifest = Manifest(
        model=ModelEntry(name="obelisk-unary", in_channels=2, classes=3, options=OPTIONS),
        parameters=1,
        preprocessing=Preprocessing(
            spacing=spacing, channels=("a", "b"), intensity=(IntensityNormalization(kind="dataset", low=0, high=1),) * 2
        ),
        inference=Inference(patch_size=window),
        labels=labels,
    )
    return Bundle(threshold_network(), manifest, load_recipe("obelisk-dense"), Path("made"))


def blobs(grid: Grid, *centres: FloatArray | None, half_mm: float = 8.0) -> Array:
    """(len(centres), I, J, K) float32: a smooth blob in each channel, ½ at `half_mm` from its centre; None for none."""
    world = grid.voxel_to_mm(np.indices(grid.shape).reshape(3, -1).T)
    channels = [
        np.zeros(len(world)) if c is None else np.exp(-np.log(2) * ((world - c) ** 2).sum(1) / half_mm**2)
        for c in centres
    ]
    return np.stack(channels).reshape(-1, *grid.shape).astype(np.float32)
