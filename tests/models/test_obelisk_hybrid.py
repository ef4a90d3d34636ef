"""The hybrid OBELISK network: its options. What the published weights answer is in tests/bundle/test_published.py."""

from __future__ import annotations

import pytest
import torch

from farvox import create_model
from farvox.errors import ModelError


def test_compat_changes_the_sampling() -> None:
    torch.manual_seed(0)
    ours = create_model("obelisk-hybrid", classes=3)
    published = create_model("obelisk-hybrid", classes=3, compat="published")
    published.load_state_dict(ours.state_dict())
    image = torch.randn(1, 1, 24, 24, 24)
    with torch.no_grad():
        difference = (ours.eval()(image) - published.eval()(image)).abs().max()
    assert difference > 1e-4


@pytest.mark.parametrize("option", [{"variant": "brats"}, {"compat": "pulished"}])
def test_unknown_choice(option: dict[str, str]) -> None:
    with pytest.raises(ModelError, match="expected: "):
        create_model("obelisk-hybrid", **option)
