"""Griffe extension: examples that start with `>>>` are shown as code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\n).*)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Puts examples outside "Examples" sections between fences."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object that was collected."""
        if obj.docstring:
            fenced = _EXAMPLE.sub(
                lambda match: f"```pycon\n{match[0]}\n```", obj.docstring.value
            )
            fenced = re.sub(r" *# doctest: .*", "", fenced)
            obj.docstring.value = fenced
