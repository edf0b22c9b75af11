"""`dmps restore`: degraded pictures in, restorations out."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmps_cli import __version__
from dmps_cli.cli.batch import Batch, may_write, open_batch, plan_outputs
from dmps_cli.cli.console import Console
from dmps_cli.cli.guide import NoTaskError, guide, typed
from dmps_cli.cli.operators import InputPlan, Noise, OperatorPlan, check_claimed, plan_operator, planned_shape
from dmps_cli.cli.options import (
    ComputeFlags,
    Inputs,
    LpipsNet,
    OutputFlags,
    SamplingFlags,
    SigmaOrAuto,
    TaskName,
    checked,
    checked_sigma_or_auto,
    checked_task,
    command_options,
)
from dmps_cli.errors import DmpsError, InputError, UsageError
from dmps_cli.files import pictures_in, sha256_bytes, sha256_file, write_together
from dmps_cli.measurements import RESTORATION_KIND, json_bytes, read_measurement, read_sidecar, versions
from dmps_cli.metrics import GREY_LEVELS, LPIPS_NETS, both_scales
from dmps_cli.tasks import TASKS, OperatorOptions, check_channels, scene_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import torch
    from torch import Tensor

    from dmps_cli.fit import Fit
    from dmps_cli.methods import Sampling
    from dmps_cli.operators.base import LinearOperator
    from dmps_cli.raised_sigma import Raised
    from dmps_cli.weights import LoadedPrior

PICTURE_NDIM = 4
MAX_SAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a sample goes; overwrite: whether over what is there."""

    path: Path
    sample: int
    overwrite: bool


@dataclass(frozen=True, kw_only=True)
class Job:
    """One input, checked as far as that goes without torch.

    grey_sampling: where the picture turns out to be grey, and the prior one of colour.
    """

    path: Path
    sha256: str
    targets: tuple[Target, ...]
    input: InputPlan
    sampling: Sampling
    grey_sampling: Sampling
    reference: Path | None

    @property
    def plan(self) -> OperatorPlan:
        """What it is restored as."""
        return self.input.plan


@dataclass(frozen=True, kw_only=True)
class MeasuredNoise:
    """sigma_y, and where it is from: given by --sigma or the sidecar, or estimated; then notes on its kind.

    is_none: whether the measurement is exact, up to its rounding.
    """

    sigma_y: float
    origin: str = "given"
    notes: tuple[str, ...] = ()
    is_none: bool = False
    raised: Raised | None = None

    @property
    def remark(self) -> str | None:
        """What was said of the kernel already, before anything was restored with it."""
        return self.raised.text if self.raised else None

    def as_dict(self) -> dict[str, Any]:
        """For the sidecar."""
        facts = {"sigma_y": self.sigma_y, "sigma_y_255": self.sigma_y * GREY_LEVELS, "sigma_origin": self.origin}
        facts |= {"sigma_search": self.raised.as_dict()} if self.raised else {}
        return facts | ({"noise_notes": list(self.notes)} if self.notes else {})


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A job with its measurement (1, *out_shape) read, its operator built, its reference, as `op.picture`, at hand.

    noise: of y; less than the plan's where y is the grey value of a measurement in colour. kept: (picture (1, C, H, W),
    mask (H, W)) whose pixels are the result's, where what is kept has no noise.
    """

    job: Job
    y: Tensor
    op: LinearOperator
    truth: Tensor | None
    noise: MeasuredNoise
    sampling: Sampling
    kept: tuple[Tensor, Tensor] | None = None

    @property
    def sigma_y(self) -> float:
        """Of the noise in y."""
        return self.noise.sigma_y


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One sample to draw: what can be computed together, and is written as soon as it is done."""

    ready: Ready
    target: Target


