"""The table of methods; names only, no torch until one is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dmps_cli.checks import Rule, choice, or_none, whole
from dmps_cli.errors import unknown_name
from dmps_cli.methods.knobs import (
    GAMMAS,
    GUIDANCE,
    MAX_MEAN_OF,
    NON_NEGATIVE,
    POSITIVE,
    SCORE_AT,
    SHARE,
    X_INITS,
)

if TYPE_CHECKING:
    from dmps_cli.methods.posterior import Posterior
    from dmps_cli.operators.measurement import Measurement
    from dmps_cli.priors import Prior

    Build = Callable[[Prior, Measurement, float, Mapping[str, Any]], Posterior]


# --- Methods
@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of METHODS. build(prior, measurement, sampler_eta, knobs) makes a posterior denoiser of them.

    A name may have a form in parentheses: forms of one method that differ in formula. knobs: what it takes of KNOBS,
    each with its rule; fixed: of those, what names the form. start: share of data where its flow levels begin; None:
    they begin in pure noise. needs_modes: whether the operator must know its singular value decomposition.
    back_propagates: whether a step goes back through the network, which takes time and memory.
    """

    help: str
    knobs: Mapping[str, Rule[Any]]
    build: Build
    fixed: Mapping[str, str] = field(default_factory=dict)
    start: float | None = None
    needs_modes: bool = False
    back_propagates: bool = False

    def takes(self, given: Mapping[str, Any]) -> bool:
        """Returns whether it has all these knobs, those that name a form with its own value."""
        return given.keys() <= self.knobs.keys() and all(
            given.get(name, form) == form for name, form in self.fixed.items()
        )


def _lazily(module: str, name: str, *, takes_eta: bool = False) -> Build:
    """Builds the class of that name in methods/MODULE.py, imported then; takes_eta: it asks for the sampler's eta."""

    def build(prior: Prior, measurement: Measurement, sampler_eta: float, knobs: Mapping[str, Any]) -> Posterior:
        kind = getattr(import_module(f"dmps_cli.methods.{module}"), name)
        of_sampler = {"sampler_eta": sampler_eta} if takes_eta else {}
        posterior: Posterior = kind(prior, measurement, **knobs, **of_sampler)
        return posterior

    return build


def _counted(prior: Prior, measurement: Measurement, sampler_eta: float, knobs: Mapping[str, Any]) -> Posterior:
    """Returns DMPS at x0: mode by mode where the operator has modes, else by solves alone."""
    name = "ReflectedDmps" if measurement.op.modes is None else "CountedDmps"
    taken = {knob: knobs[knob] for knob in ("variance_factor", "eta", "eta_y")}
    return _lazily("counted", name)(prior, measurement, sampler_eta, taken)


def _by_score(score_at: str) -> Method:
    """Returns DMPS with the paper's likelihood score, taken at x_t (Algorithms 1 and 2) or at the sample after."""
    return Method(
        help=f"closed-form likelihood score at {score_at}, no back-propagation (Meng & Kabashima 2024)",
        knobs={"weight": NON_NEGATIVE, "score_at": choice(SCORE_AT), "cap": or_none(POSITIVE, "none")},
        fixed={"score_at": score_at},
        build=_lazily("dmps", "Dmps", takes_eta=True),
    )


METHODS = {
    "dmps (x0)": Method(
        help="the same likelihood at x0, the measurement's own noise counted, for few evaluations",
        knobs={
            "score_at": choice(SCORE_AT),
            "variance_factor": NON_NEGATIVE,
            "eta": SHARE,
            "eta_y": SHARE,
            "mean_of": or_none(whole(1, MAX_MEAN_OF)),
        },
        fixed={"score_at": "x0"},
        build=_counted,
    ),
    "dmps (x_t)": _by_score("x_t"),
    "dmps (sample)": _by_score("sample"),
    "dmps-tweedie": Method(
        help="dmps with the mean of the paper's Appendix A kept: the likelihood at x0",
        knobs={"weight": NON_NEGATIVE},
        build=_lazily("tweedie", "DmpsTweedie"),
    ),
    "dps (line search)": Method(
        help="dps with each step's length found by a line search, which is not its authors'",
        knobs={},
        build=_lazily("dps", "LineSearchDps", takes_eta=True),
        back_propagates=True,
    ),
    "dps (authors)": Method(
        help="gradient of the residual's norm through the network, a constant zeta (Chung et al. 2023)",
        knobs={"zeta": NON_NEGATIVE},
        build=_lazily("dps", "Dps", takes_eta=True),
        back_propagates=True,
    ),
    "pgdm": Method(
        help="pseudo-inverse guidance through the network (Song et al. 2023)",
        knobs={"weight": NON_NEGATIVE, "guidance": choice(GUIDANCE)},
        build=_lazily("pgdm", "Pgdm", takes_eta=True),
        back_propagates=True,
    ),
    "ot-ode": Method(
        help="pgdm on the flow ODE, started from the measurement (Pokle et al. 2024)",
        knobs={"gamma": choice(GAMMAS), "x_init": choice(X_INITS)},
        build=_lazily("ot_ode", "OtOde"),
        start=0.2,
        back_propagates=True,
    ),
    "ddrm": Method(
        help="mode by mode in the operator's SVD (Kawar et al. 2022)",
        knobs={"eta": SHARE},
        build=_lazily("ddrm", "Ddrm"),
        needs_modes=True,
    ),
    "ddnm": Method(
        help="DDNM+: the range of A^+ from the measurement (Wang et al. 2023)",
        knobs={"eta": SHARE},
        build=_lazily("ddnm", "Ddnm"),
        needs_modes=True,
    ),
    "diffpir": Method(
        help="a proximal step on the measurement between denoisings (Zhu et al. 2023)",
        knobs={"zeta": SHARE, "prior_weight": POSITIVE},
        build=_lazily("diffpir", "Diffpir"),
    ),
}


def family(method: str) -> str:
    """Returns the name of a method without its form: dmps of 'dmps (x0)'."""
    return method.partition(" (")[0]


FAMILIES: dict[str, tuple[str, ...]] = {
    name: tuple(method for method in METHODS if family(method) == name) for name in dict.fromkeys(map(family, METHODS))
}
"""The methods of one name; the first is taken unless a knob that it lacks is given (`choice.resolve_sampling`)."""


def forms(name: str) -> tuple[str, ...]:
    """Returns the methods that a name stands for: all forms of 'dmps', or 'dmps (x_t)' alone.

    Raises UsageError for an unknown one.
    """
    if name in METHODS:
        return (name,)
    if name not in FAMILIES:
        raise unknown_name("method", name, FAMILIES)
    return FAMILIES[name]


def takers(knob: str) -> list[str]:
    """Returns the methods that have a knob."""
    return [name for name, row in METHODS.items() if knob in row.knobs]
