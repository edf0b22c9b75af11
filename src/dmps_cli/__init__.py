"""Image restoration by diffusion-model posterior sampling (DMPS, Meng & Kabashima, ACML 2024).

The public functions are `degrade` and `restore` (dmps_cli.pipeline) and `evaluate` (dmps_cli.evaluation). They are
imported when first used, so that `import dmps_cli` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "degrade", "evaluate", "restore"]
_HOMES = {"degrade": "pipeline", "restore": "pipeline", "evaluate": "evaluation"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
