"""Evaluations and knobs of every method, and presets. How they were chosen: docs/defaults.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# --- Defaults: evaluations and knobs of (method, sampler), then what differs for (method, task), then knobs that depend
# --- on (method, sampler, task) and the number of evaluations. How the numbers were chosen: docs/defaults.md.
Values = dict[str, Any]
DEFAULT_METHOD, DEFAULT_SAMPLER = "dmps", "ddpm"
_DDPM: Values = {"nfe": 30, "spacing": "quadratic"}
_FLOW: Values = {"nfe": 50, "spacing": "uniform"}

DEFAULTS: dict[tuple[str, str], Values] = {
    ("dmps", "ddpm"): _DDPM | {"weight": 1.75, "score_at": "x_t", "cap": 1.0},
    ("dmps", "flow"): _FLOW | {"weight": 2.0, "score_at": "x_t", "cap": 1.0},
    ("dmps-tweedie", "ddpm"): _DDPM | {"weight": 1.0},
    ("dmps-tweedie", "flow"): _FLOW | {"weight": 1.0},
    ("dps", "ddpm"): _DDPM,
    ("dps", "flow"): _FLOW,
    ("pgdm", "ddpm"): _DDPM | {"weight": 1.0},
    ("ot-ode", "flow"): _FLOW | {"gamma": "1"},
    ("ddrm", "ddpm"): _DDPM | {"eta": 0.85},
    ("ddrm", "flow"): _FLOW | {"eta": 0.85},
    ("ddnm", "ddpm"): _DDPM | {"eta": 0.85},
    ("ddnm", "flow"): _FLOW | {"eta": 0.85},
    ("diffpir", "ddpm"): _DDPM | {"zeta": 1.0},
    ("diffpir", "flow"): _FLOW | {"zeta": 1.0},
}

BLURS = ("deblur", "deblur-gauss", "deblur-aniso", "motion", "blur")

TASK_DEFAULTS: dict[tuple[str, str], Values] = {
    **{("dmps", blur): {"weight": 1.0} for blur in BLURS},
}

ANY_TASK = "*"

BY_NFE: dict[tuple[str, str, str], dict[str, dict[int, float]]] = {
    # DPS's zeta for images of 256 x 256 px: at 1000 evaluations its authors'; on DDPM levels the rest is climbed to by
    # PSNR with benchmarks/tune_zeta.py on a validation photograph; on flow levels on two of 128 x 128 px, and doubled.
    ("dps", "ddpm", ANY_TASK): {"zeta": {20: 48.0, 50: 22.6, 100: 12.8, 1000: 0.3}},
    **{("dps", "ddpm", blur): {"zeta": {20: 48.1, 50: 45.3, 100: 30.7, 1000: 0.3}} for blur in BLURS},
    ("dps", "ddpm", "inpaint"): {"zeta": {20: 28.3, 50: 13.2, 100: 9.46, 1000: 0.5}},
    ("dps", "flow", ANY_TASK): {"zeta": {20: 0.13, 50: 0.27}},
    **{("dps", "flow", blur): {"zeta": {20: 0.033, 50: 0.066}} for blur in BLURS},
}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A row of PRESETS: what it sets per (method, sampler), over DEFAULTS and TASK_DEFAULTS, and per task over that.

    A pair that `values` lacks has no such preset; None: nothing is set for any.
    """

    help: str
    values: Mapping[tuple[str, str], Values] | None
    tasks: Mapping[tuple[str, str, str], Values] = field(default_factory=dict)  # by (method, sampler, task)


def _paper() -> dict[tuple[str, str], Values]:
    """Returns evaluations and spacing of the paper's tables for all methods.

    DMPS with the paper's lambda and no cap.
    """
    rows: dict[tuple[str, str], Values] = {}
    for method, sampler in DEFAULTS:
        rows[method, sampler] = {"nfe": {"ddpm": 1000, "flow": 50}[sampler], "spacing": "uniform"}
    for sampler, weight in (("ddpm", 1.75), ("flow", 2.0)):
        rows["dmps", sampler] |= {"weight": weight, "cap": None}
        rows["diffpir", sampler] |= {"zeta": 0.25}
    return rows


def _fast() -> dict[tuple[str, str], Values]:
    """Returns 20 evaluations for all methods.

    DMPS with the likelihood at x0, on DDPM levels alone (docs/defaults.md).
    """
    rows: dict[tuple[str, str], Values] = {key: {"nfe": 20} for key in DEFAULTS if key != ("dmps", "flow")}
    rows["dmps", "ddpm"] |= {"spacing": "quadratic", **AT_X0}
    return rows


AT_X0: Values = {"weight": 3.0, "score_at": "x0", "cap": None, "eta": 0.85, "eta_y": 1.0}
_AT_X0_FLAT: Values = {"weight": 1.0, "eta": 1.0, "eta_y": 0.8}
"""Where all singular values are equal: what is measured is known well, and noise drawn anew fills the rest best."""

PRESETS = {
    "default": Preset(help="what we would choose", values=None),
    "paper": Preset(
        help="the paper's: 1000 evaluations on uniform DDPM levels or 50 on flow levels, lambda 1.75 or 2, no cap",
        values=_paper(),
    ),
    "fast": Preset(
        help="20 evaluations, dmps with its likelihood at x0 (DDPM levels alone)",
        values=_fast(),
        tasks={("dmps", "ddpm", task): _AT_X0_FLAT for task in ("inpaint", "cs")},
    ),
}

DEFAULT_PRESET = "default"
OPEN: Values = {"eta": None, "eta_y": None}
"""Knobs that a method may leave alone."""
