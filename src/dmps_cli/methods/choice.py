"""A complete choice of method, sampler and knobs, from what is given and the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dmps_cli.checks import choice, whole
from dmps_cli.errors import UsageError, unknown_name
from dmps_cli.levels import SAMPLERS, SPACINGS
from dmps_cli.methods.defaults import (
    DEFAULT_METHOD,
    DEFAULT_PRESET,
    DEFAULT_SAMPLER,
    DEFAULTS,
    FAVOURED,
    FAVOURS,
    PRESETS,
    TASK_DEFAULTS,
    Values,
)
from dmps_cli.methods.knobs import KNOBS
from dmps_cli.methods.table import METHODS, family, forms, takers
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
    """A complete choice of method, sampler and knobs; `knobs` are those of the method's row.

    chosen_by: options that made it this form of the method in place of the first; empty where it is that, or named.
    favour: the one asked for.
    """

    method: str
    sampler: str
    nfe: int
    spacing: str
    knobs: Mapping[str, Any]
    chosen_by: tuple[str, ...] = field(default=(), compare=False)
    favour: str | None = field(default=None, compare=False)

    @property
    def shares(self) -> list[int]:
        """Evaluations of each sample: all for the one, or split among those of a mean."""
        count = min(self.knobs.get("mean_of") or 1, self.nfe)
        return [self.nfe // count + (k < self.nfe % count) for k in range(count)]

    def check_samples(self, samples: int) -> None:
        """Raises UsageError for several where one is no draw from the posterior: their spread would say nothing."""
        of = f"--mean-of {len(self.shares)}" if len(self.shares) > 1 else None
        if self.favour is not None:
            of = f"--favour {self.favour}" if not FAVOURS[self.favour].draws else of
        if samples > 1 and of is not None:
            raise UsageError(
                f"{of} and --samples {samples} exclude each other: a mean is no sample, and several of them do not "
                "spread as the posterior does"
            )

    def labelled(self) -> dict[str, Any]:
        """Returns the knobs under their options' names."""
        shown = {name: value for name, value in self.knobs.items() if value is not None or name == "cap"}
        return {KNOBS[name].label: value for name, value in shown.items()}

    @property
    def cautions(self) -> list[str]:
        """What to know of the choice: which option made it, what to expect of too few evaluations of DMPS."""
        few = SAMPLERS[self.sampler].few
        texts = []
        if self.chosen_by:
            options, first = " and ".join(self.chosen_by), forms(family(self.method))[0]
            verb = "belong" if len(self.chosen_by) > 1 else "belongs"
            texts.append(f"{options} {verb} to {self.method}, which is taken in place of {first}")
        if self.knobs.get("score_at") in ("x_t", "sample") and self.nfe < few:
            levels = f"{self.sampler} levels"
            texts.append(f"fewer than {few} evaluations on {levels} leave noise in the picture (docs/defaults.md)")
        return texts

    def as_dict(self) -> dict[str, Any]:
        """Returns what sidecars and JSON say."""
        levels = {"method": self.method, "sampler": self.sampler, "nfe": self.nfe, "spacing": self.spacing}
        return {**levels, **self.labelled()}

    def __str__(self) -> str:
        said = {label: value for label, value in self.labelled().items() if label != "score_at"}  # the name has it
        knobs = "".join(f", {label} {as_typed(value)}" for label, value in said.items())
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
    favour: str | None = None,
    knobs: Mapping[str, Any] | None = None,
) -> Sampling:
    """Fills what is open (None) from the tables of defaults, for a task if it is named, and checks the rest.

    method: a name with its form, 'dmps (x_t)', or without: then its first form that takes the knobs given and is in
    the preset. own_sampler: the prior's, taken where `sampler` is open and the method has it. favour: of FAVOURS, for
    dmps at x0. knobs: by their names in KNOBS; a cap may be 'none'. Raises UsageError for unknown names, values out of
    range and knobs that the method does not have.
    """
    task = like(task)
    method, preset = method or DEFAULT_METHOD, preset or DEFAULT_PRESET
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    given = {name: value for name, value in (knobs or {}).items() if value is not None}
    if favour is not None:
        _check_favour(favour, method, preset, given)
        method = FAVOURED
    method, chosen_by = _form(method, preset, given)
    sampler = _sampler(method, sampler, own_sampler)
    defaults = DEFAULTS[method, sampler] | {**METHODS[method].fixed}
    defaults |= TASK_DEFAULTS.get((method, sampler, task or ""), {})
    defaults |= (PRESETS[preset].values or {}).get((method, sampler), {})
    defaults |= PRESETS[preset].tasks.get((method, sampler, task or ""), {})
    if favour is not None:
        defaults |= FAVOURS[favour].at(sampler, task or "")
    evaluations = _evaluations(defaults["nfe"] if nfe is None else nfe, sampler)
    if defaults.get("mean_of") is not None:
        defaults["mean_of"] = min(defaults["mean_of"], evaluations)
    chosen = defaults | given
    resolved = {name: rule(KNOBS[name].option, chosen[name]) for name, rule in METHODS[method].knobs.items()}
    if (count := resolved.get("mean_of") or 1) > evaluations:
        raise UsageError(f"--mean-of is {count}; {evaluations} evaluations are those of {evaluations} samples at most")
    return Sampling(
        method=method,
        sampler=sampler,
        nfe=evaluations,
        spacing=_spacing(spacing or defaults["spacing"], sampler),
        knobs=resolved,
        chosen_by=chosen_by,
        favour=favour,
    )