@command_options
def restore(
    inputs: Inputs,
    operator: OperatorOptions,
    sampling: SamplingFlags,
    compute: ComputeFlags,
    output: OutputFlags,
    task: TaskName = None,
    sigma: SigmaOrAuto = None,
    samples: Annotated[int, typer.Option("--samples", metavar="K", help="Posterior samples per input.")] = 1,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The true picture, or a folder of them by name: prints PSNR, SSIM and LPIPS against it.",
        ),
    ] = None,
    lpips_net: LpipsNet = "alex",
) -> None:
    """Restore degraded pictures.

    An input is a measurement that `dmps degrade` wrote (its sidecar fills what the command line leaves open), or any
    picture that is already degraded; then --task says how.

    Example: dmps restore y.png --task sr4
    """
    console = output.console()
    entry = compute.check()
    sampling.resolve(entry, checked_task(task, typed("restore", inputs)))
    noise = checked_sigma_or_auto(sigma)
    checked("network of LPIPS", lpips_net, LPIPS_NETS)
    if not 1 <= samples <= MAX_SAMPLES:
        raise UsageError(f"--samples is {samples}; it must be from 1 to {MAX_SAMPLES}")
    batch, paths = open_batch(inputs, console, left_out=[RESTORATION_KIND])

    def written(target: Path) -> list[Path]:
        return [file for name in sample_names(target, samples) for file in (name, name.with_suffix(".json"))]

    kept = [*references(reference), *operator.files()]
    operator = operator.with_kernel_read()
    jobs = []
    for path, target in plan_outputs(batch, paths, "_restored", output, written, kept=kept):
        with batch.item(path):
            input_plan = plan_input(path, task, operator, noise, console)
            names, input_sha256 = enumerate(sample_names(target, samples)), sha256_file(path)
            if targets := tuple(unfinished(names, input_sha256, output, console)):
                job = Job(
                    path=path,
                    sha256=input_sha256,
                    targets=targets,
                    input=input_plan,
                    sampling=sampling.resolve(entry, input_plan.plan.task),
                    grey_sampling=sampling.resolve_grey(entry, input_plan.plan.task),
                    reference=find_reference(reference, path, input_plan),
                )
                jobs.append(job)
    explain_tasks(batch)
    facts: dict[str, Any] = {"version": __version__, "command": "restore", **compute.facts()}
    if len(paths) > 1 and reference is not None and reference.is_file():
        console.note(f"{reference} is the reference of all {len(paths)} inputs; a folder gives each its own")
    if jobs:
        run_jobs(jobs, batch, compute, lpips_net, facts)
    batch.finish(facts)


def explain_tasks(batch: Batch) -> None:
    """Says, once in a call, what to add for a picture that nothing describes."""
    undescribed = [error.path for _, error in batch.failures if isinstance(error, NoTaskError)]
    if undescribed and not batch.console.quiet:
        with batch.item(undescribed[0]):
            batch.console.note(*guide(undescribed[0]))


def sample_names(target: Path, samples: int) -> tuple[Path, ...]:
    """out.png, or out_1.png .. out_K.png."""
    if samples == 1:
        return (target,)
    return tuple(target.with_stem(f"{target.stem}_{k + 1}") for k in range(samples))


def references(reference: Path | None) -> list[Path]:
    """The pictures that --reference may mean: they are read, and never written."""
    if reference is None or not os.path.isdir(reference):  # noqa: PTH112 - False for any odd name
        return [] if reference is None else [reference]
    return pictures_in(reference)


def unfinished(
    names: Iterable[tuple[int, Path]], input_sha256: str, flags: OutputFlags, console: Console
) -> Iterator[Target]:
    """The samples that are still to be drawn. Raises OutputError where one exists."""
    for k, path in names:
        made_of = {"kind": RESTORATION_KIND, "input_sha256": input_sha256, "sample": k}
        overwrite = may_write(path, [path.with_suffix(".json")], made_of, flags, console)
        if overwrite is not None:
            yield Target(path=path, sample=k, overwrite=overwrite)


