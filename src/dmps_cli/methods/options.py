"""What can be said about sampling: method, levels, knobs; one choice or several to compare."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from dmps_cli.checks import AS_TYPED, checked, listed, option, split, typed
from dmps_cli.errors import UsageError
from dmps_cli.levels import SAMPLERS, SPACINGS
from dmps_cli.methods.choice import Sampling, resolve_sampling, samplers_of
from dmps_cli.methods.defaults import (
    DEFAULT_FAVOUR,
    DEFAULT_METHOD,
    DEFAULT_PRESET,
    DEFAULT_SAMPLER,
    DEFAULTS,
    FAVOURED,
    FAVOURS,
    PRESETS,
    TASK_DEFAULTS,
)
from dmps_cli.methods.knobs import KNOBS, WORDS
from dmps_cli.methods.table import FAMILIES, METHODS, forms, takers
from dmps_cli.weights.cards import DEFAULT_MODEL


class HasSampler(Protocol):
    """A prior, or its card: what has a kind of noise levels of its own, or None."""

    @property
    def sampler(self) -> str | None:
        """A name of SAMPLERS."""
        ...


def _of_default_method(name: str) -> str:
    """Returns the defaults of nfe or spacing, per sampler, for help texts."""
    first, *others = FAMILIES[DEFAULT_METHOD]
    texts = [
        ", ".join(f"{DEFAULTS[form, sampler][name]} on {sampler} levels" for sampler in SAMPLERS)
        for form in (first, others[0])
    ]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]}; {others[0]} {texts[1]}"


def _defaults(knob: str) -> str:
    """Returns the defaults of a knob, per method, sampler and task, for help texts."""
    names: dict[str, list[str]] = {}
    for method in takers(knob):
        names.setdefault(defaults_of(method, knob), []).append(method)
    return ". ".join(f"{', '.join(methods)}: {text}" for text, methods in names.items())


def defaults_of(method: str, knob: str) -> str:
    """Returns a knob's defaults for one method."""
    values = {sampler: DEFAULTS[method, sampler].get(knob) for sampler in samplers_of(method)}
    if len(distinct := [*dict.fromkeys(map(_shown, values.values()))]) == 1:
        text = distinct[0]
    else:
        text = ", ".join(f"{_shown(value)} on {sampler} levels" for sampler, value in values.items())
    special: dict[str, dict[str, None]] = {}
    for (name, sampler, task), row in TASK_DEFAULTS.items():
        if name == method and knob in row and row[knob] != values[sampler]:
            special.setdefault(_shown(row[knob]), {})[task] = None
    return "; ".join([text, *(f"{v} for {', '.join(t)}" for v, t in special.items())])


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else f"{value:g}"


def _knob(name: str, *, several: bool = False) -> Any:
    """Returns a field of SamplingOptions, described by the row of KNOBS; several: its numbers may be a list."""
    knob = KNOBS[name]
    metavar = f"{knob.metavar},.." if several else knob.metavar
    names_a_form = any(name in METHODS[method].fixed for method in takers(name))
    text = knob.help if names_a_form else f"{knob.help} Default: {_defaults(name)}."
    return option(text, metavar, names=(knob.option,), rule=None if several or name in WORDS else AS_TYPED)


def _favour(*, several: bool = False) -> Any:
    """Returns a field of SamplingOptions, described by the rows of FAVOURS; several: it may be a list."""
    choices = "; ".join(f"{name}: {row.help}" for name, row in FAVOURS.items())
    text = f"What dmps at x0 is to be good at, by its knobs. {choices}. Default: {DEFAULT_FAVOUR}."
    return option(text, "|".join(FAVOURS) + ",.." * several, complete="favours")


_NFE_HELP = f"Network evaluations per image. Default: {_of_default_method('nfe')}."


@dataclass(frozen=True, kw_only=True)
class SamplingChoices:
    """What is chosen by name, of method, levels and knobs; None is the preset's choice."""

    method: str | None = option(f"{', '.join(FAMILIES)}. Default: {DEFAULT_METHOD}.", "NAME", complete="methods")
    sampler: str | None = option(
        f"Kind of noise levels. Default: the prior's own, {DEFAULT_SAMPLER} for {DEFAULT_MODEL}.",
        "|".join(SAMPLERS),
        complete="samplers",
    )
    preset: str | None = option(
        f"Set of defaults. {'; '.join(f'{name}: {row.help}' for name, row in PRESETS.items())}. Default: "
        f"{DEFAULT_PRESET}.",
        "|".join(PRESETS),
        complete="presets",
    )
    spacing: str | None = option(
        "Which of the 1000 DDPM levels a shorter chain keeps: uniform, as in the paper, or quadratic, more of the "
        f"clean ones. Default: {_of_default_method('spacing')}.",
        "|".join(SPACINGS),
    )
    score_at: str | None = _knob("score_at")
    gamma: str | None = _knob("gamma")
    x_init: str | None = _knob("x_init")
    guidance: str | None = _knob("guidance")


