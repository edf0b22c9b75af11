"""What can be said about sampling: method, levels, knobs; one choice or several to compare."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from dmps_cli.checks import AS_TYPED, checked, listed, option, split, typed
from dmps_cli.errors import UsageError
from dmps_cli.levels import SAMPLERS, SPACINGS
from dmps_cli.methods.choice import Sampling, resolve_sampling, samplers_of
from dmps_cli.methods.defaults import (
    DEFAULT_METHOD,
    DEFAULT_PRESET,
    DEFAULT_SAMPLER,
    DEFAULTS,
    PRESETS,
    TASK_DEFAULTS,
)
from dmps_cli.methods.knobs import KNOBS, WORDS
from dmps_cli.methods.table import METHODS, takers
from dmps_cli.weights.cards import DEFAULT_MODEL


class HasSampler(Protocol):
    """A prior, or its card: what has a kind of noise levels of its own, or None."""

    @property
    def sampler(self) -> str | None:
        """A name of SAMPLERS."""
        ...


def _of_default_method(name: str) -> str:
    """Returns the defaults of nfe or spacing, per sampler, for help texts."""
    return ", ".join(f"{DEFAULTS[DEFAULT_METHOD, sampler][name]} on {sampler} levels" for sampler in SAMPLERS)


def _defaults(knob: str) -> str:
    """Returns the defaults of a knob, per method, sampler and task, for help texts."""
    texts = []
    for method in takers(knob):
        values = {sampler: DEFAULTS[method, sampler].get(knob) for sampler in samplers_of(method)}
        if len(distinct := [*dict.fromkeys(map(_shown, values.values()))]) == 1:
            text = distinct[0]
        else:
            text = ", ".join(f"{_shown(value)} on {sampler} levels" for sampler, value in values.items())
        special: dict[str, list[str]] = {}
        for (name, task), row in TASK_DEFAULTS.items():
            if name == method and knob in row:
                special.setdefault(_shown(row[knob]), []).append(task)
        texts.append("; ".join([f"{method} {text}", *(f"{v} for {', '.join(t)}" for v, t in special.items())]))
    return ". ".join(texts)


def _shown(value: Any) -> str:
    if value is None:
        return "by preset"
    return value if isinstance(value, str) else f"{value:g}"


def _knob(name: str, *, several: bool = False) -> Any:
    """Returns a field of SamplingOptions, described by the row of KNOBS; several: its numbers may be a list."""
    knob = KNOBS[name]
    metavar = f"{knob.metavar},.." if several else knob.metavar
    text = f"{knob.help} Default: {_defaults(name)}."
    return option(text, metavar, names=(knob.option,), rule=None if several or name in WORDS else AS_TYPED)


_NFE_HELP = f"Network evaluations per image. Default: {_of_default_method('nfe')}."


@dataclass(frozen=True, kw_only=True)
class SamplingChoices:
    """What is chosen by name, of method, levels and knobs; None is the preset's choice."""

    method: str | None = option(f"{', '.join(METHODS)}. Default: {DEFAULT_METHOD}.", "NAME", complete="methods")
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
    weight: float | None = _knob("weight")
    cap: str | None = _knob("cap")
    zeta: str | None = _knob("zeta")
    prior_weight: float | None = _knob("prior_weight")
    eta: float | None = _knob("eta")
    eta_y: float | None = _knob("eta_y")

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
            knobs=self.knobs(),
        )

    def resolve_grey(self, own: HasSampler, task: str | None = None) -> Sampling:
        """Does as `resolve`, for a grey picture and a prior of colour.

        A mean over channels leaves most of the noise to two differences that nobody measured: the likelihood at x0
        copes, the one at x_t leaves noise (docs/defaults.md). So where nothing is said of preset and method, all but
        the number of evaluations is that of the preset `fast`.
        """
        chosen = self.resolve(own, task)
        is_open = self.preset is None and self.method is None and self.score_at is None and not self.knobs()
        if not is_open or chosen.sampler != DEFAULT_SAMPLER or self.spacing is not None:
            return chosen
        return replace(self, preset="fast", nfe=chosen.nfe).resolve(own, task)

    def compared(self, own: HasSampler, methods: str | None, samplers: str | None, task: str) -> list[Sampling]:
        """Returns one complete choice for each of --methods on each of --samplers where it is defined.

        Raises UsageError.

        A knob goes to the methods that have it, a spacing to the samplers that do.
        """
        if methods and self.method:
            raise UsageError("--method and --methods exclude each other; name all of them in --methods")
        if samplers and self.sampler:
            raise UsageError("--sampler and --samplers exclude each other; name all of them in --samplers")
        names = [checked("method", name, METHODS) for name in split(methods) or [self.method or DEFAULT_METHOD]]
        for knob in self.knobs():
            if not set(takers(knob)) & set(names):
                belongs = ", ".join(takers(knob))
                raise UsageError(f"{' and '.join(names)}: none takes {KNOBS[knob].option}; it belongs to {belongs}")
        ladders: list[str | None] = [*split(samplers)]
        for ladder in split(samplers):
            checked("sampler", ladder, SAMPLERS)
        pairs: list[tuple[str, str | None]] = []
        for name in names:
            defined = samplers_of(name)
            pairs += [(name, ladder) for ladder in ladders if ladder in defined] or [(name, (ladders or [None])[0])]
        shared = {knob for knob in self.knobs() if len(set(takers(knob)) & set(names)) > 1}
        return [self._one_of_many(own, task, *pair, shared=shared, is_alone=len(pairs) == 1) for pair in pairs]

    def _one_of_many(
        self, own: HasSampler, task: str, method: str, sampler: str | None, *, shared: set[str], is_alone: bool
    ) -> Sampling:
        """Returns the choice for one of several methods and samplers, without the options that are for others."""
        foreign = dict.fromkeys(name for name in KNOBS if name not in METHODS[method].knobs)
        flags = replace(self, method=method, sampler=sampler or self.sampler, **foreign)
        if is_alone:
            return flags.resolve(own, task)
        bare = replace(flags, spacing=None, **dict.fromkeys(KNOBS))
        levels = SAMPLERS[bare.resolve(own, task).sampler]
        if self.spacing in SPACINGS and self.spacing not in levels.spacings:
            flags = replace(flags, spacing=None)
        if method == DEFAULT_METHOD and "eta" in shared:
            plain = replace(flags, eta=None)
            if plain.resolve(own, task).knobs["score_at"] != "x0":  # they are for the other methods
                flags = plain
        try:
            return flags.resolve(own, task)
        except UsageError as exc:
            raise UsageError(f"{method}: {exc}") from exc


@dataclass(frozen=True, kw_only=True)
class SweepOptions(SamplingChoices):
    """As SamplingOptions, with lists of numbers: every combination is a choice of its own."""

    nfe: str | None = option(_NFE_HELP, "N,N")
    weight: str | None = _knob("weight", several=True)
    cap: str | None = _knob("cap", several=True)
    zeta: str | None = _knob("zeta", several=True)
    prior_weight: str | None = _knob("prior_weight", several=True)
    eta: str | None = _knob("eta", several=True)

    def each(self) -> list[SamplingOptions]:
        """Returns the combinations, the last list the fastest to vary. Raises UsageError."""
        whole = {name: getattr(self, name) for name in (field.name for field in fields(SamplingChoices))}
        swept: list[dict[str, Any]] = [{}]
        for name in ("nfe", "weight", "cap", "zeta", "prior_weight", "eta"):
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
