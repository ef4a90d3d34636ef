"""When an operation may take a way that is faster and knows nothing of gradients, graphs or other devices."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def fast_path_unavailable_reason(tensors: Iterable[torch.Tensor]) -> str | None:
    """Why these tensors must go the plain way; None where they may take the shortcut."""
    tensors = list(tensors)
    plain = all(type(tensor) in (torch.Tensor, torch.nn.Parameter) for tensor in tensors)
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or not plain:
        return "a graph is being recorded"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "gradients are for the reference"
    if any(tensor.device.type != "cpu" or tensor.dtype != torch.float32 for tensor in tensors):
        return "it takes float32 on the CPU"
    return None
