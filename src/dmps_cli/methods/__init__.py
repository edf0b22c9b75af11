"""The table of methods, their knobs and their defaults; names only, no torch until one is built."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dmps_cli.errors import UsageError, unknown_name
from dmps_cli.schedules import SAMPLERS, SPACINGS

if TYPE_CHECKING:
    from torch import Tensor

    from dmps_cli.methods.posterior import Posterior
    from dmps_cli.operators.base import LinearOperator
    from dmps_cli.priors import Prior

    Build = Callable[[Prior, LinearOperator, Tensor, float, float, Mapping[str, Any]], Posterior]

Check = Callable[[str, Any], Any]
"""(option, value) -> the value as the method takes it. Raises UsageError."""


# --- Knobs: what can be turned, and what a value may be


@dataclass(frozen=True, kw_only=True)
class Knob:
    """A row of KNOBS: how a knob is called and explained on the command line."""

    option: str
    metavar: str
    help: str

    @property
    def label(self) -> str:
        """Its name in tables and JSON: the option's, as an identifier."""
        return self.option.lstrip("-").replace("-", "_")


LARGEST = 3.4e38
"""The largest number of float32, in which the methods compute."""

SCORE_AT = ("x_t", "sample", "x0")
GAMMAS = ("1", "sqrt")

KNOBS = {
    "weight": Knob(option="--lambda", metavar="X", help="Weight of the likelihood score."),
    "score_at": Knob(
        option="--score-at",
        metavar="|".join(SCORE_AT),
        help="Where the likelihood score is taken: before the prior's step, as the paper has it, at the sample after "
        "it, as the authors' code has it, or at x0, the measurement's noise counted, for few evaluations.",
    ),
    "cap": Knob(
        option="--cap",
        metavar="X|none",
        help="Largest factor by which one likelihood step may move a measured mode towards the data (above 1 it "
        "overshoots); none: as the paper has it.",
    ),
    "zeta": Knob(
        option="--zeta",
        metavar="X",
        help="dps: length of the step along the gradient; diffpir: share of the noise that is drawn afresh, 0 to 1.",
    ),
    "eta": Knob(
        option="--eta", metavar="X", help="Share of fresh noise where nothing was measured, 0 (none) to 1 (ancestral)."
    ),
    "eta_y": Knob(
        option="--eta-y", metavar="X", help="dmps at x0: share of fresh noise where something was measured, 0 to 1."
    ),
    "gamma": Knob(
        option="--gamma",
        metavar="|".join(GAMMAS),
        help="Weight of the score: 1, or sqrt(s / (s^2 + (1 - s)^2)), s the share of data.",
    ),
}


def _number(option: str, value: str | float, what: str, is_right: Callable[[float], bool]) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not abs(number) <= LARGEST or not is_right(number):
        raise UsageError(f"{option} is {value}; it must be {what}")
    return number


def _non_negative(option: str, value: str | float) -> float:
    return _number(option, value, "a non-negative number", lambda number: number >= 0.0)


def _share(option: str, value: str | float) -> float:
    return _number(option, value, "a number from 0 to 1", lambda number: 0.0 <= number <= 1.0)


def _share_or_none(option: str, value: str | float | None) -> float | None:
    return None if value is None else _share(option, value)


def _positive_or_none(option: str, value: str | float | None) -> float | None:
    if value in (None, "none"):
        return None
    assert value is not None
    return _number(option, value, "a positive number, or none", lambda number: number > 0.0)


def _one_of(choices: tuple[str, ...]) -> Callable[[str, str], str]:
    def check(option: str, value: str) -> str:
        if value not in choices:
            raise UsageError(f"{option} is '{value}'; choose one of {', '.join(choices)}")
        return value

    return check


