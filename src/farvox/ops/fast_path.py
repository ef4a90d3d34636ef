"""When an operation can use a faster implementation without gradients, graphs or other devices."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def fast_path_unavailable_reason(tensors: Iterable[torch.Tensor]) -> str | None:
    """Why the fast implementation cannot be used for these tensors; None if it can."""
    tensors = list(tensors)
    plain = all(type(tensor) in (torch.Tensor, torch.nn.Parameter) for tensor in tensors)
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or not plain:
        return "a graph is being recorded"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "only the reference has gradients"
    if any(tensor.device.type != "cpu" or tensor.dtype != torch.float32 for tensor in tensors):
        return "it needs float32 on the CPU"
    return None
