"""Posterior denoisers: a table of methods, their knobs, defaults, and one class each.

The classes are found here by name (`methods.Dmps`), and imported when first used: torch comes with them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = [
    "CountedDmps",
    "Ddnm",
    "Ddrm",
    "Diffpir",
    "Dmps",
    "DmpsTweedie",
    "Dps",
    "LineSearchDps",
    "OtOde",
    "Pgdm",
    "Posterior",
    "ReflectedDmps",
]
_HOMES = {
    "Posterior": "posterior",
    "Dmps": "dmps",
    "CountedDmps": "counted",
    "ReflectedDmps": "counted",
    "DmpsTweedie": "tweedie",
    "Dps": "dps",
    "LineSearchDps": "dps",
    "Pgdm": "pgdm",
    "OtOde": "ot_ode",
    "Ddrm": "ddrm",
    "Ddnm": "ddnm",
    "Diffpir": "diffpir",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
