"""What training the original OBELISK at points holds in memory and what a step costs, on scans of its paper's size.

The real training loop runs on nine prepared scans of 312 × 230 × 320 voxels (noise, and boxes as labels: what they show
does not change what they cost) with the recipe of the paper's best row. Memory is the peak of the process over the
training, less what it held before, with everything imported and compiled. Scans lie on disk, memory-mapped; those of
their pages that are in memory are counted apart.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from farvox.data import LoadedCase
from farvox.geometry import Grid
from farvox.labels import LabelTable
from farvox.models import create_model
from farvox.preprocessing.cases import PreprocessedCase, preprocess_case
from farvox.preprocessing.config import IntensityNormalization, Preprocessing
from farvox.recipes import Recipe, load_recipe
from farvox.runs.schema import StartEvent
from farvox.training.fold import setup_fabric
from farvox.training.loop import Training

SHAPE, CLASSES = (312, 230, 320), 8
PREPARATION = Preprocessing(
    spacing=(1.5, 1.5, 1.5), channels=("CT",), intensity=(IntensityNormalization(kind="dataset", low=-3, high=3),)
)
LABELS = LabelTable(tuple(range(CLASSES)), ("background", *(f"organ {n}" for n in range(1, CLASSES))))


def make_case(number: int, shape: tuple[int, int, int], folder: Path) -> PreprocessedCase:
    """A scan of noise with seven boxes."""
    rng = np.random.default_rng(number)
    classes = np.zeros(shape, np.uint8)
    for label in range(1, CLASSES):
        size = np.array(shape) // 5
        i, j, k = rng.integers(0, np.array(shape) - size)
        classes[i : i + size[0], j : j + size[1], k : k + size[2]] = label
    image = rng.standard_normal((1, *shape), dtype=np.float32)
    case = LoadedCase(f"scan_{number}", image, classes, Grid(shape, np.diag([1.5, 1.5, 1.5, 1])))
    return preprocess_case(case, PREPARATION, CLASSES, folder)


def train(recipe: Recipe, cases: list[PreprocessedCase], folder: Path) -> float:
    """Seconds of a training without validation."""
    folder.mkdir(exist_ok=True)
    network = create_model(recipe.model.name, 1, CLASSES, **recipe.model.options)
    training = Training(
        recipe, PREPARATION, LABELS, cases, [], folder, setup_fabric(recipe, "cpu"), "float32",
        on_progress=lambda progress: None, stop=lambda: False,
    )  # fmt: skip
    began = time.monotonic()
    training.fit(network, StartEvent())
    return time.monotonic() - began


class MemoryWatch(threading.Thread):
    """Largest resident memory since `start`, MiB: the process's own, and pages of files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own, self.files, self._done = 0.0, 0.0, threading.Event()

    def run(self) -> None:
        """Look two hundred times a second."""
        while not self._done.wait(0.005):
            self.own, self.files = max(self.own, _status("RssAnon")), max(self.files, _status("RssFile"))

    def stop(self) -> None:
        """End."""
        self._done.set()
        self.join()


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=9, help="scans to learn from")
    parser.add_argument("--epochs", type=int, default=1, help="epochs of 64 steps")
    parser.add_argument("--recipe", default="obelisk-midl2018-augmented")
    chosen = parser.parse_args()
    recipe = load_recipe(chosen.recipe, [f"train.epochs={chosen.epochs}"])
    with tempfile.TemporaryDirectory() as folder:
        small = [make_case(0, (24, 24, 24), Path(folder) / "small")]
        train(recipe, small, Path(folder) / "warm")  # compiled code and libraries belong to the idle process
        cases = [make_case(n, SHAPE, Path(folder) / "scans") for n in range(chosen.scans)]
        before, files = _status("RssAnon"), _status("RssFile")
        watch = MemoryWatch()
        watch.start()
        seconds = train(recipe, cases, Path(folder) / "run")
        watch.stop()
    scans = chosen.scans * np.prod(SHAPE) * 4 / 2**20
    steps = chosen.epochs * recipe.points.steps_per_epoch
    print(f"recipe {chosen.recipe}, {chosen.scans} scans of {'×'.join(map(str, SHAPE))} voxels ({scans:.0f} MiB)")
    print(f"memory above the idle process: {watch.own - before:.0f} MiB (aim: below 700)")
    print(f"pages of memory-mapped files in memory: {watch.files - files:.0f} MiB, given back when others need them")
    print(f"{1000 * seconds / steps:.0f} ms a step of {recipe.points.count} points, smoothing the scans included")


if __name__ == "__main__":
    main()