def plan_input(path: Path, task: str | None, operator: OperatorOptions, sigma: Noise, console: Console) -> InputPlan:
    """Reads the sidecar and settles task, operator and sigma_y. Raises UsageError if they stay open."""
    sidecar, notes = read_sidecar(path)
    for note in notes:
        console.note(note)
    planned = plan_operator(path, sidecar, task, operator, sigma)
    for note in planned.notes:
        console.note(note)
    return planned


def find_reference(reference: Path | None, path: Path, planned: InputPlan) -> Path | None:
    """The true picture of an input: the file named, or the one of that name in the folder. Raises InputError."""
    if reference is None or reference.is_file():
        return reference
    if not reference.exists():
        raise InputError(f"the reference {reference} does not exist")
    names = [planned.sidecar.source.file] if planned.sidecar else []
    stems = [Path(name).stem for name in names] + [path.stem]
    pictures = pictures_in(reference)
    for stem in stems:
        found = [picture for picture in pictures if picture.stem == stem]
        if len(found) > 1:
            raise InputError(f"{path}: {' and '.join(map(str, found))} could both be its reference; name one")
        if found:
            return found[0]
    raise InputError(f"{path}: no reference named {' or '.join(dict.fromkeys(stems))} in {reference}")


def run_jobs(jobs: Sequence[Job], batch: Batch, compute: ComputeFlags, lpips_net: str, facts: dict[str, Any]) -> None:
    """Loads the prior once, restores every job, prints the scores at the end, and adds them to facts for --json.

    Interrupted, it does the last two for what is finished.
    """
    device = compute.start()
    prior = compute.load(device, batch.console)
    for text in dict.fromkeys(f"{job.plan.describe()}; {job.sampling}" for job in jobs):
        batch.console.note(text)
    for text in dict.fromkeys(job.sampling.caution for job in jobs if job.sampling.caution):
        batch.console.note(text)
    writer = Writer(prior=prior, compute=compute, device=device, batch=batch)
    scores = Scores(lpips_net, batch.console) if any(job.reference for job in jobs) else None
    num_steps = sum(len(job.targets) * job.sampling.nfe for job in jobs)
    try:
        with batch.console.progress(num_steps) as (advance, say):
            draw_all(jobs, batch, prior, writer, scores, advance, say)
    except KeyboardInterrupt:
        batch.print_object(facts | (scores.finish(batch.console) if scores else {}))
        raise
    if scores:
        facts |= scores.finish(batch.console)


def draw_all(
    jobs: Sequence[Job],
    batch: Batch,
    prior: LoadedPrior,
    writer: Writer,
    scores: Scores | None,
    advance: Callable[[], None],
    say: Callable[[str], None],
) -> None:
    """Restores, scores and writes every sample of every job."""
    from dmps_cli.device import micro_batch

    places = {job.path: k + 1 for k, job in enumerate(jobs)}
    size = micro_batch(writer.device, writer.compute.batch_size)
    for units in unit_groups(jobs, writer, size):
        last = units[-1].ready.job.path
        say(f"{last.name} (image {places[last]} of {len(jobs)})")
        for unit, outcome in drawn(units, writer, advance):
            metrics: dict[str, float] = {}
            with batch.item(unit.ready.job.path):  # a restoration is written even if it cannot be scored
                metrics = scores.of(unit, outcome.image, batch.console) if scores else metrics
            with batch.item(unit.ready.job.path):
                writer.write(unit, outcome, metrics)


def unit_groups(jobs: Sequence[Job], writer: Writer, size: int) -> Iterator[list[Unit]]:
    """Neighbouring samples that share an operator, at most `size` together; what cannot be read fails alone."""
    operators: dict[Any, LinearOperator] = {}  # the last one built: neighbours usually share it

    def units() -> Iterator[Unit]:
        for job in jobs:
            with writer.batch.item(job.path):
                ready = read(job, writer.batch.console, writer.prior, writer.device, operators)
                ready = with_fitting_sigma(ready, writer)
                yield from (Unit(ready=ready, target=target) for target in job.targets)

    def shared(unit: Unit) -> object:
        return unit.ready.job.plan.key, unit.ready.op.in_shape, unit.ready.sigma_y

    for _, group in groupby(units(), key=shared):
        while chunk := list(islice(group, size)):
            yield chunk


