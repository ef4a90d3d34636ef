"""Peak memory of predicting a 512×512×400 CT with 9 classes under `--max-memory`, measured on the real program.

The network is untrained: its weights do not change what it costs. Two networks are tried, one that works on a grid of
2.5 mm and one on the scan's own voxels, where the class scores alone would fill 3.8 GB. `--quick` takes the first only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil

from farvox.bundle import Inference, LabelEntry, Manifest, ModelEntry, save_bundle
from farvox.models import create_model
from farvox.preprocessing.config import IntensityNormalization, Preprocessing
from farvox.recipes import load_recipe

SHAPE, SPACING, CLASSES = (512, 512, 400), (0.8, 0.8, 1.0), 9
LIMIT = "2G"
OPTIONS = {"widths": [16, 32, 64, 128]}
"""As the default recipe has them."""


def make_scan(path: Path) -> None:
    """A CT-like scan (HU, int16) of the size in question."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(0, 80, tuple(n // 8 for n in SHAPE))
    scan = np.kron(coarse, np.ones((8, 8, 8))).astype(np.int16)
    nib.save(nib.Nifti1Image(scan, np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1])), path)


def make_bundle(folder: Path, spacing: tuple[float, float, float]) -> Path:
    """The default network with 9 classes on the given spacing."""
    network = create_model("unet3d", in_channels=1, classes=CLASSES, **OPTIONS)
    labels = tuple(LabelEntry(value=v, name="background" if v == 0 else f"organ {v}") for v in range(CLASSES))
    manifest = Manifest(
        model=ModelEntry(name="unet3d", in_channels=1, classes=CLASSES, options=OPTIONS),
        parameters=sum(p.numel() for p in network.parameters()),
        preprocessing=Preprocessing(
            spacing=spacing,
            channels=("CT",),
            intensity=(IntensityNormalization(kind="dataset", low=-200, high=300, sd=80),),
        ),
        inference=Inference(patch_size=(96, 96, 64)),
        labels=labels,
    )
    return save_bundle(folder, network, manifest, load_recipe("default"))


def peak_of(command: list[str]) -> tuple[float, float, int]:
    """(Largest resident memory seen, MiB; seconds; exit code) of a command, looked at fifty times a second."""
    started, peak = time.monotonic(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.02)
    return peak / 2**20, time.monotonic() - started, process.wait()


def main() -> None:
    """Measure and print one row a network; exit 1 where the limit was passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scan = folder / "scan.nii.gz"
        make_scan(scan)
        for spacing in [(2.5, 2.5, 2.5), SPACING][: 1 if options.quick else 2]:
            bundle = make_bundle(folder / "bundle", spacing)
            program = [sys.executable, "-m", "farvox"]
            command = [*program, "predict", str(bundle), str(scan), "--out", str(folder / "out"), "--max-memory", LIMIT]
            peak, seconds, code = peak_of(command)
            mask = nib.load(folder / "out" / "scan.nii.gz")
            assert code == 0
            assert mask.shape == SHAPE
            rows.append(
                {"network_spacing_mm": spacing, "peak_mb": round(peak), "limit_mb": 2048, "seconds": round(seconds)}
            )
            print(f"{'×'.join(map(str, SHAPE))}, {CLASSES} classes, network at {spacing} mm: ", end="")
            print(f"peak {peak:.0f} MiB of {LIMIT} allowed, {seconds:.0f} s", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    sys.exit(any(row["peak_mb"] > row["limit_mb"] for row in rows))


if __name__ == "__main__":
    main()
