"""The optimiser of a recipe, and the parameters that it decays."""

from __future__ import annotations

import torch
from torch import nn

from farvox.recipes.schema import TrainSettings

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def make_optimiser(network: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Adam with the settings' learning rate and weight decay.

    Args:
        network: Its parameters are optimised. With `weight_decay_on="convolutions"` weight decay applies to the kernels
            of convolutions, transposed ones included, and not to biases, norms and offsets.
        settings: `adam` adds weight_decay · weight to the gradient (L2); `adamw` shrinks the weights directly.
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    kernels = {module.weight for module in network.modules() if isinstance(module, _CONVOLUTIONS)}
    for parameter in network.parameters():
        decays = settings.weight_decay_on == "all" or parameter in kernels
        (decayed if decays else others).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    kind = torch.optim.Adam if settings.optimiser == "adam" else torch.optim.AdamW
    return kind([group for group in groups if group["params"]], lr=settings.learning_rate)
