"""The table of methods and their defaults; names only, no torch until one is built."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dmps_cli.errors import UsageError, unknown_name
from dmps_cli.schedules import SAMPLERS, SPACINGS

if TYPE_CHECKING:
    from torch import Tensor

    from dmps_cli.operators.base import LinearOperator
    from dmps_cli.priors import Prior
    from dmps_cli.sampling import Denoiser

    Build = Callable[[Prior, LinearOperator, Tensor, float, float, Mapping[str, Any]], Denoiser]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of METHODS. build(prior, op, y, sigma_y, eta, knobs) wraps the prior into a posterior denoiser."""

    help: str
    knobs: tuple[str, ...]
    build: Build


def _dmps(
    prior: Prior, op: LinearOperator, y: Tensor, sigma_y: float, eta: float, knobs: Mapping[str, Any]
) -> Denoiser:
    from dmps_cli.methods.dmps import Dmps, DmpsOptions

    return Dmps(prior, op, y, sigma_y, eta, DmpsOptions(**knobs))


METHODS = {
    "dmps": Method(
        help="closed-form likelihood score, no back-propagation (Meng & Kabashima 2024)",
        knobs=("weight", "score_at", "cap"),
        build=_dmps,
    ),
}

# The tables of defaults: evaluations and knobs of (method, sampler), then what differs for (method, task). How the
# numbers were chosen: docs/defaults.md.
DEFAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("dmps", "ddpm"): {"nfe": 30, "spacing": "quadratic", "weight": 1.75, "score_at": "x_t", "cap": 1.0},
    ("dmps", "flow"): {"nfe": 50, "spacing": "uniform", "weight": 2.0, "score_at": "x_t", "cap": 1.0},
}
TASK_DEFAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("dmps", blur): {"weight": 1.0} for blur in ("deblur", "deblur-gauss", "deblur-aniso", "motion")
}
DEFAULT_METHOD, DEFAULT_SAMPLER = "dmps", "ddpm"


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """A complete choice of method, sampler and knobs; `knobs` are those of the method's row."""

    method: str
    sampler: str
    nfe: int
    spacing: str
    knobs: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For sidecars and JSON; the knob `weight` under its option's name, lambda."""
        flat = asdict(self)
        knobs = {"lambda" if name == "weight" else name: value for name, value in flat.pop("knobs").items()}
        return {**flat, **knobs}

    def __str__(self) -> str:
        knobs = ", ".join(f"{name} {value}" for name, value in self.as_dict().items() if name in KNOB_LABELS)
        return f"{self.method}, {self.sampler} levels ({self.spacing}), NFE {self.nfe}, {knobs}"


KNOB_LABELS = ("lambda", "score_at", "cap")
SCORE_AT = ("x_t", "sample")


def resolve_sampling(
    *,
    task: str | None = None,
    method: str | None = None,
    sampler: str | None = None,
    nfe: int | None = None,
    spacing: str | None = None,
    weight: float | None = None,
    score_at: str | None = None,
    cap: str | float | None = None,
) -> Sampling:
    """Fills what is open (None) from the tables of defaults, for a task if it is named, and checks the rest.

    cap: a positive number, or 'none' for no cap. Raises UsageError for unknown names and values out of range.
    """
    method, sampler = method or DEFAULT_METHOD, sampler or DEFAULT_SAMPLER
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if sampler not in SAMPLERS:
        raise unknown_name("sampler", sampler, SAMPLERS)
    if (method, sampler) not in DEFAULTS:
        raise UsageError(f"method '{method}' is not defined on {sampler} levels")
    defaults = DEFAULTS[method, sampler] | TASK_DEFAULTS.get((method, task or ""), {})
    given: dict[str, Any] = {"nfe": nfe, "spacing": spacing, "weight": weight, "score_at": score_at, "cap": cap}
    chosen: dict[str, Any] = {name: defaults.get(name) if value is None else value for name, value in given.items()}
    knobs = {
        "weight": _positive("--lambda", chosen["weight"], or_zero=True),
        "score_at": _one_of("--score-at", chosen["score_at"], SCORE_AT),
        "cap": None if chosen["cap"] in (None, "none") else _positive("--cap", chosen["cap"]),
    }
    return Sampling(
        method=method,
        sampler=sampler,
        nfe=_evaluations(chosen["nfe"], sampler),
        spacing=_spacing(chosen["spacing"], sampler),
        knobs={name: knobs[name] for name in METHODS[method].knobs},
    )


def _evaluations(nfe: int, sampler: str) -> int:
    most = SAMPLERS[sampler].max_nfe
    if not 1 <= nfe <= most:
        raise UsageError(f"--nfe is {nfe}; it must be from 1 to {most} on {sampler} levels")
    return nfe


def _positive(option: str, value: str | float, *, or_zero: bool = False) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0 or (number == 0 and not or_zero):
        raise UsageError(f"{option} is {value}; it must be a {'non-negative' if or_zero else 'positive'} number")
    return number


def _spacing(spacing: str, sampler: str) -> str:
    _one_of("--spacing", spacing, SPACINGS)
    if spacing not in SAMPLERS[sampler].spacings:
        raise UsageError(f"--spacing {spacing}: {sampler} levels are {' or '.join(SAMPLERS[sampler].spacings)}")
    return spacing


def _one_of(option: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise UsageError(f"{option} is '{value}'; choose one of {', '.join(choices)}")
    return value
