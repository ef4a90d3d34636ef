"""The table of networks: quick to list, and helpful when a name or option is wrong."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from farvox.errors import ModelError
from farvox.models import create_model, list_models, model_info


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys, farvox; names = farvox.list_models(); from farvox.models import model_info;"
        "[model_info(name) for name in names]; sys.exit('torch' in sys.modules or 'unet3d' not in names)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_are_sorted_and_every_fact_is_stated() -> None:
    assert list_models() == sorted(list_models())
    for name in list_models():
        facts = model_info(name)
        assert facts.paper
        assert facts.input_requirements
        assert facts.licence == "Apache-2.0"
        assert facts.dims in (2, 3)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("unet3", {}, r"no network is called 'unet3'.*did you mean 'unet3d'\?"),
        (["unet3d"], {}, r"no network is called '\['unet3d'\]'"),
        ("unet3d", {"width": [8]}, r"'unet3d' has no option 'width'.*did you mean 'widths'\?"),
        ("unet2d", {"widths": [8]}, r"'unet2d' has no option 'widths'.*leave it out"),
        ("unet3d", {"classes": 1}, "classes=1 for 'unet3d'; expected: a whole number of at least 2"),
        ("unet3d", {"in_channels": 0}, "in_channels=0 for 'unet3d'"),
        ("unet3d", {"classes": 2.5}, "classes=2.5"),
    ],
)
def test_wrong_requests(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model(name, **arguments)
