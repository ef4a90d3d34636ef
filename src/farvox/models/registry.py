"""The table of networks: name, where it is built, and facts; listing it imports no torch."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from farvox.errors import ModelError, suggest

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a network without building it.

    Args:
        builder: "module:function" that builds it.
        paper: Where it was published, or "our own".
        parameters: Trainable values, offsets included, with `reference_arguments`.
        reference_arguments: Arguments of `create_model` that give this count.
        dims: 3 when the network sees whole volumes, 2 when it sees slices along K one by one.
        input_requirements: Sizes and intensities the network takes.
        multiply_adds: Multiply-adds per voxel of one pass, with `reference_arguments`, on an image of `reference_size`; see
            `farvox.profiling.cost` for what counts.
        reference_size: Voxels along each axis.
        min_size: Fewest voxels along each axis that the network takes.
        licence: Licence of this implementation.
        note: What to know before choosing it.
        staged: Whether its training has stages, in each of which some weights rest: it then has a method
            `set_training_progress(done)` that training calls before every step with the share that is over, 0 to 1.
        points: Whether it answers each point on its own, as a `farvox.models.PointNetwork`.
        relative: Whether it reaches relative to the image it is given: prediction then gives it windows as large as in
            training, whatever memory there is.
    """

    builder: str
    paper: str
    parameters: int
    reference_arguments: dict[str, Any]
    dims: int
    input_requirements: str
    multiply_adds: int = 0
    reference_size: tuple[int, int, int] = (64, 64, 64)
    min_size: tuple[int, int, int] = (1, 1, 1)
    licence: str = "Apache-2.0"
    note: str = ""
    multi_stage: bool = False
    points: bool = False
    size_dependent: bool = False


