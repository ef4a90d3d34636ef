"""Published checkpoints through the bundle: recorded answers, HU to network input, labels, and strangers refused."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tomllib
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from farvox import Predictor, create_model
from farvox.bundle import load_bundle
from farvox.bundle.import_obelisk import import_obelisk, read_checkpoint
from farvox.errors import BundleError, UsageError
from farvox.geometry import Grid
from farvox.preprocessing.preprocess import preprocess
from tests.conftest import real_data

TCIA = ["spleen", "pancreas", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "duodenum"]
VISCERAL = ["liver", "spleen", "bladder", "left kidney", "right kidney", "left psoas", "right psoas"]
FILES = {
    "obeliskhybrid_tcia_fold1": TCIA,
    "allconvunet_tcia_fold1": TCIA,
    "obeliskhybrid_visceral_fold1": VISCERAL,
    "obelisk_visceral_fold1": VISCERAL,
}


def weights(name: str) -> Path:
    return real_data("obelisk_original_weights") / f"{name}.pth"


def golden(name: str) -> tuple[torch.Tensor, torch.Tensor, int]:
    with np.load(real_data("obelisk_original_weights") / f"{name}_golden.npz") as file:
        image = torch.from_numpy(file["input_int8"] / file["divisor"]).float()[None, None]
        return image, torch.from_numpy(file["logits"]), int(file["stride"])


def test_the_hybrid_answers_as_recorded(tmp_path: Path) -> None:
    import_obelisk(weights("obeliskhybrid_tcia_fold1"), tmp_path / "b")
    image, expected, step = golden("obeliskhybrid_tcia_fold1")
    with torch.no_grad():
        found = Predictor.load(tmp_path / "b", device="cpu").network(image)[0, :, ::step, ::step, ::step]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_the_original_network_answers_as_recorded(tmp_path: Path) -> None:
    import_obelisk(weights("obelisk_visceral_fold1"), tmp_path / "b")
    network = Predictor.load(tmp_path / "b", device="cpu").network
    entry = load_bundle(tmp_path / "b").manifest.model
    assert entry.options["smoothing"] == [5, 5, 3]
    # The recording begins after the smoothing, which is inside our network.
    inner = create_model(entry.name, 1, 8, **(entry.options | {"smoothing": []})).eval()
    inner.load_state_dict(network.state_dict())
    image, expected, _ = golden("obelisk_visceral_fold1")
    full = F.interpolate(expected[None], size=image.shape[2:], mode="trilinear", align_corners=False)
    with torch.no_grad():
        torch.testing.assert_close(inner(image), full, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", FILES)
def test_labels_are_named_in_the_order_of_the_classes(tmp_path: Path, name: str) -> None:
    manifest = import_obelisk(weights(name), tmp_path / "b").manifest
    assert [(label.value, label.name) for label in manifest.labels] == list(enumerate(["background", *FILES[name]]))
    assert "MIT" in manifest.licence
    assert manifest.inference.patch_size is None
    assert "axis directions" in manifest.note
    lists = real_data("obelisk_original_weights") / ("TCIA_labels.txt" if "tcia" in name else "VISCERAL_labels.txt")
    published = [line.split('"')[1] for line in lists.read_text(encoding="utf-8").splitlines() if '"' in line]
    assert published[1:] == FILES[name]


@pytest.mark.parametrize(
    ("name", "hu", "wanted"),
    [
        ("obeliskhybrid_tcia_fold1", [-1024, 0, 1024, 3071], [0, 1, 2, 1 + 3071 / 1024]),
        ("allconvunet_tcia_fold1", [-1024, 0, 60, 3071], [-1024, 0, 60, 3071]),
        ("obeliskhybrid_visceral_fold1", [-1000, 0, 50, 3071], [-1, 0, 0.05, 3.071]),
        ("obelisk_visceral_fold1", [-1000, 0, 50, 3071], [-2, 0, 0.1, 6.142]),
    ],
)
def test_hounsfield_units_become_what_the_authors_fed(
    tmp_path: Path, name: str, hu: list[int], wanted: list[float]
) -> None:
    preprocessing = import_obelisk(weights(name), tmp_path / "b").manifest.preprocessing
    for value, expected in zip(hu, wanted, strict=True):
        scan = np.full((1, 12, 8, 10), value, np.int16)
        space = preprocess(scan, Grid((12, 8, 10), np.diag([3, 3, 3, 1])), preprocessing)
        np.testing.assert_allclose(space.slab(0, 2), expected, rtol=1e-5, atol=1e-6)
    shape = {"tcia": (144, 144, 144), "obelisk_v": (24, 16, 20), "hybrid_v": (12, 8, 10)}
    assert space.grid.shape == next(s for key, s in shape.items() if key in name)
    assert space.grid.axcodes == ("LAI" if "tcia" in name else "RAS")


def test_a_labelled_ct_is_segmented_where_its_organs_are(tmp_path: Path) -> None:
    """A CT with labels by another program: the liver is found on the right side, in the scan's own voxels."""
    import nibabel as nib

    folder = real_data("single_scans") / "totalsegmentator_ct"
    image, label = (nib.load(folder / f"{kind}.nii.gz") for kind in ("image", "label"))
    reference = np.asarray(label.dataobj).astype(int)
    # The box the authors ask for: tight around the organs they know.
    inside = np.argwhere(np.isin(reference, (1, 2, 3, 4, 5, 6, 7, 19)))
    low, high = np.maximum(inside.min(0) - 2, 0), inside.max(0) + 3
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    affine = image.affine.copy()
    affine[:3, 3] = (image.affine @ [*low, 1])[:3]
    scan, reference = np.asarray(image.dataobj)[box], reference[box]
    # The same scan with its axes in another order and direction.
    turned = np.flip(np.moveaxis(scan, 2, 0), 1)
    other = affine @ np.array([[0, -1, 0, scan.shape[0] - 1], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])

    import_obelisk(weights("obeliskhybrid_tcia_fold1"), tmp_path / "b")
    predictor = Predictor.load(tmp_path / "b", device="cpu")
    mask = predictor.segment(np.ascontiguousarray(turned), other)
    assert mask.shape == turned.shape
    back = np.moveaxis(np.flip(mask, 1), 0, 2)
    dice = {}
    for name, ours, theirs in (("liver", 6, 5), ("spleen", 1, 1), ("gallbladder", 4, 4)):
        found, wanted = back == ours, reference == theirs
        dice[name] = 2 * (found & wanted).sum() / (found.sum() + wanted.sum())
    assert dice["liver"] > 0.9
    assert dice["spleen"] > 0.7
    assert dice["gallbladder"] > 0.6


