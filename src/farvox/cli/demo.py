"""`farvox demo`: the main job on an embedded phantom set, end to end, in about two minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from farvox.cli.common import DeviceOption, JsonOption

_TRAINING, _TESTING = 12, 4


def run(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything the demo makes.")] = Path("demo"),
    budget: Annotated[str, typer.Option("--budget", help="Training time.")] = "120s",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train on generated abdomen phantoms, predict unseen ones, evaluate and write report.html."""
    import shutil

    from farvox.cli.common import print_json, stderr, stdout
    from farvox.cli.train import train_folds
    from farvox.data import read_dataset
    from farvox.data.folds import Fold
    from farvox.devices import resolve_device
    from farvox.errors import UsageError
    from farvox.recipes import load_recipe
    from farvox.synthetic import write_phantoms

    recipe = load_recipe("quick", [f'train.budget="{budget}"'])
    resolve_device(device)
    if out.exists() and any(out.iterdir()) and not (out / "phantoms").is_dir():
        raise UsageError(f"{out} holds something else", hint="choose another folder by --out")
    for part in ("phantoms", "fold-0"):
        shutil.rmtree(out / part, ignore_errors=True)
    stderr().print(f"making {_TRAINING + _TESTING} phantoms in {out / 'phantoms'}", markup=False)
    folder = write_phantoms(out / "phantoms", training=_TRAINING + _TESTING, testing=0)
    dataset = read_dataset(folder)
    ids = [case.id for case in dataset.cases]
    fold = Fold("0", tuple(ids[:_TRAINING]), tuple(ids[_TRAINING:]))
    summary = train_folds(dataset, [fold], recipe, out, device=device, quiet=as_json)
    if as_json:
        print_json(summary.model_dump())
    interrupted = any(fold.stop_reason == "interrupted" for fold in summary.folds.values())
    if not as_json and summary.summary:
        dice = summary.summary.foreground.dice.mean
        stdout().print(f"mean foreground Dice on {_TESTING} unseen phantoms: {dice:.3f}", markup=False)
    raise typer.Exit(1 if interrupted else 0)
