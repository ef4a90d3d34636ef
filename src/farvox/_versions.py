"""Versions of farvox and its libraries, and the machine: what to paste into a bug report."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version


def collect_versions(system: bool = True) -> dict[str, str | int | float | None]:
    """Versions of farvox and Python, and with `system` of the libraries, the processor and the GPU."""
    from farvox import __version__

    versions: dict[str, str | int | float | None] = {"farvox": __version__, "python": platform.python_version()}
    if not system:
        return versions
    import psutil
    import torch

    from farvox.devices import resolve_device, resolve_precision

    for name in ("torch", "numpy", "nibabel", "SimpleITK", "scipy", "lightning-fabric"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    device = resolve_device()
    return versions | {
        "platform": platform.platform(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "cores": psutil.cpu_count(logical=False),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "precision": resolve_precision("auto", device),
    }


def show_versions(system: bool = True) -> None:
    """Print the versions of farvox, Python and the libraries, and the machine's processor, memory and GPU.

    Args:
        system: Print the libraries and the machine too.
    """
    for name, value in collect_versions(system).items():
        print(f"{name:17} {'–' if value is None else value}")