def read(
    job: Job, console: Console, prior: LoadedPrior, device: torch.device, operators: dict[Any, LinearOperator]
) -> Ready:
    """Reads measurement and reference, builds the operator. Raises InputError where they do not fit together."""
    from dmps_cli.operators.pointwise import Mask

    reading = read_measurement(job.path, job.input.sidecar, over_white=job.plan.mask_of is None)
    for note in reading.notes:
        console.note(note)
    pixels, is_exact = reading.pixels.to(device), reading.is_exact
    if is_exact and job.input.measured is not None:
        pixels, is_exact = as_picture(pixels, job.input.measured, job.path, device), False
    if job.input.sidecar is None and pixels.ndim == PICTURE_NDIM:
        is_exact = False  # floats that nobody vouches for are a picture
    if job.plan.image_shape is None and pixels.ndim != PICTURE_NDIM:
        raise InputError(
            f"{job.path} holds {tuple(pixels.shape[1:])}, not (channels, height, width); it has no sidecar"
        )
    if is_grey_input(job, pixels, console):
        pixels, channels = pixels[:, :1], 1
    else:
        channels = prior.prior.channels
    shape = planned_shape(job.plan, (pixels.shape[-2], pixels.shape[-1]), channels)
    check_channels(job.plan.task, shape[0])
    if prior.aligned_faces and shape[1:] != (prior.prior.least_size,) * 2:
        console.note(f"{job.path}: '{prior.name}' was trained on aligned faces of {prior.prior.least_size} px alone")
    sigma_y = job.plan.sigma_y
    if shape[0] == 1 and pixels.shape[1] == 3:
        pixels, share = grey_measurement(pixels, sigma_y, job.path, console)
        sigma_y *= share
    check_claimed(job.plan, pixels.numel(), job.path)
    key = (job.plan.key, shape)
    if key not in operators:
        operators.clear()
        operators[key] = job.plan.build(shape, device)
        for note in job.plan.mask_notes:
            console.note(note)
    op = operators[key]
    truth = load_truth(job, op)
    y = pixels if is_exact else op.from_image(fit_channels(pixels, op, job.path, console))
    if tuple(y.shape[1:]) != op.out_shape:
        raise InputError(
            f"{job.path} holds {tuple(y.shape[1:])}, but {job.plan.describe()} of a picture of "
            f"{shape[2]} x {shape[1]} px gives {op.out_shape}"
        )
    known = MeasuredNoise(sigma_y=sigma_y, is_none=sigma_y == 0.0)
    noise = estimated_noise(job.path, op, y, console) if job.plan.is_estimated else known
    kept = (op.to_image(y), op.keep) if noise.is_none and isinstance(op, Mask) else None
    sampling = own_sampling(job, op, prior, console)
    return Ready(job=job, y=y, op=op, truth=truth, noise=noise, sampling=sampling, kept=kept)


def own_sampling(job: Job, op: LinearOperator, prior: LoadedPrior, console: Console) -> Sampling:
    """The job's sampling; that for grey pictures where the picture is one and the prior is not; said."""
    if op.in_shape[0] == prior.prior.channels or job.grey_sampling == job.sampling:
        return job.sampling
    console.note(f"{job.path} is grey: {job.grey_sampling}")
    return job.grey_sampling


def is_grey_input(job: Job, pixels: Tensor, console: Console) -> bool:
    """Whether one value a pixel is restored: of grey files, and of colour files that are grey, which is said.

    A measurement with a sidecar is what that says.
    """
    from dmps_cli.images import is_grey

    if job.plan.image_shape is not None or pixels.ndim != PICTURE_NDIM or TASKS[job.plan.task].needs_colour:
        return False
    if pixels.shape[1] == 1 or job.input.sidecar is not None:
        return pixels.shape[1] == 1
    if is_grey(pixels):
        console.note(f"{job.path}: its channels are equal; one is restored, and the result is grey")
        return True
    return False


