"""`farvox demo`: train, predict, evaluate and report on generated phantoms, in about two minutes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from farvox.cli.common import DeviceOption, JsonOption

_TRAINING, _VALIDATION = 12, 4


def run(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything the demo writes.")] = Path("demo"),
    budget: Annotated[str, typer.Option("--budget", help="Training time.")] = "120s",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train on generated abdomen phantoms, predict others, evaluate and write report.html."""
    from farvox.cli.common import print_run, progress_for, stdout
    from farvox.data import read_dataset
    from farvox.data.folds import Fold
    from farvox.devices import resolve_device
    from farvox.errors import UsageError
    from farvox.synthetic import write_phantoms
    from farvox.training.api import resolve_recipe_settings, temporary_cache, train_folds

    recipe = resolve_recipe_settings("quick", budget=budget)
    resolve_device(device)
    if out.exists() and any(out.iterdir()) and not (out / "phantoms").is_dir():
        raise UsageError(f"{out} holds other files", hint="choose another folder with --out")
    for part in ("phantoms", "fold-0"):
        shutil.rmtree(out / part, ignore_errors=True)
    with progress_for(as_json) as progress:
        progress.message(f"writing {_TRAINING + _VALIDATION} phantoms to {out / 'phantoms'}")
        dataset = read_dataset(write_phantoms(out / "phantoms", training=_TRAINING + _VALIDATION, testing=0))
        ids = [case.id for case in dataset.cases]
        fold = Fold("0", tuple(ids[:_TRAINING]), tuple(ids[_TRAINING:]))
        with temporary_cache(out, dataset, progress) as cache:
            result = train_folds(dataset, [fold], recipe, out, device, cache=cache, progress=progress)
    print_run(result, as_json)
    if not as_json and not result.interrupted:
        dice = result.metrics.summary.foreground.dice.mean
        stdout().print(f"mean foreground Dice on {_VALIDATION} validation phantoms: {dice:.3f}", markup=False)
    raise typer.Exit(1 if result.interrupted else 0)
