"""How often the voxels of a scan are read in a training, and what becomes of a cache that cannot be used."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import farvox
from farvox.data import load_case
from farvox.io import nifti
from farvox.preprocessing.cache import CaseCache
from farvox.preprocessing.config import IntensityNormalization, Preprocessing
from farvox.progress import NullProgress
from tests.training.runs import make_dataset

TINY = {
    "model.options": {"widths": [4, 8]},
    "patch.size": [16, 16, 16],
    "train.precision": "float32",
}


class Messages(NullProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """File → how often its voxels were read."""
    counted: Counter[str] = Counter()
    original = nifti.read

    def counting(path: Path) -> object:
        counted[f"{path.parent.name}/{path.name}"] += 1
        return original(path)

    monkeypatch.setattr(nifti, "read", counting)
    return counted


def test_five_folds_read_each_image_twice_at_most(tmp_path: Path, reads: Counter[str]) -> None:
    dataset = farvox.read_dataset(make_dataset(tmp_path / "data", cases=6))
    run = farvox.train(dataset, settings=TINY, epochs=1, folds=5, out=tmp_path / "run", device="cpu", progress=False)
    assert len(run.folds) == 5
    assert len(run.metrics.cases) == 6
    images = {name: count for name, count in reads.items() if name.startswith("imagesTr")}
    assert len(images) == 6
    assert max(images.values()) <= 2
    assert not (tmp_path / "run" / "cache").exists()


@pytest.mark.long
def test_recipes_of_a_comparison_share_the_cache(tmp_path: Path, reads: Counter[str]) -> None:
    dataset = farvox.read_dataset(make_dataset(tmp_path / "data", cases=4))
    farvox.compare(
        dataset,
        ["default", "quick"],
        settings=TINY,
        epochs=1,
        folds=2,
        fold=0,
        out=tmp_path / "both",
        device="cpu",
        progress=False,
    )
    # The folds are trained in processes of their own, which find every case in the cache.
    assert max(count for name, count in reads.items() if name.startswith("imagesTr")) == 1
    assert not (tmp_path / "both" / "cache").exists()


def _cache(tmp_path: Path) -> tuple[CaseCache, farvox.Dataset, Messages]:
    dataset = farvox.read_dataset(make_dataset(tmp_path / "data", cases=2))
    messages = Messages()
    return CaseCache(tmp_path / "cache", dataset, messages), dataset, messages


SPACE = Preprocessing(spacing=(3, 3, 3), channels=("MRI",), intensity=(IntensityNormalization(kind="zscore"),))


def test_what_comes_from_the_cache_is_what_the_files_hold(tmp_path: Path, reads: Counter[str]) -> None:
    cache, dataset, _ = _cache(tmp_path)
    case = dataset.cases[0]
    expected = load_case(dataset, case)
    first = cache.preprocessed(case, SPACE, tmp_path / "instead")
    again = cache.preprocessed(case, SPACE, tmp_path / "instead")
    for name in ("image", "classes", "counts"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    loaded, scan = cache.load(case), cache.scan(case)
    np.testing.assert_array_equal(loaded.image, expected.image)
    np.testing.assert_array_equal(loaded.classes, expected.classes)
    assert loaded.grid.difference_to(expected.grid) is None
    assert scan.header == expected.header
    np.testing.assert_array_equal(cache.fingerprint(case).spacing, [1.5, 1.5, 2])
    assert reads["imagesTr/case_0.nii.gz"] == 2  # once for `expected`


def test_another_file_under_the_same_name_is_another_entry(tmp_path: Path) -> None:
    import nibabel as nib

    cache, dataset, _ = _cache(tmp_path)
    case = dataset.cases[0]
    before = np.array(cache.load(case).image)
    image = nib.load(case.images[0])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + 7, image.affine), case.images[0])
    np.testing.assert_array_equal(cache.load(case).image, before + 7)


@pytest.mark.parametrize("name", ["image.npy", "facts.npz", "classes.npy"])
def test_a_damaged_entry_is_made_again_with_a_message(tmp_path: Path, name: str) -> None:
    cache, dataset, messages = _cache(tmp_path)
    case = dataset.cases[0]
    expected = np.array(cache.load(case).image)
    (file,) = (tmp_path / "cache").glob(f"*/{name}")
    file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_array_equal(cache.load(case).image, expected)
    assert messages.lines == ["note: the cache of case case_0 is damaged; its files are read again"]
    np.testing.assert_array_equal(cache.load(case).image, expected)
    assert len(messages.lines) == 1


def test_a_cache_that_cannot_be_written_is_bypassed_with_a_message(tmp_path: Path) -> None:
    cache, dataset, messages = _cache(tmp_path)
    (tmp_path / "cache").write_text("a file where the folder would be", encoding="utf-8")
    for case in dataset:
        assert cache.preprocessed(case, SPACE, tmp_path / "instead").shape == (10, 9, 11)
    assert len(messages.lines) == 1
    assert messages.lines[0].startswith(f"note: cannot write the cache {tmp_path / 'cache'}")