class _Evil:
    """Creates a file when it is unpickled without `weights_only`."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.trace}",)


def _zip_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def _truncated(path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])


def _truncated_legacy(path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-500])


FOREIGN_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "code, zip": (lambda p: torch.save({"a": _Evil(p.with_name("trace"))}, p), "a pickle with code"),
    "code, legacy": (
        lambda p: torch.save({"a": _Evil(p.with_name("trace"))}, p, _use_new_zipfile_serialization=False),
        "a pickle with code",
    ),
    "code, plain pickle": (
        lambda p: p.write_bytes(pickle.dumps(_Evil(p.with_name("trace")), 2)),
        "a pickle with code",
    ),
    "code, new pickle": (
        lambda p: p.write_bytes(pickle.dumps(_Evil(p.with_name("trace")), 5)),
        "no code in it was run",
    ),
    "whole module": (
        lambda p: torch.save(torch.nn.Linear(2, 2), p),
        "a pickle with code (torch.nn.modules.linear.Linear), which was not run",
    ),
    "missing": (lambda p: None, "no checkpoint file"),
    "folder": (lambda p: p.mkdir(), "no checkpoint file"),
    "empty": (lambda p: p.write_bytes(b""), "damaged"),
    "text": (lambda p: p.write_text("hello", encoding="utf-8"), "damaged"),
    "truncated": (_truncated, "damaged"),
    "truncated legacy": (_truncated_legacy, "damaged"),
    "zip of something else": (_zip_of_text, "damaged"),
    "list": (lambda p: torch.save([torch.zeros(2)], p), "something else than named tensors"),
    "tensor": (lambda p: torch.save(torch.zeros(2), p), "something else than named tensors"),
    "nested": (lambda p: torch.save({"state_dict": {"a": torch.zeros(2)}}, p), "something else than named tensors"),
    "other network": (lambda p: torch.save({"conv.weight": torch.zeros(2, 2)}, p), "unknown layout"),
}


@pytest.mark.parametrize("kind", FOREIGN_FILES)
def test_foreign_files_are_refused_and_their_code_is_not_run(tmp_path: Path, kind: str) -> None:
    make, word = FOREIGN_FILES[kind]
    path = tmp_path / "weights.pth"
    make(path)
    with pytest.raises(BundleError) as error:
        import_obelisk(path, tmp_path / "bundle")
    assert word in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 1
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "bundle").exists()


def test_the_code_would_run_without_weights_only(tmp_path: Path) -> None:
    torch.save({"a": _Evil(tmp_path / "trace")}, tmp_path / "weights.pth")
    torch.load(tmp_path / "weights.pth", weights_only=False)
    assert (tmp_path / "trace").exists()


def test_unfitting_and_broken_weights_are_refused(tmp_path: Path) -> None:
    state = read_checkpoint(weights("obeliskhybrid_tcia_fold1"))
    changes = {
        "shape": ({"conv0.weight": torch.zeros(4, 1, 3, 3, 2)}, "shape"),
        "nan": ({"conv0.bias": torch.full((4,), torch.nan)}, "NaN or infinite"),
        "beyond float32": ({"conv0.bias": torch.full((4,), 1e39, dtype=torch.float64)}, "NaN or infinite"),
        "variance": ({"batch0.running_var": torch.tensor([1.0, 1, 1, -1e-3])}, "negative variance"),
        "channels": ({"conv0.weight": torch.zeros(4, 2, 3, 3, 3)}, "expected"),
        "no channel": ({"conv0.weight": torch.zeros(4, 0, 3, 3, 3)}, "in_channels=0"),
        "sparse": ({"conv0.weight": state["conv0.weight"].to_sparse()}, "sparse_coo layout"),
        "quantised": ({"conv0.weight": _quantised(state["conv0.weight"])}, "quantised"),
        "meta": ({"conv0.weight": state["conv0.weight"].to("meta")}, "without values"),
        "nested": ({"conv0.weight": _nested()}, "nested"),
        "complex": ({"conv0.weight": state["conv0.weight"].to(torch.complex64)}, "of type complex64"),
        "whole numbers": ({"conv0.weight": state["conv0.weight"].to(torch.int8)}, "of type int8"),
        "count of another type": ({"batch0.num_batches_tracked": torch.tensor(True)}, "of type bool"),
        "one value for all": ({"conv77U.weight": torch.zeros(1).expand(10**7, 9, 1, 1, 1)}, "only a part"),
        "offsets a number": ({"offset1": torch.tensor(1.0)}, "'offset1' has shape"),
        "offsets empty": ({"offset1": torch.zeros(0)}, "'offset1' has shape"),
        "offsets in a row": ({"offset2": torch.zeros(1536)}, "'offset2' has shape"),
        "kernel a number": ({"linear1a.weight": torch.tensor(1.0)}, "near.weight has shape"),
        "layer a number": ({"batch0.running_var": torch.tensor(1.0)}, "running_var has shape"),
    }
    for name, (change, word) in changes.items():
        file = tmp_path / name
        torch.save({**state, **change}, file)
        with pytest.raises(BundleError, match=word) as error:
            import_obelisk(file, tmp_path / "bundle")
        assert str(error.value).startswith(f"{file}: ")
        assert "\n" not in str(error.value)
        assert error.value.exit_code == 1
        assert [entry.name for entry in tmp_path.iterdir()] == [name]
        file.unlink()


def _nested() -> torch.Tensor:
    # Torch warns that these tensors may change.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.zeros(2, 3)])


def _quantised(value: torch.Tensor) -> torch.Tensor:
    # Torch means to drop these tensors, but old files may hold them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


def test_other_precisions_and_large_weights_are_taken(tmp_path: Path) -> None:
    state = read_checkpoint(weights("obeliskhybrid_tcia_fold1"))
    counts = {key for key in state if key.endswith("num_batches_tracked")}
    assert len(counts) > 0
    double = {key: value if key in counts else value.double() for key, value in state.items()}
    torch.save(double | {"conv0.bias": torch.tensor([1e38, 0, 0, 0])}, tmp_path / "double.pth")
    network = import_obelisk(tmp_path / "double.pth", tmp_path / "b").network
    found = network.state_dict()
    assert found["encode_full.0.bias"].tolist() == [torch.tensor(1e38).item(), 0, 0, 0]
    assert torch.equal(found["encode_full.0.weight"], state["conv0.weight"])


def test_the_recipe_says_no_more_than_is_known(tmp_path: Path) -> None:
    recipe = import_obelisk(weights("obeliskhybrid_visceral_fold1"), tmp_path / "b").recipe
    assert tomllib.loads((tmp_path / "b" / "recipe.toml").read_text(encoding="utf-8")) == {
        "name": "published-obelisk-hybrid",
        "description": "Weights trained by the authors as described in their paper.",
        "source": "Heinrich, Oktay, Bouteldja: OBELISK-Net, Medical Image Analysis 54 (2019)",
        "model": {"name": "obelisk-hybrid", "options": {"variant": "visceral", "compat": "published"}},
        "patch": {"size": "whole"},
        "train": {"precision": "float32"},
    }
    assert recipe.train.precision == "float32"
    # What prediction reads of a recipe is as the published code has it.
    assert not recipe.patch.normalize


def test_the_folder_one_is_in_is_not_replaced(tmp_path: Path) -> None:
    checkpoint = weights("obeliskhybrid_tcia_fold1").resolve()
    script = "import sys; sys.argv = ['farvox', 'import-obelisk', *sys.argv[1:]]\nfrom farvox.cli import main\nmain()\n"
    for out, message in ((".", ". is the folder you are in"), ("/proc", "/proc is a mount point")):
        done = subprocess.run(
            [sys.executable, "-c", script, str(checkpoint), "--out", out],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 2
        hint = Path(out) / "bundle"
        assert done.stderr == f"error: {message}, which cannot be replaced as a whole; hint: --out {hint}\n"
    assert not list(tmp_path.iterdir())


def test_only_a_bundle_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    import_obelisk(weights("obeliskhybrid_tcia_fold1"), out)
    import_obelisk(weights("allconvunet_tcia_fold1"), out)
    assert load_bundle(out).manifest.model.name == "unet-allconv"
    (out / "thesis.docx").write_text("x", encoding="utf-8")
    for place in (out, tmp_path / "out" / "thesis.docx"):
        with pytest.raises(UsageError, match="not a bundle"):
            import_obelisk(weights("allconvunet_tcia_fold1"), place)
    assert (out / "thesis.docx").read_text(encoding="utf-8") == "x"