_TABLE: dict[str, ModelInfo] = {
    "dsm-distill": ModelInfo(
        builder="farvox.models.dsm:build_distill",
        paper="Maheshwari et al. 2021 (Distill DSM, MIDL)",
        parameters=1_217_299,
        reference_arguments={"in_channels": 4, "classes": 3},
        dims=3,
        input_requirements="any size (slices padded inside to a multiple of 16), any channels; K as deep as can be",
        multiply_adds=43_392,
        note="alpha=0.25: 1,116,059; alpha=1: 1,621,955 (printed: 1,115,606, 1,216,266, 1,619,330); K: thick slices",
    ),
    "dsm-residual": ModelInfo(
        builder="farvox.models.dsm:build_residual",
        paper="Maheshwari et al. 2021 (Distill DSM, MIDL), after Lin et al. 2019 (TSM)",
        parameters=1_082_211,
        reference_arguments={"in_channels": 4, "classes": 3},
        dims=3,
        input_requirements="any size (slices padded inside to a multiple of 16), any channels; K as deep as can be",
        multiply_adds=38_640,
        note="unet2d that adds features of neighbouring slices; K should be the axis of thick slices",
    ),
    "obelisk-dense": ModelInfo(
        builder="farvox.models.obelisk_dense:build_dense",
        paper="Heinrich et al. 2018 (OBELISK, MIDL)",
        parameters=131_464,
        reference_arguments={"in_channels": 1, "classes": 8},
        dims=3,
        input_requirements="any size, any channels; it reaches relative to the image: whole scans, or patches of one size",
        multiply_adds=17_408,
        note="129,536 by the paper's count, without batch norm's scale and shift and the last bias",
        points=True,
        size_dependent=True,
    ),
    "obelisk-hybrid": ModelInfo(
        builder="farvox.models.obelisk_hybrid:build",
        paper="Heinrich et al. 2019, doi:10.1016/j.media.2019.02.006",
        parameters=229_217,
        reference_arguments={"in_channels": 1, "classes": 9},
        dims=3,
        input_requirements="any size, any channels; it reaches relative to the image: whole scans, or patches of one size",
        multiply_adds=10_217,
        note="variant='visceral': 230,208 with 8 classes; compat='published' runs weights trained by the authors",
        size_dependent=True,
    ),
    "obelisk-mlp": ModelInfo(
        builder="farvox.models.obelisk_dense:build_mlp",
        paper="Heinrich et al. 2018 (OBELISK, MIDL)",
        parameters=122_888,
        reference_arguments={"in_channels": 1, "classes": 8},
        dims=3,
        input_requirements="any size, any channels; it reaches relative to the image: whole scans, or patches of one size",
        multiply_adds=16_512,
        note="122,368 by the paper's count; three 1×1 layers take the place of the dense ones",
        points=True,
        size_dependent=True,
    ),
    "obelisk-random": ModelInfo(
        builder="farvox.models.obelisk_dense:build_random",
        paper="Heinrich et al. 2018 (OBELISK, MIDL)",
        parameters=125_320,
        reference_arguments={"in_channels": 1, "classes": 8},
        dims=3,
        input_requirements="any size, any channels; it reaches relative to the image: whole scans, or patches of one size",
        multiply_adds=17_408,
        note="123,392 by the paper's count; offsets stay as drawn: what learning them is worth",
        points=True,
        size_dependent=True,
    ),
    "obelisk-unary": ModelInfo(
        builder="farvox.models.obelisk_dense:build_unary",
        paper="Heinrich et al. 2018 (OBELISK, MIDL)",
        parameters=128_392,
        reference_arguments={"in_channels": 1, "classes": 8},
        dims=3,
        input_requirements="any size, any channels; it reaches relative to the image: whole scans, or patches of one size",
        multiply_adds=16_384,
        note="126,464 by the paper's count; single offsets: what pairs are worth",
        points=True,
        size_dependent=True,
    ),
    "prostate-deeplab": ModelInfo(
        builder="farvox.models.prostate_deeplab:build",
        paper="Eschen 2018 (DTU), after Chen et al. 2018 (DeepLabv3+)",
        parameters=41_053_410,
        reference_arguments={"in_channels": 1, "classes": 2},
        dims=2,
        input_requirements="any size, any channels; 13 neighbouring slices along K of each channel enter together",
        multiply_adds=824_187,
        note="41,255,953 by the paper's count: one output, four values for each channel of a batch norm",
    ),
    "prostate-unet3d": ModelInfo(
        builder="farvox.models.prostate_unet3d:build",
        paper="Eschen 2018 (DTU), after Çiçek et al. 2016",
        parameters=1_604_724,
        reference_arguments={"in_channels": 1, "classes": 2},
        dims=3,
        input_requirements="any size (padded inside to a multiple of 8), any channels",
        multiply_adds=55_760,
        note="1,605,381 by the paper's count: one output, four values for each channel of a batch norm",
    ),
    "tiramisu-p3a": ModelInfo(
        builder="farvox.models.tiramisu:build_p3a",
        paper="Eschen 2018 (DTU), after Jégou et al. 2017",
        parameters=23_049_666,
        reference_arguments={"in_channels": 1, "classes": 2},
        dims=3,
        input_requirements="any size (padded inside to a multiple of 8), any channels",
        multiply_adds=5_328_777,
        note="22,962,289 by the paper's rule (one output, no batch norm), printed with two digits swapped",
    ),
    "tiramisu-p3b": ModelInfo(
        builder="farvox.models.tiramisu:build_p3b",
        paper="Eschen 2018 (DTU), after Jégou et al. 2017",
        parameters=23_582_354,
        reference_arguments={"in_channels": 1, "classes": 2},
        dims=3,
        input_requirements="any size (padded inside to a multiple of 8), any channels",
        multiply_adds=4_428_645,
        note="23,487,169 by the paper's count: one output, no batch norm",
    ),
    "tiramisu-p4a": ModelInfo(
        builder="farvox.models.tiramisu:build_p4a",
        paper="Eschen 2018 (DTU), after Jégou et al. 2017",
        parameters=49_571_874,
        reference_arguments={"in_channels": 1, "classes": 2},
        dims=3,
        input_requirements="any size (padded inside to a multiple of 16), any channels",
        multiply_adds=4_341_871,
        note="49,382,353 by the paper's count: one output, no batch norm",
    ),
    "unet-allconv": ModelInfo(
        builder="farvox.models.unet_allconv:build",
        paper="Heinrich et al. 2019, doi:10.1016/j.media.2019.02.006",
        parameters=883_740,
        reference_arguments={"in_channels": 1, "classes": 9},
        dims=3,
        input_requirements="any size, any channels",
        multiply_adds=11_606,
        note="layout of the published TCIA weights; variant='visceral', the paper's Table 1: 877,313 with 8 classes",
    ),
    "unet-allconv-lean": ModelInfo(
        builder="farvox.models.unet_allconv:build_lean",
        paper="Heinrich et al. 2019, doi:10.1016/j.media.2019.02.006",
        parameters=201_642,
        reference_arguments={"in_channels": 1, "classes": 9},
        dims=3,
        input_requirements="any size, any channels",
        multiply_adds=9_439,
        note="Table 1 with the groups the text gives; the paper prints about 220,000",
    ),
    "unet-global": ModelInfo(
        builder="farvox.models.unet_global:build",
        paper="Heinrich et al. 2019, doi:10.1016/j.media.2019.02.006",
        parameters=16_286_236,
        reference_arguments={"in_channels": 1, "classes": 9},
        dims=3,
        input_requirements="any size (its coarsest map is resized for the dense layers), any channels; whole scans",
        multiply_adds=7_605,
        note="printed: 16 M; coarsest=[9,9,9], the text's: 11,944,816; variant='visceral': 13,081,422 with 8 classes",
    ),
    "unet-multiscale": ModelInfo(
        builder="farvox.models.unet_multiscale:build",
        paper="Heinrich et al. 2018 (OBELISK, MIDL)",
        parameters=1_313_576,
        reference_arguments={"in_channels": 1, "classes": 8},
        dims=3,
        input_requirements="any size, any channels",
        multiply_adds=11_070,
        note="printed: 1,250,000, rounded; the text leaves details open, see the file",
    ),
    "unet2d": ModelInfo(
        builder="farvox.models.unet2d:build",
        paper="Maheshwari et al. 2021 (Distill DSM, MIDL), after Ronneberger et al. 2015",
        parameters=1_082_211,
        reference_arguments={"in_channels": 4, "classes": 3},
        dims=2,
        input_requirements="any size (slices padded inside to a multiple of 16), any channels",
        multiply_adds=38_640,
        note="slices along K one by one: K should be the axis of thick slices",
    ),
    "unet3d": ModelInfo(
        builder="farvox.models.unet3d:build",
        paper="Çiçek et al. 2016, doi:10.1007/978-3-319-46723-8_49; size of Maheshwari et al. 2021 (Distill DSM)",
        parameters=4_339_059,
        reference_arguments={"in_channels": 4, "classes": 3},
        dims=3,
        input_requirements="any size (padded inside to a multiple of 16), any channels",
        multiply_adds=57_163,
        note="the Distill DSM paper prints 4,288,208 and no layout; the default recipe takes widths=[16,32,64,128] "
        "(1,325,906 with 1 channel and 2 classes) and strides that follow the spacing",
    ),
    "vfn": ModelInfo(
        builder="farvox.models.vfn:build",
        paper="Xia et al. 2018, doi:10.1007/978-3-030-00937-3_51",
        parameters=3_926_763,
        reference_arguments={"in_channels": 1, "classes": 2},
        dims=3,
        input_requirements="any size (padded inside: slices to a multiple of 16, the fusion to one of 8), any channels",
        multiply_adds=148_897,
        note="three unet2d along the axes and a 3D network that fuses them; trained in two stages",
        multi_stage=True,
    ),
}


