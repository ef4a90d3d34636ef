"""`farvox info --system`: what to paste into a bug report."""

from __future__ import annotations

import platform
from typing import Annotated

import typer

from farvox.cli.common import JsonOption


def run(
    system: Annotated[bool, typer.Option("--system", help="Libraries, processor and memory too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Versions of this program and, with --system, of what it runs on."""
    from farvox import __version__
    from farvox.cli.common import print_json

    facts: dict[str, object] = {"farvox": __version__, "python": platform.python_version()}
    if system:
        from importlib.metadata import PackageNotFoundError, version

        import psutil
        import torch

        from farvox.devices import resolve_device, resolve_precision

        for name in ("torch", "numpy", "nibabel", "SimpleITK", "scipy", "lightning-fabric"):
            try:
                facts[name] = version(name)
            except PackageNotFoundError:
                facts[name] = "not installed"
        device = resolve_device()
        facts |= {
            "platform": platform.platform(),
            "processor": torch.backends.cpu.get_cpu_capability(),
            "cores": psutil.cpu_count(logical=False),
            "threads": torch.get_num_threads(),
            "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
            "device": str(device),
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            "precision": resolve_precision("auto", device),
        }
    if as_json:
        print_json(facts)
    else:
        for name, value in facts.items():
            typer.echo(f"{name:17} {value if value is not None else '–'}")