# --- Methods


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of METHODS. build(prior, op, y, sigma_y, eta, knobs) wraps the prior into a posterior denoiser.

    knobs: what it takes of KNOBS, each with its check. start: share of data where its flow levels begin; None: they
    begin in pure noise. needs_modes: whether the operator must know its singular value decomposition. back_propagates:
    whether a step goes back through the network, which takes time and memory.
    """

    help: str
    knobs: Mapping[str, Check]
    build: Build
    start: float | None = None
    needs_modes: bool = False
    back_propagates: bool = False


def _lazily(module: str, name: str, *, takes_eta: bool = False) -> Build:
    """Builds the class of that name in methods/MODULE.py, imported then; takes_eta: it asks for the sampler's eta."""

    def build(
        prior: Prior, op: LinearOperator, y: Tensor, sigma_y: float, eta: float, knobs: Mapping[str, Any]
    ) -> Posterior:
        kind = getattr(import_module(f"dmps_cli.methods.{module}"), name)
        posterior: Posterior = kind(prior, op, y, sigma_y, *([eta] if takes_eta else []), **knobs)
        return posterior

    return build


def _dmps(
    prior: Prior, op: LinearOperator, y: Tensor, sigma_y: float, eta: float, knobs: Mapping[str, Any]
) -> Posterior:
    if knobs["score_at"] == "x0":
        from dmps_cli.methods.counted import CountedDmps, ReflectedDmps

        kind = ReflectedDmps if op.modes is None else CountedDmps
        return kind(prior, op, y, sigma_y, weight=knobs["weight"], eta=knobs["eta"], eta_y=knobs["eta_y"])
    from dmps_cli.methods.dmps import Dmps, DmpsOptions

    options = DmpsOptions(weight=knobs["weight"], score_at=knobs["score_at"], cap=knobs["cap"])
    return Dmps(prior, op, y, sigma_y, eta, options)


METHODS = {
    "dmps": Method(
        help="closed-form likelihood score, no back-propagation (Meng & Kabashima 2024)",
        knobs={
            "weight": _non_negative,
            "score_at": _one_of(SCORE_AT),
            "cap": _positive_or_none,
            "eta": _share_or_none,
            "eta_y": _share_or_none,
        },
        build=_dmps,
    ),
    "dmps-tweedie": Method(
        help="dmps with the mean of the paper's Appendix A kept: the likelihood at x0",
        knobs={"weight": _non_negative},
        build=_lazily("tweedie", "DmpsTweedie"),
    ),
    "dps": Method(
        help="gradient of the residual's norm through the network (Chung et al. 2023)",
        knobs={"zeta": _non_negative},
        build=_lazily("dps", "Dps", takes_eta=True),
        back_propagates=True,
    ),
    "pgdm": Method(
        help="pseudo-inverse guidance through the network (Song et al. 2023); on flow levels: ot-ode",
        knobs={"weight": _non_negative},
        build=_lazily("pgdm", "Pgdm"),
        back_propagates=True,
    ),
    "ot-ode": Method(
        help="pgdm on the flow ODE, started from the measurement (Pokle et al. 2024)",
        knobs={"gamma": _one_of(GAMMAS)},
        build=_lazily("ot_ode", "OtOde"),
        start=0.2,
        back_propagates=True,
    ),
    "ddrm": Method(
        help="mode by mode in the operator's SVD (Kawar et al. 2022)",
        knobs={"eta": _share},
        build=_lazily("ddrm", "Ddrm"),
        needs_modes=True,
    ),
    "ddnm": Method(
        help="DDNM+: the range of A^+ from the measurement (Wang et al. 2023)",
        knobs={"eta": _share},
        build=_lazily("ddnm", "Ddnm"),
        needs_modes=True,
    ),
    "diffpir": Method(
        help="a proximal step on the measurement between denoisings (Zhu et al. 2023)",
        knobs={"zeta": _share},
        build=_lazily("diffpir", "Diffpir"),
    ),
}


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
    """Evaluations and spacing of the paper's tables for all methods; DMPS with the paper's lambda and no cap."""
    rows: dict[tuple[str, str], Values] = {}
    for method, sampler in DEFAULTS:
        rows[method, sampler] = {"nfe": {"ddpm": 1000, "flow": 50}[sampler], "spacing": "uniform"}
    for sampler, weight in (("ddpm", 1.75), ("flow", 2.0)):
        rows["dmps", sampler] |= {"weight": weight, "cap": None}
        rows["diffpir", sampler] |= {"zeta": 0.25}
    return rows


