"""Evaluations and knobs of every method, and presets. How they were chosen: docs/defaults.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# --- Defaults: evaluations and knobs of (method, sampler), then what differs for (method, task). How the
# --- numbers were chosen: docs/defaults.md, of the baselines: docs/baselines.md.
Values = dict[str, Any]
DEFAULT_METHOD, DEFAULT_SAMPLER = "dmps", "ddpm"
_DDPM: Values = {"nfe": 30, "spacing": "quadratic"}
_FLOW: Values = {"nfe": 50, "spacing": "uniform"}

DEFAULTS: dict[tuple[str, str], Values] = {
    ("dmps", "ddpm"): _DDPM | {"weight": 1.75, "score_at": "x_t", "cap": 1.0},
    ("dmps", "flow"): _FLOW | {"weight": 2.0, "score_at": "x_t", "cap": 1.0},
    ("dmps-tweedie", "ddpm"): _DDPM | {"weight": 1.0},
    ("dmps-tweedie", "flow"): _FLOW | {"weight": 1.0},
    ("dps", "ddpm"): _DDPM | {"zeta": "search"},
    ("dps", "flow"): _FLOW | {"zeta": "search"},
    ("pgdm", "ddpm"): _DDPM | {"weight": 1.0, "guidance": "published"},
    ("pgdm", "flow"): _FLOW | {"weight": 1.0, "guidance": "published"},
    ("ot-ode", "flow"): _FLOW | {"gamma": "sqrt", "x_init": "inverse"},
    ("ddrm", "ddpm"): _DDPM | {"eta": 0.85},
    ("ddrm", "flow"): _FLOW | {"eta": 0.85},
    ("ddnm", "ddpm"): _DDPM | {"eta": 0.85},
    ("ddnm", "flow"): _FLOW | {"eta": 0.85},
    ("diffpir", "ddpm"): _DDPM | {"zeta": 1.0, "prior_weight": 1.0},
    ("diffpir", "flow"): _FLOW | {"zeta": 1.0, "prior_weight": 1.0},
}

BLURS = ("deblur", "deblur-gauss", "deblur-aniso", "motion", "blur")

TASK_DEFAULTS: dict[tuple[str, str], Values] = {
    **{("dmps", blur): {"weight": 1.0} for blur in BLURS},
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

    DMPS with the paper's lambda and no cap, the baselines as their authors have them (docs/baselines.md).
    """
    rows: dict[tuple[str, str], Values] = {}
    for method, sampler in DEFAULTS:
        rows[method, sampler] = {"nfe": {"ddpm": 1000, "flow": 50}[sampler], "spacing": "uniform"}
    for sampler, weight in (("ddpm", 1.75), ("flow", 2.0)):
        rows["dmps", sampler] |= {"weight": weight, "cap": None}
        rows["diffpir", sampler] |= {"zeta": 0.1, "prior_weight": 0.25}
        rows["dps", sampler] |= {"zeta": 0.3}
    rows["pgdm", "ddpm"] |= {"guidance": "bayes"}
    rows["ot-ode", "flow"] |= {"gamma": "1", "x_init": "adjoint"}
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
        tasks={
            (method, sampler, "inpaint"): {"zeta": zeta}
            for method, zeta in (("dps", 0.5), ("diffpir", 1.0))
            for sampler in ("ddpm", "flow")
        },
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