@dataclass(frozen=True, kw_only=True)
class SamplingOptions(SamplingChoices):
    """Method, levels and knobs; None is the preset's choice."""

    nfe: int | None = option(_NFE_HELP, "N", rule=AS_TYPED)
    favour: str | None = _favour()
    weight: float | None = _knob("weight")
    variance_factor: float | None = _knob("variance_factor")
    cap: str | None = _knob("cap")
    zeta: float | None = _knob("zeta")
    prior_weight: float | None = _knob("prior_weight")
    eta: float | None = _knob("eta")
    eta_y: float | None = _knob("eta_y")
    mean_of: int | None = _knob("mean_of")

    def knobs(self) -> dict[str, Any]:
        """Returns the knobs given."""
        return {name: value for name in KNOBS if (value := getattr(self, name)) is not None}

    def resolve(self, own: HasSampler, task: str | None = None) -> Sampling:
        """Returns the complete choice for a prior and a task, defaults filled in. Raises UsageError."""
        return resolve_sampling(
            task=task,
            method=self.method,
            sampler=self.sampler,
            own_sampler=own.sampler,
            nfe=self.nfe,
            spacing=self.spacing,
            preset=self.preset,
            favour=self.favour,
            knobs=self.knobs(),
        )

    def compared(self, own: HasSampler, methods: str | None, samplers: str | None, task: str) -> list[Sampling]:
        """Returns one complete choice for each of --methods on each of --samplers where it is defined.

        Raises UsageError.

        A knob goes to the methods that have it, a spacing to the samplers that do.
        """
        if methods and self.method:
            raise UsageError("--method and --methods exclude each other; name all of them in --methods")
        if samplers and self.sampler:
            raise UsageError("--sampler and --samplers exclude each other; name all of them in --samplers")
        names = split(methods) or [self.method or DEFAULT_METHOD]
        takers_of = {knob: [name for name in names if _has(name, knob)] for knob in self.knobs()}
        for knob, having in takers_of.items():
            if not having:
                belongs = ", ".join(takers(knob))
                raise UsageError(f"{' and '.join(names)}: none takes {KNOBS[knob].option}; it belongs to {belongs}")
        if self.favour is not None and not any(FAVOURED in forms(name) for name in names):
            raise UsageError(f"{' and '.join(names)}: none takes --favour; it belongs to {FAVOURED}")
        ladders: list[str | None] = [*split(samplers)]
        for ladder in split(samplers):
            checked("sampler", ladder, SAMPLERS)
        pairs: list[tuple[str, str | None]] = []
        for name in names:
            defined = samplers_of(name)
            pairs += [(name, ladder) for ladder in ladders if ladder in defined] or [(name, (ladders or [None])[0])]
        shared = {knob for knob, having in takers_of.items() if len(having) > 1}
        return [self._one_of_many(own, task, *pair, shared=shared, is_alone=len(pairs) == 1) for pair in pairs]

    def _one_of_many(
        self, own: HasSampler, task: str, method: str, sampler: str | None, *, shared: set[str], is_alone: bool
    ) -> Sampling:
        """Returns the choice for one of several methods and samplers, without the options that are for others."""
        flags = replace(self, method=method, sampler=sampler or self.sampler)
        if is_alone:
            return flags.resolve(own, task)
        flags = replace(flags, **dict.fromkeys(self.knobs().keys() - self._knobs_for(method, shared)))
        if FAVOURED not in forms(method):
            flags = replace(flags, favour=None)
        bare = replace(flags, spacing=None, favour=None, **dict.fromkeys(KNOBS))
        levels = SAMPLERS[bare.resolve(own, task).sampler]
        if self.spacing in SPACINGS and self.spacing not in levels.spacings:
            flags = replace(flags, spacing=None)
        try:
            return flags.resolve(own, task)
        except UsageError as exc:
            raise UsageError(f"{method}: {exc}") from exc

    def _knobs_for(self, method: str, shared: set[str]) -> set[str]:
        """Returns the knobs given that a method has; without those that another has too, where no form takes all."""
        kept = {name: value for name, value in self.knobs().items() if _has(method, name)}
        for name in [*kept][::-1]:
            if name in shared and not any(METHODS[form].takes(kept) for form in forms(method)):
                del kept[name]
        return {*kept}


def _has(method: str, knob: str) -> bool:
    """Returns whether some form of a method has a knob. Raises UsageError for an unknown method."""
    return any(knob in METHODS[form].knobs for form in forms(method))


@dataclass(frozen=True, kw_only=True)
class SweepOptions(SamplingChoices):
    """As SamplingOptions, with lists of numbers: every combination is a choice of its own."""

    nfe: str | None = option(_NFE_HELP, "N,N")
    favour: str | None = _favour(several=True)
    weight: str | None = _knob("weight", several=True)
    variance_factor: str | None = _knob("variance_factor", several=True)
    cap: str | None = _knob("cap", several=True)
    zeta: str | None = _knob("zeta", several=True)
    prior_weight: str | None = _knob("prior_weight", several=True)
    eta: str | None = _knob("eta", several=True)
    eta_y: str | None = _knob("eta_y", several=True)
    mean_of: str | None = _knob("mean_of", several=True)

    def each(self) -> list[SamplingOptions]:
        """Returns the combinations, the last list the fastest to vary. Raises UsageError."""
        whole = {name: getattr(self, name) for name in (field.name for field in fields(SamplingChoices))}
        swept: list[dict[str, Any]] = [{}]
        for name in _SWEPT:
            values = listed(KNOBS[name].option if name in KNOBS else f"--{name}", getattr(self, name), typed)
            swept = [{**chosen, name: value} for chosen in swept for value in values]
        return [SamplingOptions(**whole, **chosen) for chosen in swept]

    def compared(self, own: HasSampler, methods: str | None, samplers: str | None, task: str) -> list[Sampling]:
        """Returns one complete choice for each of --methods, --samplers and combination, each once.

        Raises UsageError.
        """
        combinations = [flags.compared(own, methods, samplers, task) for flags in self.each()]
        choices = [choice for of_one_method in zip(*combinations, strict=True) for choice in of_one_method]
        return [choice for place, choice in enumerate(choices) if choice not in choices[:place]]


_SWEPT = ("nfe", "favour", *(name for name in KNOBS if name not in WORDS))
