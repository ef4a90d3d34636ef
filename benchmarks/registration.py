"""Registration on frozen features beside SimpleITK's demons and B-spline: the same pairs, start, labels and one thread.

    python benchmarks/registration.py DATASET --bundle RUN/fold-0/bundle --pairs 20 --out registration.json

Pairs are drawn by seed among the bundle's validation cases, so the network has never seen them; it has seen the same
structures labelled on other scans, demons and B-spline have seen no labels at all. Labels of the moving scan are
carried over and compared with the fixed scan's. `--tuning` takes the pairs drawn before the measured ones, on which all
settings here were chosen.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from farvox.bundle import load_bundle
from farvox.data import read_dataset
from farvox.io import read_label, read_scan
from farvox.metrics import Overlap
from farvox.registration import RegisterOptions, register
from farvox.registration.jacobian import jacobian_determinant, jacobian_statistics
from farvox.runs.schema import FoldIdentity
from farvox.types import Array, FloatArray

TUNING_PAIRS = 8
Case = tuple[Path, Path]
"""Scan and labels."""
Found = tuple[Array, FloatArray]
"""Carried labels (I, J, K) and field (3, I, J, K), mm, RAS+."""
Find = Callable[[sitk.Image, sitk.Image], sitk.Transform]


def centred(fixed: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    """The start of all methods: middle on middle."""
    middles = [
        np.array(image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()]))
        for image in (fixed, moving)
    ]
    return sitk.TranslationTransform(3, (middles[1] - middles[0]).tolist())


def normalised(image: sitk.Image) -> sitk.Image:
    """Clipped to the 0.5th and 99.5th percentile, mean 0, spread 1."""
    low, high = np.percentile(sitk.GetArrayViewFromImage(image), (0.5, 99.5))
    return sitk.Normalize(sitk.Clamp(sitk.Cast(image, sitk.sitkFloat32), sitk.sitkFloat32, float(low), float(high)))


def affine(fixed: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    """Affine on three resolutions, Mattes mutual information; takes normalised scans."""
    middle = fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()])
    transform = sitk.AffineTransform(3)
    transform.SetCenter(middle)
    transform.SetTranslation(centred(fixed, moving).GetOffset())
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel((4, 2, 1))
    method.SetSmoothingSigmasPerLevel((2, 1, 0))
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 100)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)
    return transform


def demons(fixed: sitk.Image, moving: sitk.Image, begin: Find = centred) -> sitk.Transform:
    """Diffeomorphic demons on three resolutions, histograms matched, fields smoothed by 1 voxel."""
    fixed, moving = normalised(fixed), normalised(moving)
    moving = sitk.HistogramMatching(moving, fixed, 128, 7, True)
    start = begin(fixed, moving)
    darkest = float(sitk.GetArrayViewFromImage(moving).min())
    moving = sitk.Resample(moving, fixed, start, sitk.sitkLinear, darkest)
    field = None
    for shrink in (4, 2, 1):
        pair = [fixed, moving]
        if shrink > 1:
            pair = [sitk.Shrink(sitk.SmoothingRecursiveGaussian(image, shrink / 2), [shrink] * 3) for image in pair]
        step = sitk.DiffeomorphicDemonsRegistrationFilter()
        step.SetNumberOfIterations(100)
        step.SetSmoothDisplacementField(True)
        step.SetStandardDeviations(1.0)
        field = step.Execute(*pair) if field is None else step.Execute(*pair, sitk.Resample(field, pair[0]))
    both = sitk.CompositeTransform(3)
    both.AddTransform(start)
    both.AddTransform(sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64)))
    return both


def demons_from_affine(fixed: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    """`demons` that begins with `affine`."""
    return demons(fixed, moving, affine)


def bspline(fixed: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    """Free-form deformation, 2, 4, then 8 cells an axis on three resolutions, Mattes mutual information, L-BFGS."""
    fixed, moving = normalised(fixed), normalised(moving)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel((4, 2, 1))
    method.SetSmoothingSigmasPerLevel((2, 1, 0.5))
    start = centred(fixed, moving)
    method.SetMovingInitialTransform(start)
    spline = sitk.BSplineTransformInitializer(fixed, [2, 2, 2], 3)
    method.SetInitialTransformAsBSpline(spline, inPlace=True, scaleFactors=[1, 2, 4])
    method.SetOptimizerAsLBFGS2(numberOfIterations=50, solutionAccuracy=1e-4)
    method.Execute(fixed, moving)
    both = sitk.CompositeTransform(3)
    both.AddTransform(start)
    both.AddTransform(spline)
    return both


def with_itk(find: Find) -> Callable[[Case, Case], tuple[Found, float]]:
    """A method of SimpleITK as `measure` takes it."""

    def run(fixed: Case, moving: Case) -> tuple[Found, float]:
        pair = [sitk.ReadImage(str(case[0])) for case in (fixed, moving)]
        began = time.process_time()
        transform = find(*pair)
        seconds = time.process_time() - began
        still = pair[0]
        labels = sitk.Resample(sitk.ReadImage(str(moving[1])), still, transform, sitk.sitkNearestNeighbor, 0)
        field = sitk.TransformToDisplacementField(
            transform,
            sitk.sitkVectorFloat64,
            still.GetSize(),
            still.GetOrigin(),
            still.GetSpacing(),
            still.GetDirection(),
        )
        ras = sitk.GetArrayFromImage(field).transpose(3, 2, 1, 0) * np.array([-1, -1, 1])[:, None, None, None]
        return (sitk.GetArrayFromImage(labels).transpose(2, 1, 0), ras), seconds

    return run


def with_features(bundle: Path, options: RegisterOptions) -> Callable[[Case, Case], tuple[Found, float]]:
    """Ours as `measure` takes it; the bundle is loaded once, as ITK's code is."""
    trained = load_bundle(bundle)

    def run(fixed: Case, moving: Case) -> tuple[Found, float]:
        still, other = read_scan(fixed[0]), read_scan(moving[0])
        began = time.process_time()
        found = register(still, other, trained, options)
        seconds = time.process_time() - began
        return (found.warp_labels(*read_label(moving[1])), found.field), seconds

    return run


