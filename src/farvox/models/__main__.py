"""`python -m farvox.models` writes index.json, the list of shipped networks, from their decorators."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from farvox.models.registry import _REGISTRY, _builders


def index() -> str:
    """The text of index.json."""
    for file in sorted(Path(__file__).parent.glob("[!_]*.py")):
        import_module(f"farvox.models.{file.stem}")
    shipped = {path for path in _builders if path.startswith("farvox.models.")}
    networks = {
        name: asdict(info) for name, info in sorted(_REGISTRY.items.items()) if info.builder in shipped - {name}
    }
    return json.dumps(networks, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("index.json").write_text(index(), encoding="utf-8")