def estimated_noise(path: Path, op: LinearOperator, y: Tensor, console: Console) -> MeasuredNoise:
    """The noise of y, as the picture of it shows; said. Raises UsageError where no picture shows it."""
    from dmps_cli.noise_estimate import estimate_sigma
    from dmps_cli.operators.pointwise import Mask

    if op.to_image(y).shape[1:] != op.out_shape and not isinstance(op, Mask):
        raise UsageError(f"{path}: the measurement is no picture, that shows its noise; give --sigma")
    estimate = estimate_sigma(op.to_image(y)[0], op.keep if isinstance(op, Mask) else None)
    least = ", the rounding to 8 bits alone" if estimate.is_floor else ""
    console.note(f"{path}: its noise is estimated at {both_scales(estimate.sigma_y)}{least}; --sigma says otherwise")
    for note in estimate.notes:
        console.note(f"{path}: {note}")
    return MeasuredNoise(sigma_y=estimate.sigma_y, origin="estimated", notes=estimate.notes, is_none=estimate.is_floor)


def with_fitting_sigma(ready: Ready, writer: Writer) -> Ready:
    """A blur's estimated noise, raised where the kernel does not fit; what that takes and gives is said."""
    job, console = ready.job, writer.batch.console
    if not job.plan.is_estimated or TASKS[job.plan.task].kernel is None:
        return ready
    from dmps_cli.device import stopwatch
    from dmps_cli.raised_sigma import TRIAL_NFE, fitting_sigma

    def on_trial(trial: int, most: int) -> None:
        if trial == 2:  # the first is made of every picture
            left = f"{most - 1} trials of {TRIAL_NFE} evaluations at most"
            console.note(f"{job.path}: the kernel may not fit; larger sigmas are tried, {left}")

    elapsed = stopwatch(ready.op.device)
    y, op = trial_part(ready, writer.device)
    raised = fitting_sigma(
        y,
        op,
        writer.prior.prior,
        ready.sigma_y,
        job.plan.task,
        writer.prior.name,
        seed=writer.compute.seed,
        on_trial=on_trial,
    )
    if raised.text:
        console.note(f"{job.path}: {raised.text} ({raised.evaluations} evaluations to find it, {elapsed():.1f} s)")
    return replace(ready, noise=replace(ready.noise, sigma_y=raised.sigma_y, raised=raised))


def trial_part(ready: Ready, device: torch.device) -> tuple[Tensor, LinearOperator]:
    """(y, the operator) of the part that sigmas are tried on: of a scene that goes on around it, a part is one too."""
    from dmps_cli.raised_sigma import busiest

    y, plan = busiest(ready.y), ready.job.plan
    if ready.op.frame is None or y.shape == ready.y.shape:
        return ready.y, ready.op
    return y, plan.build(scene_shape(plan.task, plan.params, (y.shape[-2], y.shape[-1]), y.shape[1]), device)


def with_kept(image: Tensor, ready: Ready) -> Tensor:
    """The restoration (C, H, W), its kept pixels those of the picture where they have no noise."""
    if ready.kept is None:
        return image
    import torch

    picture, keep = ready.kept
    return torch.where(keep, picture[0], image)


def as_picture(y: Tensor, measured: OperatorPlan, path: Path, device: torch.device) -> Tensor:
    """Exact floats of one operator as the picture that another one takes them from. Raises InputError."""
    if not TASKS[measured.task].is_picture or measured.image_shape is None:
        raise InputError(f"{path} is a '{measured.task}' measurement; no other operator can take it")
    op = measured.build(measured.image_shape, device)
    if tuple(y.shape[1:]) != op.out_shape:
        raise InputError(f"{path} holds {tuple(y.shape[1:])}, but its sidecar says {op.out_shape}")
    return op.to_image(y)


