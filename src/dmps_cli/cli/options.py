"""Every option once: its name, type, unit and help, in groups that a command takes whole."""

from __future__ import annotations

import copy
import functools
import glob
import inspect
import math
from collections.abc import Callable, Collection
from dataclasses import Field, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_type_hints

import typer

from dmps_cli.cli.console import Console
from dmps_cli.errors import DmpsError, UsageError, unknown_name
from dmps_cli.kernels import FORMS
from dmps_cli.methods import (
    BY_NFE,
    DEFAULT_METHOD,
    DEFAULT_PRESET,
    DEFAULT_SAMPLER,
    DEFAULTS,
    KNOBS,
    METHODS,
    PRESETS,
    TASK_DEFAULTS,
    Sampling,
    resolve_sampling,
    samplers_of,
    takers,
)
from dmps_cli.metrics import GREY_LEVELS, MAX_SIGMA, MIN_SIGMA
from dmps_cli.schedules import SAMPLERS, SPACINGS
from dmps_cli.tasks import BOUNDARIES, MAX_SEED, TASKS
from dmps_cli.tasks import task as task_row
from dmps_cli.weights import DEFAULT_MODEL, Card, card, cards

if TYPE_CHECKING:
    import torch

    from dmps_cli.weights import LoadedPrior

DTYPE_NAMES = ("float32", "bfloat16", "float16")
DEVICE_NAMES = ("auto", "cpu", "cuda", "mps")
MIN_TILE = 64


PANELS = {
    "OperatorOptions": "Operator (each task takes some of these, see `dmps tasks`)",
    "SamplingFlags": "Sampling",
    "SweepFlags": "Sampling (numbers with commas between: every combination)",
    "ComputeFlags": "Machine and prior",
    "OutputFlags": "Output",
    "PictureFlags": "Photographs",
    "FolderFlags": "Output",
}


def command_options(command: Callable[..., None]) -> Callable[..., None]:
    """Spreads each parameter of a command that is a dataclass into one option per field.

    The command is called with the dataclasses filled in, so that groups of options keep one definition.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _group_parameters(groups[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    del run.__wrapped__  # inspect would otherwise look through to the grouped signature
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def reflowed(text: str) -> str:
    """Each paragraph on one line: the help is wrapped where the terminal ends, not where the source does."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n"))


def _group_parameters(group: Any) -> list[inspect.Parameter]:
    """One parameter per field, in the group's own panel of the help."""
    hints = get_type_hints(group, include_extras=True)

    def parameter(field: Field[Any]) -> inspect.Parameter:
        hint = hints[field.name]
        if field.metadata:  # a group that lives below the command line describes its options there
            names = [field.metadata["option"]] if "option" in field.metadata else []
            if hint == bool | None:
                names = [f"--{field.name.replace('_', '-')}"]  # without its --no- form
            help, metavar = field.metadata["help"], field.metadata["metavar"]
            completion = COMPLETIONS.get(field.metadata.get("complete", ""))
            hint = Annotated[hint, typer.Option(*names, help=help, metavar=metavar, autocompletion=completion)]
        option = copy.copy(hint.__metadata__[0])  # shared with commands that take it outside this group
        option.rich_help_panel = PANELS[group.__name__]
        hint = Annotated[hint.__origin__, option]
        return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hint)

    return [parameter(field) for field in fields(group)]