def _check_favour(favour: str, method: str, preset: str, given: Values) -> None:
    """Raises UsageError for an unknown one, and beside what it would contradict."""
    if favour not in FAVOURS:
        raise unknown_name("favour", favour, FAVOURS)
    if FAVOURED not in forms(method):
        raise UsageError(f"--favour belongs to {FAVOURED}, not to {method}")
    if not PRESETS[preset].has(FAVOURED):
        raise UsageError(f"--favour and --preset {preset} exclude each other: --favour sets knobs of {FAVOURED}")
    if given:
        raise UsageError(f"--favour and {_options(given)} exclude each other: --favour sets the knobs")


def _form(name: str, preset: str, given: Values) -> tuple[str, tuple[str, ...]]:
    """Returns (the first form of a method that takes what is given, the options that the forms before it lack).

    Raises UsageError if there is none.
    """
    for knob in given:
        if not any(knob in METHODS[form].knobs for form in forms(name)):
            raise UsageError(f"method '{name}' takes no {KNOBS[knob].option}; it belongs to {', '.join(takers(knob))}")
    for knob, rule in METHODS[forms(name)[0]].knobs.items():
        if knob in METHODS[forms(name)[0]].fixed and knob in given:
            rule(KNOBS[knob].option, given[knob])
    candidates = [form for form in forms(name) if PRESETS[preset].has(form)]
    fitting = [form for form in candidates if METHODS[form].takes(given)]
    if not fitting:
        named = f" and --preset {preset}" if len(candidates) < len(forms(name)) else ""
        raise UsageError(f"no form of {family(name)} takes {_options(given)}{named}: {_belongings(name, given)}")
    first = METHODS[candidates[0]]
    is_told = any(knob in first.fixed for knob in given)
    lacking = () if is_told else tuple(KNOBS[knob].option for knob in given if knob not in first.knobs)
    return fitting[0], lacking


def _options(given: Values) -> str:
    """Returns '--lambda and --score-at x0': the knobs given, those that name a form with it."""
    return " and ".join(_option(name, value) for name, value in given.items())


def _option(knob: str, value: Any) -> str:
    names_a_form = any(knob in row.fixed for row in METHODS.values())
    return f"{KNOBS[knob].option} {value}" if names_a_form else KNOBS[knob].option


def _belongings(name: str, given: Values) -> str:
    """Returns '--lambda belongs to dmps (x_t), dmps (sample); ...', for each of the knobs."""
    texts = []
    for knob, value in given.items():
        of = [form for form in forms(name) if METHODS[form].takes({knob: value})]
        texts.append(f"{_option(knob, value)} belongs to {', '.join(of)}")
    return "; ".join(texts)


def samplers_of(method: str) -> list[str]:
    """Returns the samplers on whose levels a method is defined. Raises UsageError for an unknown one."""
    return [sampler for sampler in SAMPLERS if any((form, sampler) in DEFAULTS for form in forms(method))]


def of_today(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a file says of a sampling, under today's names.

    Before dmps at x0 was a method of its own name, its variance factor was written as lambda.
    """
    renamed, score_at = dict(facts), facts.get("score_at")
    if renamed.get("method") == DEFAULT_METHOD and f"{DEFAULT_METHOD} ({score_at})" in METHODS:
        renamed["method"] = f"{DEFAULT_METHOD} ({score_at})"
        if score_at == "x0" and "lambda" in renamed:
            renamed = {"variance_factor" if name == "lambda" else name: value for name, value in renamed.items()}
            renamed.pop("cap", None)
    return renamed


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