def grey_measurement(y: Tensor, sigma_y: float, path: Path, console: Console) -> tuple[Tensor, float]:
    """(the grey value of a measurement in colour, (1, 1, ..), the share of its noise that is left); said.

    What every task but `colorize` does to the channels is the same for each: the grey value of the measurement is the
    measurement of the grey value.
    """
    from dmps_cli.images import to_grey

    grey, share = to_grey(y)
    left = (
        ""
        if share == 1.0 or sigma_y == 0.0
        else f", whose noise is {both_scales(share * sigma_y)} if that of the channels is independent"
    )
    console.note(f"{path} is in colour and the prior one of grey pictures; its grey value is restored{left}")
    return grey, share


def fit_channels(picture: Tensor, op: LinearOperator, path: Path, console: Console) -> Tensor:
    """A picture (1, 1 or 3, h, w) with the channels that the measurement has, said where they change."""
    wanted = 1 if op.out_shape[0] == 1 else 3
    if picture.shape[1] == 1 and wanted != 1:
        console.note(f"{path} is grey; its grey value is taken for red, green and blue")
        return picture.expand(-1, 3, -1, -1)
    if picture.shape[1] != 1 and wanted == 1:
        console.note(f"{path} is in colour; its grey value by the task's own weights is restored")
    return picture


def load_truth(job: Job, op: LinearOperator) -> Tensor | None:
    """The reference of what is written, (1, C, H, W), cropped as the sidecar says the photograph was; None without one.

    Of a scene that goes on beyond the picture it may be the whole. Raises InputError if it has another size.
    """
    if job.reference is None:
        return None
    from dmps_cli.images import cropped, load_channels

    truth = load_channels(job.reference, op.in_shape[0]).pixels[None]
    source = job.input.sidecar.source if job.input.sidecar else None
    if source and (truth.shape[-1], truth.shape[-2]) == (source.width, source.height):
        truth = cropped(truth, source.crop)
    if truth.shape[2:] == op.in_shape[1:]:
        truth = op.picture(truth)
    height, width = op.picture_size
    if truth.shape[2:] != (height, width):
        raise InputError(
            f"{job.path}: the reference {job.reference} is {truth.shape[-1]} x {truth.shape[-2]} px, the restoration "
            f"would be {width} x {height}"
        )
    return truth


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A sample: its picture (C, H, W), what it took, and how it fits.

    iterations: of conjugate gradients in each step, where solves are iterated; remark: what is unusual of the fit.
    """

    image: Tensor
    seconds: float
    iterations: list[int] | None
    fit: Fit
    remark: str | None

    def as_dict(self) -> dict[str, Any]:
        """For the sidecar."""
        taken = {"seconds": self.seconds} | ({"iterations": self.iterations} if self.iterations else {})
        return {"fit": self.fit.as_dict() | {"remark": self.remark}, **taken}


def drawn(units: Sequence[Unit], writer: Writer, advance: Callable[[], None]) -> Iterator[tuple[Unit, Outcome]]:
    """Yields each unit with its sample, of units computed together; a failure is all of theirs."""
    import torch

    from dmps_cli.device import stopwatch
    from dmps_cli.fit import fits_of, remark, usual
    from dmps_cli.pipeline import FILE_KEY, restore

    first = units[0].ready
    op, sigma_y, sampling, task = first.op, first.sigma_y, first.sampling, first.job.plan.task
    elapsed = stopwatch(op.device)
    iterations: list[list[int]] = []
    y = torch.cat([unit.ready.y for unit in units])
    try:
        x = restore(
            y,
            op,
            writer.prior.prior,
            sigma_y,
            sampling,
            seed=writer.compute.seed,
            keys=[(FILE_KEY[0], unit.target.sample) for unit in units],
            on_step=advance,
            on_iterations=iterations.extend,
        )
    except DmpsError as exc:
        for path in dict.fromkeys(unit.ready.job.path for unit in units):
            writer.batch.fail(str(path), exc)
        return
    seconds = elapsed() / len(units)
    fits = fits_of(y, op, x, sigma_y, is_clipped=writer.prior.prior.clips_x0)
    known = usual(sampling, task, writer.prior.name)
    for k, unit in enumerate(units):
        yield (
            unit,
            Outcome(
                image=with_kept(op.picture(x[k]), unit.ready),
                seconds=seconds,
                iterations=iterations[k] if iterations else None,
                fit=fits[k],
                remark=unit.ready.noise.remark or remark(fits[k], known, sigma_y, task),
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Writes restorations and their sidecars."""

    prior: LoadedPrior
    compute: ComputeFlags
    device: torch.device
    batch: Batch

    def write(self, unit: Unit, outcome: Outcome, scores: dict[str, float]) -> None:
        """A sidecar and then a picture; its path goes to stdout, what does not fit to stderr if nobody scores it."""
        from dmps_cli.images import encode

        target = unit.target
        encoded = encode(outcome.image, target.path)
        shown = {"picture": target.path.name, "picture_sha256": sha256_bytes(encoded)}
        facts = self.facts(unit, outcome) | shown | scores
        contents = {target.path.with_suffix(".json"): json_bytes(facts), target.path: encoded}
        write_together(contents, overwrite=target.overwrite)
        self.batch.results.append({**facts, "output": str(target.path)})
        self.batch.console.path(target.path)
        if outcome.remark and unit.ready.truth is None and not unit.ready.noise.remark:
            self.batch.console.note(f"{target.path}: {outcome.remark}")

    def facts(self, unit: Unit, outcome: Outcome) -> dict[str, Any]:
        """Everything that made a restoration."""
        job = unit.ready.job
        return {
            "kind": RESTORATION_KIND,
            "input": str(job.path),
            "input_sha256": job.sha256,
            "task": job.plan.task,
            "operator": dict(job.plan.params),
            **unit.ready.noise.as_dict(),
            **unit.ready.sampling.as_dict(),
            "seed": self.compute.seed,
            "sample": unit.target.sample,
            "model": self.prior.name,
            "model_sha256": self.prior.sha256,
            "dtype": self.prior.dtype,
            "device": str(unit.ready.op.device),
            **outcome.as_dict(),
            "versions": versions(),
        }