def _fast() -> dict[tuple[str, str], Values]:
    """20 evaluations for all methods; DMPS with the likelihood at x0, on DDPM levels alone (docs/defaults.md)."""
    rows: dict[tuple[str, str], Values] = {key: {"nfe": 20} for key in DEFAULTS if key != ("dmps", "flow")}
    rows["dmps", "ddpm"] |= {"spacing": "quadratic", **_AT_X0}
    return rows


_AT_X0: Values = {"weight": 3.0, "score_at": "x0", "cap": None, "eta": 0.85, "eta_y": 1.0}
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


def as_typed(value: object) -> str:
    """A value as it is typed in an option: none, 1, 0.05."""
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """A complete choice of method, sampler and knobs; `knobs` are those of the method's row."""

    method: str
    sampler: str
    nfe: int
    spacing: str
    knobs: Mapping[str, Any]

    def labelled(self) -> dict[str, Any]:
        """The knobs under their options' names."""
        shown = {name: value for name, value in self.knobs.items() if value is not None or name == "cap"}
        return {KNOBS[name].label: value for name, value in shown.items()}

    @property
    def caution(self) -> str:
        """What to expect of too few evaluations of DMPS; empty if they are enough."""
        few = SAMPLERS[self.sampler].few
        if self.method != DEFAULT_METHOD or self.nfe >= few:
            return ""
        return f"fewer than {few} evaluations on {self.sampler} levels leave noise in the picture (docs/defaults.md)"

    def as_dict(self) -> dict[str, Any]:
        """For sidecars and JSON."""
        flat = asdict(self)
        del flat["knobs"]
        return {**flat, **self.labelled()}

    def __str__(self) -> str:
        knobs = "".join(f", {label} {as_typed(value)}" for label, value in self.labelled().items())
        return f"{self.method}, {self.sampler} levels ({self.spacing}), NFE {self.nfe}{knobs}"


def resolve_sampling(
    *,
    task: str | None = None,
    method: str | None = None,
    sampler: str | None = None,
    own_sampler: str | None = None,
    nfe: int | None = None,
    spacing: str | None = None,
    preset: str | None = None,
    knobs: Mapping[str, Any] | None = None,
) -> Sampling:
    """Fills what is open (None) from the tables of defaults, for a task if it is named, and checks the rest.

    own_sampler: the prior's, taken where `sampler` is open and the method has it. knobs: by their names in KNOBS; a cap
    may be 'none'. Raises UsageError for unknown names, values out of range and knobs that the method does not have.
    """
    method, preset = method or DEFAULT_METHOD, preset or DEFAULT_PRESET
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    sampler = _sampler(method, sampler, own_sampler)
    given = {name: value for name, value in (knobs or {}).items() if value is not None}
    for name in given:
        if name not in METHODS[method].knobs:
            raise UsageError(
                f"method '{method}' takes no {KNOBS[name].option}; it belongs to {', '.join(takers(name))}"
            )
    defaults = DEFAULTS[method, sampler] | TASK_DEFAULTS.get((method, task or ""), {})
    defaults |= _of_preset(preset, method, sampler)
    defaults |= PRESETS[preset].tasks.get((method, sampler, task or ""), {})
    evaluations = _evaluations(defaults["nfe"] if nfe is None else nfe, sampler)
    chosen = _OPEN | defaults | _at_nfe(method, sampler, task, evaluations) | given
    if method == "dmps" and chosen["score_at"] == "x0":
        chosen = chosen | {name: _AT_X0[name] for name in ("eta", "eta_y") if chosen[name] is None}
    elif method == "dmps":
        for name in ("eta", "eta_y"):
            if chosen[name] is not None:
                raise UsageError(f"{KNOBS[name].option} belongs to --score-at x0 in dmps")
    return Sampling(
        method=method,
        sampler=sampler,
        nfe=evaluations,
        spacing=_spacing(spacing or defaults["spacing"], sampler),
        knobs={name: check(KNOBS[name].option, chosen[name]) for name, check in METHODS[method].knobs.items()},
    )