def list_models() -> list[str]:
    """Names `create_model` knows, sorted."""
    return sorted(_TABLE)


def model_info(name: str) -> ModelInfo:
    """Facts about a network.

    Raises:
        ModelError: Unknown name.
    """
    if not isinstance(name, str) or name not in _TABLE:
        raise ModelError(f"no network is called '{name}'", hint=suggest(str(name), _TABLE))
    return _TABLE[name]


def create_model(name: str, in_channels: int = 1, classes: int = 2, **options: Any) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        name: One of `list_models()`.
        in_channels: Channels of the image, at least 1.
        classes: Classes of the answer, background included, at least 2.
        **options: The network's own; its file names them.

    Returns:
        Module that turns (B, in_channels, I, J, K) into logits (B, classes, I, J, K) of the same size.

    Raises:
        ModelError: Unknown name or option, or a value that cannot work.
    """
    facts = model_info(name)
    for what, value, least in (("in_channels", in_channels, 1), ("classes", classes, 2)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ModelError(f"{what}={value!r} for '{name}'", allowed=f"a whole number of at least {least}")
    module, function = facts.builder.split(":")
    build = getattr(import_module(module), function)
    known = [option for option in inspect.signature(build).parameters if option not in ("in_channels", "classes")]
    for option in options:
        if option not in known:
            hint = suggest(option, known) if known else "leave it out"
            raise ModelError(f"'{name}' has no option '{option}'", hint=hint)
    network: nn.Module = build(in_channels=in_channels, classes=classes, **options)
    return network


def count_parameters(network: nn.Module) -> int:
    """Number of trainable values, learned offsets included."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
