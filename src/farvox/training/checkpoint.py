"""The state of a training on disk, replaced as a whole, so that a kill at any moment leaves a complete one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from farvox._atomic import atomic_file
from farvox.errors import BundleError


@dataclass(frozen=True)
class Checkpoint:
    """The state from which a resumed training continues exactly as if it had not been interrupted.

    Random draws are keyed by seed and step, so the step number represents all random states.
    """

    step: int
    seconds: float
    network: dict[str, Any]
    optimiser: dict[str, Any]
    log_bytes: int
    """Length of log.jsonl at that step; what was written later is cut off on resuming."""
    preprocessing: str
    """As JSON."""
    training: tuple[str, ...]
    loss_sum: float
    loss_steps: int


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint as a whole.

    Raises:
        ResourceError: The disk is full; the old checkpoint is kept.
    """
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        torch.save({**asdict(checkpoint), "training": list(checkpoint.training)}, file)


def load_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint, or None when there is none; tensors and plain values only, no code is run.

    Raises:
        BundleError: The file is damaged.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return Checkpoint(**{**content, "training": tuple(content["training"])})
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BundleError(f"checkpoint {path} is damaged: {first}", hint="train again without --resume") from None