def complete(choices: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """Shell completion from a table's names."""

    def matching(incomplete: str) -> list[str]:
        try:
            return [name for name in choices() if name.startswith(incomplete)]
        except DmpsError:  # a table that cannot be read is said when the command runs
            return []

    return matching


# by name: annotations of a dataclass are evaluated where lambdas do not see this module
complete_model = complete(lambda: [*cards()])
complete_sampler = complete(lambda: [*SAMPLERS])
complete_method = complete(lambda: [*METHODS])
complete_preset = complete(lambda: [*PRESETS])


def complete_kernel(incomplete: str) -> list[str]:
    """Formulas up to their numbers, and files and folders of that beginning."""
    files = sorted(glob.glob(f"{glob.escape(incomplete)}*"))  # noqa: PTH207 - the beginning of a name
    return [*(f"{name}:" for name in FORMS if name.startswith(incomplete)), *files]


COMPLETIONS = {"kernel": complete_kernel, "boundary": complete(lambda: [*BOUNDARIES])}


def checked(kind: str, name: str, choices: Collection[str]) -> str:
    """The name, if it is one of the choices. Raises UsageError with the nearest one otherwise."""
    if name not in choices:
        raise unknown_name(kind, name, choices)
    return name


Inputs = Annotated[
    list[str], typer.Argument(metavar="INPUT...", help="Files, folders, quoted globs, or - for names on stdin.")
]
TaskName = Annotated[
    str | None,
    typer.Option("--task", "-t", metavar="NAME", help="See `dmps tasks`.", autocompletion=complete(lambda: [*TASKS])),
]
_SIGMA_HELP = (
    "Noise standard deviation of the measurement: 0.05 on the [-1, 1] scale, or 6.4/255, grey levels of 255, the same. "
)
Sigma = Annotated[
    str | None,
    typer.Option("--sigma", metavar="STD|LEVELS/255", help=f"{_SIGMA_HELP}Default: the task's."),
]
SigmaOrAuto = Annotated[
    str | None,
    typer.Option(
        "--sigma",
        metavar="STD|LEVELS/255|auto",
        help=f"{_SIGMA_HELP}auto: estimated from the picture. Default: that of its sidecar; auto without one.",
    ),
]
Sigmas = Annotated[str | None, typer.Option("--sigma", metavar="STD,STD", help=f"{_SIGMA_HELP}Default: the task's.")]


WeightsFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Table of checkpoints of your own (docs/checkpoints.md); DMPS_WEIGHTS names one too."
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|PATH",
        help="Prior: a name of `dmps models list`, or a checkpoint of yours.",
        autocompletion=complete_model,
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="|".join(DEVICE_NAMES), help="Where to compute.")]
Offline = Annotated[bool, typer.Option("--offline", help="Download nothing (so does HF_HUB_OFFLINE=1).")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No notes, no progress; errors stay.")]
Samplers = Annotated[
    str | None, typer.Option(metavar="A,B", help="Samplers to compare, ddpm and flow. Default: --sampler.")
]
Methods = Annotated[str | None, typer.Option(metavar="A,B", help="Methods to compare. Default: --method.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of the noise, a whole number >= 0.")]
LpipsNet = Annotated[str, typer.Option(metavar="alex|vgg|squeeze", help="Network of LPIPS; alex needs no download.")]


def split(names: str | None) -> list[str]:
    """The names of a comma-separated list, each once."""
    return [*dict.fromkeys(name.strip() for name in (names or "").split(",") if name.strip())]


def checked_task(name: str | None, command: str | None = None) -> str | None:
    """The name, if it is a task's or open. Raises UsageError with what it stands for otherwise, `tasks.task`."""
    if name is not None:
        task_row(name, command)
    return name


AUTO: Final = "auto"
MAX_BARE_SIGMA = 2.0  # the width of the scale; a larger number was rather meant in grey levels


def checked_sigma(text: str | None) -> float | None:
    """The standard deviation on [-1, 1] that --sigma says, None where it is open.

    a/b is a on a scale from 0 to b: 15/255 is 0.1176. Raises UsageError for what can be none, and for a bare number
    that is more likely meant in grey levels.
    """
    if text is None:
        return None
    if text.strip() == AUTO:
        raise UsageError(f"--sigma {AUTO} estimates the noise of a picture; here it is the noise to add: give a number")
    number, slash, white = text.partition("/")
    try:
        scale = 2.0 / float(white) if slash else 1.0
        sigma = scale * float(number)
    except (ValueError, ZeroDivisionError):
        scale = sigma = math.nan
    if not (0.0 <= sigma <= MAX_SIGMA and scale > 0.0):
        expected = f"it must be a number from 0 to {MAX_SIGMA:g}, on the [-1, 1] scale, or grey levels as 15/255"
        grey = f"; {sigma:g} of 255 is {sigma / GREY_LEVELS:.4g}, --sigma {text}/255" if sigma <= 255.0 else ""
        raise UsageError(f"--sigma is {text}; {expected}{grey if sigma > MAX_SIGMA else ''}")
    if not slash and sigma > MAX_BARE_SIGMA:
        levels = f"{text} grey levels of 255 are --sigma {text}/255 ({sigma / GREY_LEVELS:.4g} on [-1, 1])"
        wide = f"{sigma:g} on [-1, 1], {sigma * GREY_LEVELS:g} grey levels, is --sigma {sigma * GREY_LEVELS:g}/255"
        raise UsageError(f"--sigma is {text}: {levels}; {wide}")
    if 0.0 < sigma < MIN_SIGMA:
        raise UsageError(f"--sigma is {text}; it must be 0 or at least {MIN_SIGMA:g}, as float32 can tell them apart")
    return sigma


def checked_sigma_or_auto(text: str | None) -> float | Literal["auto"] | None:
    """As `checked_sigma`, or AUTO: it is to be estimated."""
    return AUTO if text is not None and text.strip() == AUTO else checked_sigma(text)


@dataclass(frozen=True, kw_only=True)
class OutputFlags:
    """Where results go and what is said."""

    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="A file for one input, a folder (made if it is missing) for several. Default: beside the input.",
        ),
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing output files.")] = False
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Leave inputs alone whose output exists; go on after an interruption."),
    ] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of paths and tables.")] = False
    quiet: Quiet = False

    def __post_init__(self) -> None:
        if self.overwrite and self.skip_existing:
            raise UsageError("--overwrite and --skip-existing exclude each other")

    def console(self) -> Console:
        """The console that these flags ask for."""
        return Console(quiet=self.quiet, as_json=self.as_json)


