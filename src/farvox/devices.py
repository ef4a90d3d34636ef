"""Device and precision; a requested device that does not exist is an error."""

from __future__ import annotations

import ctypes
import gc
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Literal

import torch

from farvox.errors import DeviceError

Precision = Literal["float32", "bfloat16"]


def resolve_device(name: str = "auto", count: int = 1) -> torch.device:
    """'auto' (a GPU when there is one), 'cpu', 'cuda', 'cuda:N' or 'mps' → device.

    Raises:
        DeviceError: Not such a name, no such device in this machine, or fewer than `count` of them.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    gpus = torch.cuda.device_count()
    if count > 1 and (":" in name or name == "mps" or (name == "cuda" and count > gpus)):
        raise DeviceError(f"{count} devices of '{name}'", allowed=f"cuda with up to {gpus}, or cpu")
    here = ["auto", "cpu", *[f"cuda:{n}" for n in range(gpus)]]
    if torch.backends.mps.is_available():
        here.append("mps")
    if name in here or (name == "cuda" and torch.cuda.is_available()):
        return torch.device(name)
    raise DeviceError(f"device '{name}' is not there", allowed=", ".join(here), hint="choose one of these")


def resolve_precision(precision: Literal["auto", "float32", "bfloat16"], device: torch.device) -> Precision:
    """The arithmetic to use: `auto` takes bfloat16 only where the processor has matrix units for it."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    # AMX tiles make bfloat16 convolutions two to three times as fast; without them bfloat16 is slower than float32.
    return "bfloat16" if device.type == "cpu" and _has_amx() else "float32"


def autocast_context(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Context in which a network runs in that arithmetic (weights stay float32)."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def _has_amx() -> bool:
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(probe and probe())


def peak_memory_mb(device: torch.device) -> float:
    """Most memory used since the start or the last `reset_peak_memory`: the GPU's, or this process's on a CPU, MiB."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    import sys

    if sys.platform == "win32":
        import psutil

        return round(psutil.Process().memory_info().peak_wset / 2**20, 1)
    # Linux; unlike `getrusage` it leaves out the process that this one was forked from.
    with suppress(OSError, StopIteration):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        peak = next(line for line in status if line.startswith("VmHWM:"))
        return round(int(peak.split()[1]) / 2**10, 1)
    import resource

    peak_size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak_size / (2**20 if sys.platform == "darwin" else 2**10), 1)


def reset_peak_memory(device: torch.device) -> None:
    """Reset the counter of `peak_memory_mb`, so that it does not include the memory of earlier work.

    On a CPU this works on Linux only; elsewhere the peak is counted from the start of the process.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what was freed
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
