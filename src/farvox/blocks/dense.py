"""Dense blocks that need little memory in training: cheap operations are repeated in the backward pass.

The dense block of Huang, Liu, van der Maaten and Weinberger, "Densely Connected Convolutional Networks", CVPR 2017.
In a plain implementation, layer n stores two copies of all n maps before it: the memory grows with the square of the
depth. Here, as proposed by Pleiss et al., "Memory-Efficient Implementation of DenseNets", 2017 (arXiv:1707.06990), a
layer stores only the map that it adds; concatenation, norm and ReLU are repeated in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


class PreActivationConv(nn.Module):
    """Concatenation → batch norm → ReLU → 3D convolution without bias → dropout.

    Args:
        in_channels: Channels of all inputs together.
        out_channels: Output channels.
        kernel: Odd kernel size, voxels.
        dropout: Fraction of values set to zero in training, 0 to below 1.
        recompute: Repeat everything before the convolution in the backward pass instead of storing it. Results are
            bitwise equal; ignored under `torch.compile`, which makes this choice itself.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, dropout: float = 0.0, recompute: bool = True
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(in_channels)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.recompute = recompute

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        """Any number of (B, C_n, I, J, K) → (B, out_channels, I, J, K)."""
        if self.recompute and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # Nothing inside is random, and the repetition stops before the convolution, whose output is not needed.
            y = checkpoint(
                self._convolve, *parts, use_reentrant=False, preserve_rng_state=False, context_fn=self._contexts
            )
        else:
            y = self._convolve(*parts)
        return self.dropout(y)

    def _convolve(self, *parts: torch.Tensor) -> torch.Tensor:
        x = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return self.conv(F.relu(self.norm(x), inplace=True))

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), self._without_memory()

    @contextmanager
    def _without_memory(self) -> Iterator[None]:
        """The repetition must not update the running statistics a second time."""
        momentum, batches = self.norm.momentum, self.norm.num_batches_tracked
        self.norm.momentum, self.norm.num_batches_tracked = 0.0, None
        try:
            yield
        finally:
            self.norm.momentum, self.norm.num_batches_tracked = momentum, batches


class DenseBlock(nn.Module):
    """Layers that each receive the block's inputs and all maps added before them.

    Args:
        in_channels: Channels of the block's inputs together.
        layers: Number of layers.
        growth: Channels that each layer adds.
        dropout: Fraction of the added values set to zero in training.
        recompute: As in `PreActivationConv`.
    """

    def __init__(
        self, in_channels: int, layers: int, growth: int, dropout: float = 0.0, recompute: bool = True
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            PreActivationConv(in_channels + n * growth, growth, 3, dropout, recompute) for n in range(layers)
        )

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        """Any number of (B, C_n, I, J, K) → only the added maps, (B, layers · growth, I, J, K)."""
        added: list[torch.Tensor] = []
        for layer in self.layers:
            added.append(layer(*parts, *added))
        return torch.cat(added, 1)