def _of_default_method(name: str) -> str:
    """The defaults of nfe or spacing, per sampler, for help texts."""
    return ", ".join(f"{DEFAULTS[DEFAULT_METHOD, sampler][name]} on {sampler} levels" for sampler in SAMPLERS)


def _defaults(knob: str) -> str:
    """The defaults of a knob, per method, sampler and task, for help texts."""
    texts = []
    for method in takers(knob):
        values = {sampler: DEFAULTS[method, sampler].get(knob) for sampler in samplers_of(method)}
        if any(knob in rows for (name, *_), rows in BY_NFE.items() if name == method):
            text = "by task, levels and evaluations"
        elif len(distinct := [*dict.fromkeys(map(_shown, values.values()))]) == 1:
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
    """A field of SamplingFlags, described by the row of KNOBS; several: its numbers may be a list."""
    knob = KNOBS[name]
    metavar = f"{knob.metavar},.." if several else knob.metavar
    text = f"{knob.help} Default: {_defaults(name)}."
    return field(default=None, metadata={"option": knob.option, "metavar": metavar, "help": text})


_NFE_HELP = f"Network evaluations per image. Default: {_of_default_method('nfe')}."


@dataclass(frozen=True, kw_only=True)
class SamplingChoices:
    """What is chosen by name, of method, levels and knobs; None is the preset's choice."""

    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join(METHODS)}. Default: {DEFAULT_METHOD}.",
            autocompletion=complete_method,
        ),
    ] = None
    sampler: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(SAMPLERS),
            help=f"Kind of noise levels. Default: the prior's own, {DEFAULT_SAMPLER} for {DEFAULT_MODEL}.",
            autocompletion=complete_sampler,
        ),
    ] = None
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(PRESETS),
            help=f"Set of defaults. {'; '.join(f'{name}: {row.help}' for name, row in PRESETS.items())}. "
            f"Default: {DEFAULT_PRESET}.",
            autocompletion=complete_preset,
        ),
    ] = None
    spacing: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(SPACINGS),
            help="Which of the 1000 DDPM levels a shorter chain keeps: uniform, as in the paper, or quadratic, more of "
            f"the clean ones. Default: {_of_default_method('spacing')}.",
        ),
    ] = None
    score_at: str | None = _knob("score_at")
    gamma: str | None = _knob("gamma")


