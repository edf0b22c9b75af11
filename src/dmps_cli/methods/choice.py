"""A complete choice of method, sampler and knobs, from what is given and the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dmps_cli.checks import choice, whole
from dmps_cli.errors import UsageError, unknown_name
from dmps_cli.levels import SAMPLERS, SPACINGS
from dmps_cli.methods.defaults import (
    AT_X0,
    DEFAULT_METHOD,
    DEFAULT_PRESET,
    DEFAULT_SAMPLER,
    DEFAULTS,
    OPEN,
    PRESETS,
    TASK_DEFAULTS,
    Values,
)
from dmps_cli.methods.knobs import KNOBS
from dmps_cli.methods.table import METHODS, takers
from dmps_cli.tasks.table import like

if TYPE_CHECKING:
    from dmps_cli.methods.posterior import Posterior
    from dmps_cli.operators.measurement import Measurement
    from dmps_cli.priors import Prior


def as_typed(value: object) -> str:
    """Returns a value as it is typed in an option: none, 1, 0.05."""
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
        """Returns the knobs under their options' names."""
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
        """Returns what sidecars and JSON say."""
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
    task = like(task)
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
    chosen = OPEN | defaults | given
    if method == "dmps" and chosen["score_at"] == "x0":
        chosen = chosen | {name: AT_X0[name] for name in ("eta", "eta_y") if chosen[name] is None}
    elif method == "dmps":
        for name in ("eta", "eta_y"):
            if chosen[name] is not None:
                raise UsageError(f"{KNOBS[name].option} belongs to --score-at x0 in dmps")
    return Sampling(
        method=method,
        sampler=sampler,
        nfe=evaluations,
        spacing=_spacing(spacing or defaults["spacing"], sampler),
        knobs={name: rule(KNOBS[name].option, chosen[name]) for name, rule in METHODS[method].knobs.items()},
    )


def _of_preset(preset: str, method: str, sampler: str) -> Values:
    """Returns what it sets for a method and sampler. Raises UsageError if they have no such preset."""
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


def samplers_of(method: str) -> list[str]:
    """Returns the samplers on whose levels a method is defined. Raises UsageError for an unknown one."""
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    return [sampler for sampler in SAMPLERS if (method, sampler) in DEFAULTS]


def build_posterior(sampling: Sampling, prior: Prior, measurement: Measurement) -> Posterior:
    """Returns the method around the prior, as chosen.

    Raises UsageError if it needs an SVD that the operator has not.
    """
    row = METHODS[sampling.method]
    if row.needs_modes and measurement.op.modes is None:
        others = ", ".join(name for name, other in METHODS.items() if not other.needs_modes)
        raise UsageError(
            f"method '{sampling.method}' needs a singular value decomposition, which this operator does not have; "
            f"choose one of {others}"
        )
    return row.build(prior, measurement, SAMPLERS[sampling.sampler].eta, sampling.knobs)


def _sampler(method: str, sampler: str | None, own_sampler: str | None) -> str:
    defined = samplers_of(method)
    if sampler is None:
        return next((name for name in (own_sampler, DEFAULT_SAMPLER) if name in defined), defined[0])
    if sampler not in SAMPLERS:
        raise unknown_name("sampler", sampler, SAMPLERS)
    if sampler not in defined:
        raise UsageError(f"method '{method}' is not defined on {sampler} levels; take --sampler {defined[0]}")
    return sampler


def _evaluations(nfe: int, sampler: str) -> int:
    return whole(1, SAMPLERS[sampler].max_nfe, unit=f"evaluations on {sampler} levels")("--nfe", nfe)


def _spacing(spacing: str, sampler: str) -> str:
    choice(SPACINGS)("--spacing", spacing)
    if spacing not in SAMPLERS[sampler].spacings:
        raise UsageError(f"--spacing {spacing}: {sampler} levels are {' or '.join(SAMPLERS[sampler].spacings)}")
    return spacing
