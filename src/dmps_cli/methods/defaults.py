"""Evaluations and knobs of every method, and presets. How they were chosen: docs/defaults.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# --- Defaults: evaluations and knobs of (method, sampler), then what differs for (method, sampler, task). How the
# --- numbers were chosen: docs/defaults.md, of the baselines: docs/baselines.md.
Values = dict[str, Any]
DEFAULT_METHOD, DEFAULT_SAMPLER = "dmps", "ddpm"  # the method: its first form that takes what is given
_DDPM: Values = {"nfe": 30, "spacing": "quadratic"}
_FLOW: Values = {"nfe": 50, "spacing": "uniform"}
_AT_X0: Values = {"variance_factor": 3.0, "eta": 0.85, "eta_y": 1.0, "mean_of": None}
_AT_X0_FLAT: Values = {"variance_factor": 1.0, "eta": 1.0, "eta_y": 0.8}
"""Where all singular values are equal: what is measured is known well, and noise drawn anew fills the rest best."""

DEFAULTS: dict[tuple[str, str], Values] = {
    ("dmps (x0)", "ddpm"): _DDPM | _AT_X0 | {"nfe": 20},
    ("dmps (x0)", "flow"): _FLOW | _AT_X0 | {"nfe": 20},
    ("dmps (x_t)", "ddpm"): _DDPM | {"weight": 1.75, "cap": 1.0},
    ("dmps (x_t)", "flow"): _FLOW | {"weight": 2.0, "cap": 1.0},
    ("dmps (sample)", "ddpm"): _DDPM | {"weight": 1.75, "cap": 1.0},
    ("dmps (sample)", "flow"): _FLOW | {"weight": 2.0, "cap": 1.0},
    ("dmps-tweedie", "ddpm"): _DDPM | {"weight": 1.0},
    ("dmps-tweedie", "flow"): _FLOW | {"weight": 1.0},
    ("dps (line search)", "ddpm"): _DDPM,
    ("dps (line search)", "flow"): _FLOW,
    ("dps (authors)", "ddpm"): _DDPM | {"zeta": 0.3},
    ("dps (authors)", "flow"): _FLOW | {"zeta": 0.3},
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

SAMPLERS = ("ddpm", "flow")

TASK_DEFAULTS: dict[tuple[str, str, str], Values] = {
    **{("dmps (x0)", sampler, task): _AT_X0_FLAT for sampler in SAMPLERS for task in ("inpaint", "cs")},
    **{("dmps (x0)", sampler, "denoise"): {"variance_factor": 1.5} for sampler in SAMPLERS},
    **{("dmps (x0)", sampler, "colorize"): {"eta": 1.0} for sampler in SAMPLERS},
    **{("dps (authors)", sampler, "inpaint"): {"zeta": 0.5} for sampler in SAMPLERS},
    **{
        (f"dmps ({at})", sampler, blur): {"weight": 1.0}
        for at in ("x_t", "sample")
        for sampler in SAMPLERS
        for blur in BLURS
    },
}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A row of PRESETS: what it sets per (method, sampler), over DEFAULTS and TASK_DEFAULTS, and per task over that.

    A method that `values` lacks has no such preset; None: nothing is set for any.
    """

    help: str
    values: Mapping[tuple[str, str], Values] | None
    tasks: Mapping[tuple[str, str, str], Values] = field(default_factory=dict)  # by (method, sampler, task)

    def has(self, method: str) -> bool:
        """Returns whether it is defined for a method."""
        return self.values is None or any(method == name for name, _ in self.values)


def _paper() -> dict[tuple[str, str], Values]:
    """Returns evaluations and spacing of the paper's tables for all methods but those that the paper has not.

    DMPS with the paper's lambda and no cap, the baselines as their authors have them (docs/baselines.md).
    """
    rows: dict[tuple[str, str], Values] = {}
    for method, sampler in DEFAULTS:
        if method not in ("dmps (x0)", "dps (line search)"):
            rows[method, sampler] = {"nfe": {"ddpm": 1000, "flow": 50}[sampler], "spacing": "uniform"}
    for sampler, weight in (("ddpm", 1.75), ("flow", 2.0)):
        for at in ("x_t", "sample"):
            rows[f"dmps ({at})", sampler] |= {"weight": weight, "cap": None}
        rows["diffpir", sampler] |= {"zeta": 0.1, "prior_weight": 0.25}
    rows["pgdm", "ddpm"] |= {"guidance": "bayes"}
    rows["ot-ode", "flow"] |= {"gamma": "1", "x_init": "adjoint"}
    return rows


PRESETS = {
    "default": Preset(help="what we would choose", values=None),
    "fast": Preset(help="10 evaluations", values={key: {"nfe": 10} for key in DEFAULTS}),
    "paper": Preset(
        help="the paper's: 1000 evaluations on uniform DDPM levels or 50 on flow levels, dmps with its score at x_t, "
        "lambda 1.75 or 2, no cap",
        values=_paper(),
        tasks={("diffpir", sampler, "inpaint"): {"zeta": 1.0} for sampler in SAMPLERS},
    ),
}

DEFAULT_PRESET = "default"

# --- What dmps at x0 is to be good at: knobs over those of the preset, per sampler, then per task.
DEFAULT_FAVOUR = "balance"
ANY_TASK = "*"


@dataclass(frozen=True, kw_only=True)
class Favour:
    """A row of FAVOURS: the knobs that it sets, by (sampler, task), ANY_TASK for the tasks without a row.

    draws: whether what it gives is a draw from the posterior, of which several are worth having.
    """

    help: str
    knobs: Mapping[tuple[str, str], Values]
    draws: bool = True

    def at(self, sampler: str, task: str) -> Values:
        """Returns the knobs for a task on a sampler's levels."""
        return self.knobs.get((sampler, task)) or self.knobs.get((sampler, ANY_TASK), {})


FAVOURED = "dmps (x0)"
FAVOURS = {
    "psnr": Favour(
        help="all noise fresh; in denoising and colorization the mean of two samples of half the evaluations",
        draws=False,
        knobs={
            **{(sampler, ANY_TASK): {"eta": 1.0} for sampler in SAMPLERS},
            **{(sampler, "denoise"): {"variance_factor": 1.0, "mean_of": 2} for sampler in SAMPLERS},
            **{(sampler, "colorize"): {"eta": 1.0, "mean_of": 2} for sampler in SAMPLERS},
        },
    ),
    "balance": Favour(help="a sample, as the presets have it", knobs={}),
    "perception": Favour(
        help="less fresh noise, and more of the measurement's own grain",
        knobs={
            **{(sampler, "denoise"): {"variance_factor": 3.0} for sampler in SAMPLERS},
        },
    ),
}
