"""Compares registration on frozen features with SimpleITK's demons and B-spline: same pairs and start, one thread.

    python benchmarks/registration.py DATASET --bundle RUN/fold-0/bundle --pairs 20 --out registration.json

Pairs are drawn with a seed from the validation cases of the bundle, on which the network was not trained. The network
was trained on labels of the same structures in other scans; demons and B-spline use no labels. Labels of the moving
scan are propagated and compared with those of the fixed scan. `--tuning` uses the pairs drawn before the measured
ones; all settings were chosen on them.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from farvox.bundle import load_bundle
from farvox.data import read_dataset
from farvox.io import read_label, read_scan
from farvox.metrics import Overlap
from farvox.prediction import Predictor
from farvox.registration import RegisterOptions, register
from farvox.registration.metrics import jacobian_determinant, jacobian_statistics
from farvox.runs.schema import FoldIdentity
from farvox.types import Array, FloatArray

TUNING_PAIRS = 8
Case = tuple[Path, Path]
"""Scan and labels."""
Result = tuple[Array, FloatArray]
"""Propagated labels (I, J, K) and field (3, I, J, K), mm, RAS+."""
ItkMethod = Callable[[sitk.Image, sitk.Image], sitk.Transform]


def centred(fixed: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    """The initial translation of all methods: between the centres."""
    centres = [
        np.array(image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()]))
        for image in (fixed, moving)
    ]
    return sitk.TranslationTransform(3, (centres[1] - centres[0]).tolist())


def normalised(image: sitk.Image) -> sitk.Image:
    """Clipped to the 0.5th and 99.5th percentile, mean 0, standard deviation 1."""
    low, high = np.percentile(sitk.GetArrayViewFromImage(image), (0.5, 99.5))
    return sitk.Normalize(sitk.Clamp(sitk.Cast(image, sitk.sitkFloat32), sitk.sitkFloat32, float(low), float(high)))


def affine(fixed: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    """Affine on three resolutions, Mattes mutual information; takes normalised scans."""
    centre = fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()])
    transform = sitk.AffineTransform(3)
    transform.SetCenter(centre)
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


def demons(fixed: sitk.Image, moving: sitk.Image, initial: ItkMethod = centred) -> sitk.Transform:
    """Diffeomorphic demons on three resolutions, histograms matched, fields smoothed by 1 voxel."""
    fixed, moving = normalised(fixed), normalised(moving)
    moving = sitk.HistogramMatching(moving, fixed, 128, 7, True)
    start = initial(fixed, moving)
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
    """`demons` after `affine`."""
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


def with_itk(find: ItkMethod) -> Callable[[Case, Case], tuple[Result, float]]:
    """A method of SimpleITK as a function for `measure`."""

    def run(fixed: Case, moving: Case) -> tuple[Result, float]:
        pair = [sitk.ReadImage(str(case[0])) for case in (fixed, moving)]
        start_time = time.process_time()
        transform = find(*pair)
        seconds = time.process_time() - start_time
        reference = pair[0]
        labels = sitk.Resample(sitk.ReadImage(str(moving[1])), reference, transform, sitk.sitkNearestNeighbor, 0)
        field = sitk.TransformToDisplacementField(
            transform,
            sitk.sitkVectorFloat64,
            reference.GetSize(),
            reference.GetOrigin(),
            reference.GetSpacing(),
            reference.GetDirection(),
        )
        ras = sitk.GetArrayFromImage(field).transpose(3, 2, 1, 0) * np.array([-1, -1, 1])[:, None, None, None]
        return (sitk.GetArrayFromImage(labels).transpose(2, 1, 0), ras), seconds

    return run


def with_features(bundle: Path, options: RegisterOptions) -> Callable[[Case, Case], tuple[Result, float]]:
    """Registration on features as a function for `measure`; the bundle is loaded once."""
    predictor = Predictor.load(bundle, device="cpu")

    def run(fixed: Case, moving: Case) -> tuple[Result, float]:
        scans = read_scan(fixed[0]), read_scan(moving[0])
        start_time = time.process_time()
        registration = register(*scans, predictor, **asdict(options))
        seconds = time.process_time() - start_time
        return (registration.warp_labels(read_label(moving[1])[0]), registration.field), seconds

    return run


def measure(run: Callable[[Case, Case], tuple[Result, float]], pairs: list[tuple[Case, Case]]) -> dict[str, Any]:
    """Mean Dice of each label, processor seconds for a pair, and statistics of the Jacobian determinant."""
    rows = []
    run(*pairs[0])  # compiles and warms up
    for fixed, moving in pairs:
        (labels, field), seconds = run(fixed, moving)
        reference, grid = read_label(fixed[1])
        values = np.unique(reference)[1:]
        dice = {int(value): Overlap.of(labels == value, reference == value).dice for value in values}
        statistics = jacobian_statistics(jacobian_determinant(field, grid)).model_dump()
        rows.append({"dice": dice, "seconds": seconds, **statistics})
    values = sorted({value for row in rows for value in row["dice"]})
    return {
        "dice": {
            value: float(np.mean([row["dice"][value] for row in rows if value in row["dice"]])) for value in values
        },
        "mean_dice": float(np.mean([np.mean(list(row["dice"].values())) for row in rows])),
        "sd_dice": float(np.std([np.mean(list(row["dice"].values())) for row in rows], ddof=1)),
        "seconds": float(np.median([row["seconds"] for row in rows])),
        "folding_fraction": float(np.mean([row["folding_fraction"] for row in rows])),
        "log_jacobian_sd": float(np.mean([row["log_jacobian_sd"] for row in rows])),
        "pairs": [float(np.mean(list(row["dice"].values()))) for row in rows],
    }


def draw_pairs(cases: list[str], count: int, seed: int, tuning: bool) -> list[tuple[str, str]]:
    """Ordered pairs of different cases, drawn with a seed; the pairs for tuning precede the measured ones."""
    every = [(a, b) for a in cases for b in cases if a != b]
    random.Random(seed).shuffle(every)
    return every[:TUNING_PAIRS] if tuning else every[TUNING_PAIRS : TUNING_PAIRS + count]


def main() -> None:
    """Print one line for each method, and write all results to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--bundle", type=Path, action="append", required=True, help="of a fold; repeatable")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tuning", action="store_true", help="use the pairs on which settings were chosen")
    parser.add_argument("--without-itk", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

    validation = [set(FoldIdentity.read(b.parent / "split.json").validation_cases) for b in options.bundle]
    cases = sorted(set.intersection(*validation))
    files = read_dataset(options.dataset).cases_by_id
    names = draw_pairs(cases, options.pairs, options.seed, options.tuning)
    pairs = [tuple((files[name].images[0], files[name].label) for name in pair) for pair in names]
    methods: dict[str, Any] = {
        "centre to centre": with_features(options.bundle[0], RegisterOptions(init="centers", iterations=0))
    }
    if not options.without_itk:
        methods |= {
            "demons (ITK)": with_itk(demons),
            "affine, demons (ITK)": with_itk(demons_from_affine),
            "B-spline (ITK)": with_itk(bspline),
        }
    for bundle in options.bundle:
        name = load_bundle(bundle).manifest.model.name
        for kind in ("penultimate", "probabilities", "both"):
            methods[f"{name}, {kind}"] = with_features(bundle, RegisterOptions(features=kind, init="centers"))
    results = {}
    print(f"{len(pairs)} pairs of {len(cases)} validation cases, one thread")
    print(f"{'':28}{'Dice':>7}{'± sd':>7}{'seconds':>9}{'folded':>9}{'log sd':>8}   a label")
    for name, run in methods.items():
        result = results[name] = measure(run, pairs)  # type: ignore[arg-type]
        labels = ", ".join(f"{value}: {dice:.3f}" for value, dice in result["dice"].items())
        print(
            f"{name:28}{result['mean_dice']:7.3f}{result['sd_dice']:7.3f}{result['seconds']:9.2f}"
            f"{result['folding_fraction']:9.2%}{result['log_jacobian_sd']:8.3f}   {labels}",
            flush=True,
        )
    if options.out:
        options.out.write_text(json.dumps({"pairs": names, "methods": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
