"""Sparse sampling against what it replaces: ratios measured side by side in one process, answers compared first.

`make bench` prints the table; `--json FILE` keeps it too. On a machine with a GPU its rows follow (`--device cuda`).
Networks have random weights: weights do not change what an answer costs.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from race import Row, as_json, check, race, show
from torch import nn

from farvox import create_model
from farvox.ops import SampleGrid, fused_conv, sparse_conv, sparse_sample

SCAN = (312, 230, 320)
"""The original OBELISK's scans, voxels."""


def by_grid_sample(
    image: torch.Tensor, offsets: torch.Tensor, weight: torch.Tensor, grid: tuple[int, ...]
) -> torch.Tensor:
    """One OBELISK layer as published: grid_sample for all offsets at once, then a matrix product."""
    positions = SampleGrid(grid).positions(offsets)
    places = (positions[:, None] + offsets[None, :, None]).flip(-1).unsqueeze(3).to(image.dtype)
    features = F.grid_sample(image, places, padding_mode="zeros", align_corners=False)
    return weight @ features.flatten(1, 2).flatten(2)


def layer_rows(device: str, dtype: torch.dtype) -> Iterator[Row]:
    """One layer: 8 × 144³ image, 128 offsets, 36³ grid, 64 outputs."""
    torch.manual_seed(0)
    kind = {"device": device, "dtype": dtype}
    image = torch.randn(1, 8, 144, 144, 144, **kind)
    offsets = 0.05 * torch.randn(128, 3, device=device)
    weight = torch.randn(64, 1024, **kind) / 32
    grid = (36, 36, 36)
    gradient = torch.randn(1, 64, 36**3, **kind)
    half, suffix = dtype != torch.float32, "" if device == "cpu" else f" ({device}, {str(dtype)[6:]})"
    tolerance = 5e-2 if half else 1e-4
    least, repeats = ("≥ 8", 7) if device == "cpu" else ("≥ 10", 30)

    def forward(layer: str) -> torch.Tensor:
        with torch.no_grad():
            if layer == "ours":
                return sparse_conv(image, offsets, weight, grid=grid)
            return by_grid_sample(image, offsets, weight, grid)

    def backward(layer: str) -> list[torch.Tensor]:
        leaves = [t.detach().requires_grad_() for t in (image, offsets, weight)]
        out = sparse_conv(*leaves, grid=grid) if layer == "ours" else by_grid_sample(*leaves, grid)
        out.backward(gradient)
        return [leaf.grad for leaf in leaves]

    ours, theirs = partial(forward, "ours"), partial(forward, "theirs")
    error = check(ours(), theirs(), tolerance)
    a, b = race(ours, theirs, repeats, device)
    yield Row(f"layer, forward{suffix}", "grid_sample + matrix product", least, b / a, a, b, error)

    ours, theirs = partial(backward, "ours"), partial(backward, "theirs")
    error = check(ours(), theirs(), tolerance)
    a, b = race(ours, theirs, 3 if device == "cpu" else repeats, device)
    yield Row(f"layer, forward + backward{suffix}", "the same with autograd", least, b / a, a, b, error)

    convs = nn.Sequential(nn.Conv3d(8, 32, 3, 2, 1), nn.Conv3d(32, 64, 3, 2, 1)).to(**kind)

    def dense() -> None:
        out = convs(image.detach().requires_grad_())
        out.backward(gradient.view(out.shape))

    a, b = race(ours, dense, repeats, device)
    yield Row(f"layer, forward + backward{suffix}", "two strided convolutions", "≤ 1.0", a / b, a, b, None)