@dataclass(frozen=True, kw_only=True)
class SamplingFlags(SamplingChoices):
    """Method, levels and knobs; None is the preset's choice."""

    nfe: Annotated[int | None, typer.Option(metavar="N", help=_NFE_HELP)] = None
    weight: float | None = _knob("weight")
    cap: str | None = _knob("cap")
    zeta: float | None = _knob("zeta")
    eta: float | None = _knob("eta")
    eta_y: float | None = _knob("eta_y")

    def knobs(self) -> dict[str, Any]:
        """The knobs given."""
        return {name: value for name in KNOBS if (value := getattr(self, name)) is not None}

    def resolve(self, entry: Card, task: str | None = None) -> Sampling:
        """The complete choice for a prior and a task, defaults filled in. Raises UsageError."""
        return resolve_sampling(
            task=task,
            method=self.method,
            sampler=self.sampler,
            own_sampler=entry.sampler,
            nfe=self.nfe,
            spacing=self.spacing,
            preset=self.preset,
            knobs=self.knobs(),
        )

    def resolve_grey(self, entry: Card, task: str) -> Sampling:
        """As `resolve`, for a grey picture and a prior of colour.

        A mean over channels leaves most of the noise to two differences that nobody measured: the likelihood at x0
        copes, the one at x_t leaves noise (docs/defaults.md). So where nothing is said of preset and method, all but
        the number of evaluations is that of the preset `fast`.
        """
        chosen = self.resolve(entry, task)
        is_open = self.preset is None and self.method is None and self.score_at is None and not self.knobs()
        if not is_open or chosen.sampler != DEFAULT_SAMPLER or self.spacing is not None:
            return chosen
        return replace(self, preset="fast", nfe=chosen.nfe).resolve(entry, task)

    def compared(self, entry: Card, methods: str | None, samplers: str | None, task: str) -> list[Sampling]:
        """One complete choice for each of --methods on each of --samplers where it is defined. Raises UsageError.

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
        return [self._one_of_many(entry, task, *pair, shared=shared, is_alone=len(pairs) == 1) for pair in pairs]

    def _one_of_many(
        self, entry: Card, task: str, method: str, sampler: str | None, *, shared: set[str], is_alone: bool
    ) -> Sampling:
        """The choice for one of several methods and samplers, without the options that are for others of them."""
        foreign = dict.fromkeys(name for name in KNOBS if name not in METHODS[method].knobs)
        flags = replace(self, method=method, sampler=sampler or self.sampler, **foreign)
        if is_alone:
            return flags.resolve(entry, task)
        bare = replace(flags, spacing=None, **dict.fromkeys(KNOBS))
        levels = SAMPLERS[bare.resolve(entry, task).sampler]
        if self.spacing in SPACINGS and self.spacing not in levels.spacings:
            flags = replace(flags, spacing=None)
        if method == DEFAULT_METHOD and "eta" in shared:
            plain = replace(flags, eta=None)
            if plain.resolve(entry, task).knobs["score_at"] != "x0":  # they are for the other methods
                flags = plain
        try:
            return flags.resolve(entry, task)
        except UsageError as exc:
            raise UsageError(f"{method}: {exc}") from exc


@dataclass(frozen=True, kw_only=True)
class SweepFlags(SamplingChoices):
    """As SamplingFlags, with lists of numbers: every combination is a choice of its own."""

    nfe: Annotated[str | None, typer.Option(metavar="N,N", help=_NFE_HELP)] = None
    weight: str | None = _knob("weight", several=True)
    cap: str | None = _knob("cap", several=True)
    zeta: str | None = _knob("zeta", several=True)
    eta: str | None = _knob("eta", several=True)

    def each(self) -> list[SamplingFlags]:
        """The combinations, the last list the fastest to vary. Raises UsageError."""
        whole = {name: getattr(self, name) for name in (field.name for field in fields(SamplingChoices))}
        swept: list[dict[str, Any]] = [{}]
        for name, kind in {"nfe": int, "weight": float, "cap": str, "zeta": float, "eta": float}.items():
            option = KNOBS[name].option if name in KNOBS else f"--{name}"
            values = numbers(option, getattr(self, name), kind)
            swept = [{**chosen, name: value} for chosen in swept for value in values]
        return [SamplingFlags(**whole, **chosen) for chosen in swept]

    def compared(self, entry: Card, methods: str | None, samplers: str | None, task: str) -> list[Sampling]:
        """One complete choice for each of --methods, --samplers and combination, each once. Raises UsageError."""
        combinations = [flags.compared(entry, methods, samplers, task) for flags in self.each()]
        choices = [choice for of_one_method in zip(*combinations, strict=True) for choice in of_one_method]
        return [choice for place, choice in enumerate(choices) if choice not in choices[:place]]


def given_options(context: typer.Context) -> list[str]:
    """The options that the command line names, by their long names, each once."""
    given = [p for p in context.command.params if p.name and p.param_type_name == "option"]
    return [p.opts[0] for p in given if getattr(context.get_parameter_source(p.name), "name", "") == "COMMANDLINE"]


PAPER = "paper"  # what --compare takes


def is_compared(compare: str | None) -> bool:
    """Whether --compare asks for the paper's figures. Raises UsageError for anything else it may say."""
    if compare not in (None, PAPER):
        raise UsageError(f"--compare is '{compare}'; it can only be {PAPER}")
    return compare is not None