def measure(run: Callable[[Case, Case], tuple[Found, float]], pairs: list[tuple[Case, Case]]) -> dict[str, Any]:
    """Mean Dice of each label, processor seconds of a pair, jacobian_statistics."""
    rows = []
    run(*pairs[0])  # compiled and warmed up
    for fixed, moving in pairs:
        (labels, field), seconds = run(fixed, moving)
        wanted, grid = read_label(fixed[1])
        values = np.unique(wanted)[1:]
        dice = {int(value): Overlap.of(labels == value, wanted == value).dice for value in values}
        rows.append({"dice": dice, "seconds": seconds, **jacobian_statistics(jacobian_determinant(field, grid))})
    values = sorted({value for row in rows for value in row["dice"]})
    return {
        "dice": {
            value: float(np.mean([row["dice"][value] for row in rows if value in row["dice"]])) for value in values
        },
        "mean_dice": float(np.mean([np.mean(list(row["dice"].values())) for row in rows])),
        "sd_dice": float(np.std([np.mean(list(row["dice"].values())) for row in rows], ddof=1)),
        "seconds": float(np.median([row["seconds"] for row in rows])),
        "folded": float(np.mean([row["folded"] for row in rows])),
        "log_sd": float(np.mean([row["log_sd"] for row in rows])),
        "pairs": [float(np.mean(list(row["dice"].values()))) for row in rows],
    }


def draw_pairs(cases: list[str], count: int, seed: int, tuning: bool) -> list[tuple[str, str]]:
    """Ordered pairs of different cases, drawn by seed; those for tuning come before the measured ones."""
    every = [(a, b) for a in cases for b in cases if a != b]
    random.Random(seed).shuffle(every)
    return every[:TUNING_PAIRS] if tuning else every[TUNING_PAIRS : TUNING_PAIRS + count]


def main() -> None:
    """Print a line a method; write all figures to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--bundle", type=Path, action="append", required=True, help="in its fold's folder; repeatable")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tuning", action="store_true", help="the pairs settings were chosen on")
    parser.add_argument("--without-itk", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

    unseen = [set(FoldIdentity.read(b.parent / "split.json").validation_cases) for b in given.bundle]
    cases = sorted(set.intersection(*unseen))
    files = read_dataset(given.dataset).cases_by_id
    names = draw_pairs(cases, given.pairs, given.seed, given.tuning)
    pairs = [tuple((files[name].images[0], files[name].label) for name in pair) for pair in names]
    methods: dict[str, Any] = {
        "middle on middle": with_features(given.bundle[0], RegisterOptions(start="centres", iterations=0))
    }
    if not given.without_itk:
        methods |= {
            "demons (ITK)": with_itk(demons),
            "affine, demons (ITK)": with_itk(demons_from_affine),
            "B-spline (ITK)": with_itk(bspline),
        }
    for bundle in given.bundle:
        name = load_bundle(bundle).manifest.model.name
        for kind in ("hidden", "scores", "both"):
            methods[f"{name}, {kind}"] = with_features(bundle, RegisterOptions(features=kind, start="centres"))
    results = {}
    print(f"{len(pairs)} pairs of {len(cases)} unseen cases, one thread")
    print(f"{'':28}{'Dice':>7}{'± sd':>7}{'seconds':>9}{'folded':>9}{'log sd':>8}   a label")
    for name, run in methods.items():
        found = results[name] = measure(run, pairs)  # type: ignore[arg-type]
        labels = ", ".join(f"{value}: {dice:.3f}" for value, dice in found["dice"].items())
        print(
            f"{name:28}{found['mean_dice']:7.3f}{found['sd_dice']:7.3f}{found['seconds']:9.2f}"
            f"{found['folded']:9.2%}{found['log_sd']:8.3f}   {labels}",
            flush=True,
        )
    if given.out:
        given.out.write_text(json.dumps({"pairs": names, "methods": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