class Scores:
    """Metrics against the references, gathered into one table."""

    def __init__(self, lpips_net: str, console: Console) -> None:
        from dmps_cli.metrics import Scorer

        self.scorer = Scorer(lpips_net=lpips_net)
        self.rows: list[dict[str, Any]] = []
        self.sigmas: set[float] = set()
        self.channels = 3
        self.images: dict[str, None] = {}  # by input: samples of one are one image
        console.missing_metrics(self.scorer.missing)

    def of(self, unit: Unit, image: Tensor, console: Console) -> dict[str, float]:
        """The metrics of a sample (C, H, W); none without a reference."""
        truth = unit.ready.truth
        if truth is None:
            return {}
        scores = self.scorer.score(image[None], truth.to(image))[0]
        if absent := [name for name in self.scorer.names if name not in scores]:
            console.note(f"{unit.ready.job.path}: too small for {', '.join(absent)}; left out")
        self.channels = truth.shape[1]
        self.sigmas.add(unit.ready.sigma_y)
        self.images[unit.ready.job.path.name] = None
        self.rows.append({"image": unit.target.path.name, **scores})
        return scores

    def finish(self, console: Console) -> dict[str, Any]:
        """The table on stdout, its protocol under it; the protocol for --json."""
        if not self.rows:
            return {}
        protocol = self.scorer.protocol(self.rows, self.sigmas, self.images, self.channels)
        console.table(self.rows)
        console.result(protocol.line())
        return {"protocol": protocol.as_dict()}