def numbers(option: str, text: str | None, kind: Callable[[str], Any]) -> list[Any]:
    """The values of a comma-separated list, [None] for an open option. Raises UsageError."""
    if text is None:
        return [None]
    try:
        values = [kind(part) for part in split(text)]
    except ValueError as exc:
        raise UsageError(f"{option} is '{text}'; it must be a number, or several with commas between") from exc
    if not values:
        raise UsageError(f"{option} is empty; name a number, or several with commas between")
    return [*dict.fromkeys(values)]


@dataclass(frozen=True, kw_only=True)
class ComputeFlags:
    """Prior and machine."""

    model: Model = DEFAULT_MODEL
    weights_file: WeightsFile = None
    offline: Offline = False
    device: Device = "auto"
    dtype: Annotated[
        str,
        typer.Option(
            metavar="|".join(DTYPE_NAMES),
            help="Floating-point type of the network; operators and images stay float32.",
        ),
    ] = "float32"
    batch_size: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Images per network call on a GPU. On a CPU images go one at a time, so that each gives the same bits "
            "in any company.",
        ),
    ] = 1
    tile: Annotated[
        int | None,
        typer.Option(
            metavar="PX",
            help="Let the network see overlapping windows of this side only: less memory for large pictures.",
        ),
    ] = None
    seed: Seed = 0

    def check(self) -> Card:
        """The prior's card. Raises UsageError for what can be refused without torch."""
        entry = card(self.model, self.weights_file)
        if self.tile is not None and entry.image_size is not None:
            raise UsageError(f"--tile: '{self.model}' sees windows of {entry.image_size} px already")
        if self.tile is not None and self.tile < MIN_TILE:
            raise UsageError(f"--tile is {self.tile}; it must be at least {MIN_TILE} px")
        check_device(self.device)
        checked("dtype", self.dtype, DTYPE_NAMES)
        check_seed(self.seed)
        if self.batch_size < 1:
            raise UsageError(f"--batch-size is {self.batch_size}; it must be at least 1")
        return entry

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "weights_file": None if self.weights_file is None else str(self.weights_file)}

    def start(self) -> torch.device:
        """Imports torch, sets up the allocator, resolves the device. Raises UsageError if it is not there."""
        from dmps_cli.device import resolve_device, tune_allocator

        tune_allocator()
        return resolve_device(self.device)

    def load(self, device: torch.device, console: Console) -> LoadedPrior:
        """The prior on the device, downloaded if need be; says which. Raises WeightsError, OutputError."""
        from dmps_cli.device import has_fast_bfloat16, micro_batch
        from dmps_cli.weights import load_prior
        from dmps_cli.windows import WindowedPrior

        if self.dtype == "bfloat16" and device.type in ("cpu", "cuda") and not has_fast_bfloat16(device):
            console.note(f"torch finds no instructions for bfloat16 on {device}; float32 is faster there")
        batch = micro_batch(device, self.batch_size)
        with console.transfer(self.model) as told:
            loaded = load_prior(
                self.model,
                device,
                self.dtype,
                override=self.weights_file,
                offline=self.offline,
                batch=batch,
                progress=told,
                note=console.note,
            )
        console.note(f"prior {loaded.name}, {self.dtype} on {device}")
        if self.tile is None:
            return loaded
        tile = self.tile - self.tile % loaded.prior.multiple
        return replace(loaded, prior=WindowedPrior(loaded.prior, tile, is_only_size=False, batch=batch))


def check_device(name: str) -> None:
    """Raises UsageError for what cannot be a device's name."""
    kind, colon, index = name.partition(":")
    checked("device", kind, DEVICE_NAMES)
    if colon and not (kind == "cuda" and index.isascii() and index.isdigit() and len(index) <= 3):
        raise UsageError(f"device '{name}' is no device; a number follows cuda: alone, as in cuda:1")


def check_seed(seed: int) -> None:
    """Raises UsageError for a seed out of range."""
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"--seed is {seed}; it must be from 0 to 2^63 - 1")