def network_rows(device: str, dtype: torch.dtype, slabs: int) -> Iterator[Row]:
    """The original OBELISK network, dense answer at stride 2."""
    torch.manual_seed(0)
    suffix = "" if device == "cpu" else f" ({device}, {str(dtype)[6:]})"
    network = create_model("obelisk-dense", 1, 8, stride=2).to(device, dtype).eval()
    image = torch.randn(1, 1, *SCAN, device=device, dtype=dtype)
    planes = SCAN[0] // 2
    with torch.no_grad():
        prepared = network.prepare(image)

        def some(backend: str) -> torch.Tensor:
            """The network on a few thin slabs spread over the grid: all of it would take grid_sample ten minutes."""
            with on_backend(backend):
                shape = tuple(size // 2 for size in SCAN)
                starts = [planes * (2 * n + 1) // (2 * slabs) for n in range(slabs)]
                return torch.cat([network._forward_slab(prepared, shape, s, s + 1) for s in starts], 2)

        ours, theirs = partial(some, "auto"), partial(some, "reference")
        error = check(ours(), theirs(), 1e-3 if dtype == torch.float32 else 1e-1)
        a, b = race(ours, theirs, 1 if device == "cpu" else 3, device)
        work = f"original network, {slabs} of {planes} planes{suffix}"
        yield Row(work, "the same through grid_sample", "≥ 30" if device == "cpu" else "≥ 10", b / a, a, b, error)

        unet = create_model("unet-multiscale", 1, 8).to(device, dtype).eval()
        small = torch.randn(1, 1, *(size // 2 for size in SCAN), device=device, dtype=dtype)
        limit = "≤ 2.0" if device == "cpu" else "≤ 1.0"
        a, b = race(lambda: network.logits_on_grid(image), lambda: unet(small), 3, device)
        yield Row(f"original network, whole scan{suffix}", "unet-multiscale, half-size scan", limit, a / b, a, b, None)


@contextmanager
def on_backend(backend: str) -> Iterator[None]:
    """Layers that ask for the fastest backend get this one."""
    chosen = partial(sparse_conv, backend=backend)
    with (
        mock.patch("farvox.blocks.obelisk.sparse_conv", chosen),
        mock.patch("farvox.models.obelisk_dense.sparse_conv", chosen),
    ):
        yield


def memory_row() -> Row:
    """Peak memory of the original network's answer, above a process that has everything loaded, in one of its own."""
    command = [sys.executable, __file__, "--only-memory"]
    found = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    return Row("original network, whole scan", "memory above the idle process", "≤ 700 MB", found, 0, 0, None)


def measure_memory() -> None:
    """Print MB between the process with image and network loaded and its peak."""
    network = create_model("obelisk-dense", 1, 8, stride=2).eval()
    with torch.no_grad():
        network.logits_on_grid(torch.randn(1, 1, 24, 24, 24))  # compiled code and threads belong to the idle process
        image = torch.randn(1, 1, *SCAN)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak counts from here
        idle = _status("VmRSS")
        network.logits_on_grid(image)
    print((_status("VmHWM") - idle) / 1024)


def _status(key: str) -> int:
    """A size of this process, KiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def hybrid_row() -> Row:
    """The published hybrid, whole, against the same network written down plainly."""
    torch.manual_seed(0)
    network = create_model("obelisk-hybrid", 1, 9, variant="tcia", compat="published").eval()
    image = torch.randn(1, 1, 144, 144, 144)

    def plain() -> torch.Tensor:
        def pool(x: torch.Tensor, size: int) -> torch.Tensor:
            return F.avg_pool3d(x, size, stride=1, padding=size // 2)

        def step_by_step(
            unit: nn.Sequential, x: torch.Tensor, coarse: torch.Tensor | None = None, head: nn.Module | None = None
        ) -> torch.Tensor:
            if coarse is not None:
                x = torch.cat((F.interpolate(coarse, size=x.shape[2:], mode="trilinear", align_corners=False), x), 1)
            y = unit[2](unit[1](unit[0](x)))
            return y if head is None else head(y)

        with (
            on_backend("reference"),
            mock.patch("farvox.models.obelisk_hybrid.box_smooth", pool),
            mock.patch("farvox.blocks.FusedConvUnit.forward", step_by_step),
        ):
            return network(image)

    with torch.no_grad():
        error = check(network(image), plain(), 1e-3)
        a, b = race(lambda: network(image), plain, 5)
    return Row("published hybrid, 144³", "its plain form", "≥ 2", b / a, a, b, error)


def points_row() -> Row:
    """Free points, as in learning and in answering at points."""
    torch.manual_seed(0)
    image, offsets = torch.randn(1, 1, 144, 144, 144), 0.05 * torch.randn(1024, 2, 3)
    points = torch.rand(1, 100_000, 3) * 2 - 1

    def read(backend: str, count: int) -> torch.Tensor:
        parts = [
            sparse_sample(image, offsets, points=part, backend=backend) for part in points[:, :count].split(10_000, 1)
        ]
        return torch.cat(parts, 3)

    error = check(read("auto", 10_000), read("reference", 10_000), 1e-4)
    a, b = race(lambda: read("auto", 100_000), lambda: read("reference", 100_000), 1)
    return Row("100,000 free points, 1024 pairs", "grid_sample", "≥ 4", b / a, a, b, error)


def stage_row() -> Row:
    """The full-size stage of a hybrid decoder: 12 coarse and 4 fine channels to 9, and a 1×1×1 head."""
    torch.manual_seed(0)
    tensors = {
        "image": torch.randn(1, 4, 144, 144, 144),
        "weight": torch.randn(9, 16, 3, 3, 3) / 20,
        "bias": torch.randn(9),
        "coarse": torch.randn(1, 12, 72, 72, 72),
        "head_weight": torch.randn(9, 9) / 3,
        "head_bias": torch.randn(9),
    }
    ours, theirs = (partial(fused_conv, **tensors, slope=0.025, backend=name) for name in ("cpu", "reference"))
    error = check(ours(), theirs(), 1e-4)
    a, b = race(ours, theirs, 5)
    return Row("decoder stage, 144³, 12 + 4 → 9 → 9", "the same step by step", "≥ 1", b / a, a, b, error)


def ceilings() -> dict[str, float]:
    """What this machine can do at best: products and copies."""
    a, b, c = torch.randn(1024, 1024), torch.randn(1024, 4096), torch.empty(1024, 4096)
    product, _ = race(lambda: torch.mm(a, b, out=c), lambda: None, 9)
    source, target = torch.randn(1 << 27), torch.empty(1 << 27)
    copy, _ = race(lambda: target.copy_(source), lambda: None, 5)
    return {"GMAC/s": 1024 * 1024 * 4096 / product / 1e9, "GB/s": 2 * 4 * (1 << 27) / copy / 1e9}


def main() -> None:
    """Run the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the table here too")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--slabs", type=int, default=2, help="planes of the original network timed through grid_sample")
    parser.add_argument("--only-memory", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.only_memory:
        measure_memory()
        return
    rows: list[Row] = []
    if chosen.device == "cuda":
        torch.backends.cudnn.benchmark = True
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            rows += [*layer_rows("cuda", dtype), *network_rows("cuda", dtype, chosen.slabs)]
        machine = {"device": torch.cuda.get_device_name()}
    else:
        rows += [*layer_rows("cpu", torch.float32), *network_rows("cpu", torch.float32, chosen.slabs)]
        rows += [memory_row(), hybrid_row(), points_row(), stage_row()]
        machine = {
            "device": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            **ceilings(),
        }
    show(rows)
    print(
        ", ".join(
            f"{key} {value:.0f}" if isinstance(value, float) else f"{key} {value}" for key, value in machine.items()
        )
    )
    if chosen.json:
        chosen.json.write_text(
            json.dumps({"machine": machine, "torch": torch.__version__, "rows": as_json(rows)}, indent=1),
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
