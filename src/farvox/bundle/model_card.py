"""`README.md` of a bundle: what the network does, how it was trained, and how it is used."""

from __future__ import annotations

from collections.abc import Mapping

from farvox.bundle.manifest import Manifest
from farvox.recipes import Recipe


def model_card(manifest: Manifest, recipe: Recipe) -> str:
    """The facts of a bundle as a Markdown document."""
    preprocessing, size = manifest.preprocessing, manifest.inference.patch_size
    names = [label.name for label in manifest.labels[1:]]
    spacing = preprocessing.spacing and f"{_times(preprocessing.spacing)} mm"
    shape = preprocessing.shape and f"{_times(preprocessing.shape)} voxels"
    facts = {
        "Network": f"{manifest.model.name}, {manifest.parameters:,} parameters",
        "Channels": ", ".join(preprocessing.channels),
        "Labels": ", ".join(f"{label.value} {label.name}" for label in manifest.labels[1:]),
        "Resampled to": f"{spacing or shape}, axes {preprocessing.axes}",
        "Input": f"windows of {_times(size)} voxels" if size else "whole scans",
        "Training data": manifest.dataset,
        "Licence of the training data": manifest.licence,
        "Fold": manifest.fold,
        "Recipe": " – ".join(text for text in (recipe.name, recipe.source) if text),
        "Training": ", ".join(f"{key} {value}" for key, value in manifest.training.items()),
        "Made with": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
    }
    lines = [
        f"# {manifest.model.name}: {', '.join(names)}",
        *([f"**Note:** {manifest.note}"] if manifest.note else []),
        "| | |\n|---|---|\n" + "\n".join(f"| {key} | {_cell(value)} |" for key, value in facts.items() if value),
        *_metrics(manifest),
        "## Use",
        "```python\nimport farvox\n\npredictor = farvox.Predictor.load(FOLDER)  # the folder of this file\n"
        'mask = predictor.segment("scan.nii.gz")\n```',
        "```\nfarvox predict FOLDER scan.nii.gz --out masks\n```",
        "For research only. `manifest.json` and `recipe.toml` contain all settings.",
    ]
    return "\n\n".join(lines) + "\n"


def _metrics(manifest: Manifest) -> list[str]:
    """Mean Dice of each label over the validation scans, as a section; nothing without metrics."""
    labels = (manifest.metrics or {}).get("labels")
    if not isinstance(labels, Mapping):
        return []
    rows = []
    for entry in manifest.labels[1:]:
        dice = (labels.get(str(entry.value)) or labels.get(entry.value) or {}).get("dice") or {}
        if dice.get("mean") is not None:
            sd = "" if dice.get("sd") is None else f" ± {dice['sd']:.3f}"
            rows.append(f"| {_cell(entry.name)} | {dice['mean']:.3f}{sd} | {dice.get('cases', '')} |")
    table = "| label | Dice (mean ± SD) | scans |\n|---|---|---|\n" + "\n".join(rows)
    return ["## Validation", table] if rows else []


def _times(values: tuple[float, ...]) -> str:
    return "×".join(f"{value:g}" for value in values)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