def _of_preset(preset: str, method: str, sampler: str) -> Values:
    """What it sets for a method and sampler. Raises UsageError if they have no such preset."""
    values = PRESETS[preset].values
    if values is None:
        return {}
    if (method, sampler) not in values:
        others = " or ".join(other for name, other in values if name == method)
        raise UsageError(
            f"--preset {preset} of {method} is for {others} levels, not {sampler}: leave {sampler} out, or take --nfe "
            "20 without a preset"
        )
    return values[method, sampler]


_OPEN: Values = {"eta": None, "eta_y": None}
"""Knobs that a method may leave alone."""


def takers(knob: str) -> list[str]:
    """The methods that have a knob."""
    return [name for name, row in METHODS.items() if knob in row.knobs]


def samplers_of(method: str) -> list[str]:
    """The samplers on whose levels a method is defined. Raises UsageError for an unknown one."""
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    return [sampler for sampler in SAMPLERS if (method, sampler) in DEFAULTS]


def build_posterior(sampling: Sampling, prior: Prior, op: LinearOperator, y: Tensor, sigma_y: float) -> Posterior:
    """The method around the prior, as chosen. Raises UsageError if it needs an SVD that the operator has not."""
    row = METHODS[sampling.method]
    if row.needs_modes and op.modes is None:
        others = ", ".join(name for name, other in METHODS.items() if not other.needs_modes)
        raise UsageError(
            f"method '{sampling.method}' needs a singular value decomposition, which this operator has not; choose one "
            f"of {others}"
        )
    return row.build(prior, op, y, sigma_y, SAMPLERS[sampling.sampler].eta, sampling.knobs)


def _sampler(method: str, sampler: str | None, own_sampler: str | None) -> str:
    defined = samplers_of(method)
    if sampler is None:
        return next((name for name in (own_sampler, DEFAULT_SAMPLER) if name in defined), defined[0])
    if sampler not in SAMPLERS:
        raise unknown_name("sampler", sampler, SAMPLERS)
    if sampler not in defined:
        raise UsageError(f"method '{method}' is not defined on {sampler} levels; take --sampler {defined[0]}")
    return sampler


def _at_nfe(method: str, sampler: str, task: str | None, nfe: int) -> Values:
    """The knobs that depend on the number of evaluations: between the numbers of the table by log-log interpolation."""
    rows = BY_NFE.get((method, sampler, task or ANY_TASK)) or BY_NFE.get((method, sampler, ANY_TASK), {})
    return {knob: _interpolated(table, nfe) for knob, table in rows.items()}


def _interpolated(table: Mapping[int, float], nfe: int) -> float:
    """The table's value at nfe, its nearest end's outside it, to four figures."""
    known = sorted(table)
    place = bisect_left(known, nfe)
    if place in (0, len(known)) or known[place] == nfe:
        return table[known[min(place, len(known) - 1)]]
    low, high = known[place - 1], known[place]
    share = math.log(nfe / low) / math.log(high / low)
    return float(f"{table[low] * (table[high] / table[low]) ** share:.4g}")


def _evaluations(nfe: int, sampler: str) -> int:
    most = SAMPLERS[sampler].max_nfe
    if not 1 <= nfe <= most:
        raise UsageError(f"--nfe is {nfe}; it must be from 1 to {most} on {sampler} levels")
    return nfe


def _spacing(spacing: str, sampler: str) -> str:
    _one_of(SPACINGS)("--spacing", spacing)
    if spacing not in SAMPLERS[sampler].spacings:
        raise UsageError(f"--spacing {spacing}: {sampler} levels are {' or '.join(SAMPLERS[sampler].spacings)}")
    return spacing
