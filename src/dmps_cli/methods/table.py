"""The table of methods; names only, no torch until one is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dmps_cli.checks import Rule, choice, or_none
from dmps_cli.methods.knobs import (
    GAMMAS,
    GUIDANCE,
    LENGTH_OR_SEARCH,
    NON_NEGATIVE,
    POSITIVE,
    SCORE_AT,
    SEARCH,
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

    knobs: what it takes of KNOBS, each with its rule. start: share of data where its flow levels begin; None: they
    begin in pure noise. needs_modes: whether the operator must know its singular value decomposition. back_propagates:
    whether a step goes back through the network, which takes time and memory.
    """

    help: str
    knobs: Mapping[str, Rule[Any]]
    build: Build
    start: float | None = None
    needs_modes: bool = False
    back_propagates: bool = False


def _lazily(module: str, name: str, *, takes_eta: bool = False) -> Build:
    """Builds the class of that name in methods/MODULE.py, imported then; takes_eta: it asks for the sampler's eta."""

    def build(prior: Prior, measurement: Measurement, sampler_eta: float, knobs: Mapping[str, Any]) -> Posterior:
        kind = getattr(import_module(f"dmps_cli.methods.{module}"), name)
        of_sampler = {"sampler_eta": sampler_eta} if takes_eta else {}
        posterior: Posterior = kind(prior, measurement, **knobs, **of_sampler)
        return posterior

    return build


def _dmps(prior: Prior, measurement: Measurement, sampler_eta: float, knobs: Mapping[str, Any]) -> Posterior:
    """Returns the form of DMPS that score_at says, with its knobs."""
    if knobs["score_at"] == "x0":
        form = ("counted", "ReflectedDmps" if measurement.op.modes is None else "CountedDmps")
        taken = ("weight", "eta", "eta_y")
    else:
        form, taken = ("dmps", "Dmps"), ("weight", "score_at", "cap")
    build = _lazily(*form, takes_eta=form == ("dmps", "Dmps"))
    return build(prior, measurement, sampler_eta, {name: knobs[name] for name in taken})


def _dps(prior: Prior, measurement: Measurement, sampler_eta: float, knobs: Mapping[str, Any]) -> Posterior:
    """Returns DPS with a line search, or with its authors' constant zeta."""
    if knobs["zeta"] == SEARCH:
        return _lazily("dps", "LineSearchDps", takes_eta=True)(prior, measurement, sampler_eta, {})
    return _lazily("dps", "Dps", takes_eta=True)(prior, measurement, sampler_eta, knobs)


METHODS = {
    "dmps": Method(
        help="closed-form likelihood score, no back-propagation (Meng & Kabashima 2024)",
        knobs={
            "weight": NON_NEGATIVE,
            "score_at": choice(SCORE_AT),
            "cap": or_none(POSITIVE, "none"),
            "eta": or_none(SHARE),
            "eta_y": or_none(SHARE),
        },
        build=_dmps,
    ),
    "dmps-tweedie": Method(
        help="dmps with the mean of the paper's Appendix A kept: the likelihood at x0",
        knobs={"weight": NON_NEGATIVE},
        build=_lazily("tweedie", "DmpsTweedie"),
    ),
    "dps": Method(
        help="gradient of the residual's norm through the network (Chung et al. 2023)",
        knobs={"zeta": LENGTH_OR_SEARCH},
        build=_dps,
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


def takers(knob: str) -> list[str]:
    """Returns the methods that have a knob."""
    return [name for name, row in METHODS.items() if knob in row.knobs]
