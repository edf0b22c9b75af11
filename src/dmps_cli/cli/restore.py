"""`dmps restore`: degraded pictures in, restorations out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmps_cli import __version__
from dmps_cli.cli.batch import Batch, open_batch, plan_outputs, taken
from dmps_cli.cli.console import Console
from dmps_cli.cli.operators import OperatorPlan, plan_operator, planned_shape
from dmps_cli.cli.options import (
    ComputeFlags,
    Inputs,
    LpipsNet,
    OutputFlags,
    SamplingFlags,
    Sigma,
    TaskName,
    checked_sigma,
    checked_task,
    command_options,
)
from dmps_cli.errors import DmpsError, InputError, UsageError
from dmps_cli.files import atomic_write, sha256_bytes, sha256_file
from dmps_cli.measurements import json_bytes, read_measurement, read_sidecar, versions
from dmps_cli.metrics import GREY_LEVELS
from dmps_cli.tasks import OperatorOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from torch import Tensor

    from dmps_cli.methods import Sampling
    from dmps_cli.operators.base import LinearOperator
    from dmps_cli.weights import LoadedPrior

PICTURE_NDIM = 4
RESTORATION_KIND = "dmps restoration"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One input, checked as far as that goes without torch."""

    path: Path
    targets: tuple[Path, ...]
    plan: OperatorPlan
    sampling: Sampling
    reference: Path | None


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A job with its measurement read and its operator built."""

    job: Job
    y: Tensor
    op: LinearOperator


@command_options
def restore(
    inputs: Inputs,
    operator: OperatorOptions,
    sampling: SamplingFlags,
    compute: ComputeFlags,
    output: OutputFlags,
    task: TaskName = None,
    sigma: Sigma = None,
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
    sampling.resolve()
    compute.check()
    checked_task(task)
    checked_sigma(sigma)
    if samples < 1:
        raise UsageError(f"--samples is {samples}; it must be at least 1")
    batch, paths = open_batch(inputs, console)
    jobs = []
    for path, target in plan_outputs(batch, paths, "_restored", output):
        with batch.item(path):
            targets = sample_names(target, samples)
            if not taken(targets, [t.with_suffix(".json") for t in targets], output, console):
                jobs.append(make_job(path, targets, task, operator, sigma, sampling, reference, console))
    if jobs:
        run_jobs(jobs, batch, compute, output, lpips_net)
    batch.finish({"version": __version__, "command": "restore", **asdict(compute)})


def sample_names(target: Path, samples: int) -> tuple[Path, ...]:
    """out.png, or out_1.png .. out_K.png."""
    if samples == 1:
        return (target,)
    return tuple(target.with_stem(f"{target.stem}_{k + 1}") for k in range(samples))


def make_job(
    path: Path,
    targets: tuple[Path, ...],
    task: str | None,
    operator: OperatorOptions,
    sigma: float | None,
    sampling: SamplingFlags,
    reference: Path | None,
    console: Console,
) -> Job:
    """Reads the sidecar and settles task, operator and sigma_y. Raises UsageError if they stay open."""
    sidecar, notes = read_sidecar(path)
    plan, more = plan_operator(path, sidecar, task, operator, sigma)
    for note in (*notes, *more):
        console.note(note)
    return Job(
        path=path,
        targets=targets,
        plan=plan,
        sampling=sampling.resolve(plan.task),
        reference=find_reference(reference, path, plan),
    )


def find_reference(reference: Path | None, path: Path, plan: OperatorPlan) -> Path | None:
    """The true picture of an input: the file named, or the one of that name in the folder. Raises InputError."""
    if reference is None or reference.is_file():
        return reference
    if not reference.exists():
        raise InputError(f"the reference {reference} does not exist")
    names = [plan.sidecar.source.file] if plan.sidecar else []
    stems = [Path(name).stem for name in names] + [path.stem]
    for stem in stems:
        found = sorted(candidate for candidate in reference.iterdir() if candidate.stem == stem)
        if found:
            return found[0]
    raise InputError(f"{path}: no reference named {' or '.join(stems)} in {reference}")


def run_jobs(
    jobs: Sequence[Job],
    batch: Batch,
    compute: ComputeFlags,
    output: OutputFlags,
    lpips_net: str,
) -> None:
    """Loads the prior once, restores every job, prints the scores at the end."""
    from dmps_cli.weights import load_prior

    device = compute.start()
    prior = load_prior(compute.model, device, compute.dtype)
    for text in dict.fromkeys(f"{job.plan.describe()}; {job.sampling}" for job in jobs):
        batch.console.note(text)
    batch.console.note(f"prior {prior.name}, {compute.dtype} on {device}")
    writer = Writer(prior=prior, compute=compute, output=output, batch=batch)
    scores = Scores(lpips_net, batch.console) if any(job.reference for job in jobs) else None
    num_steps = sum(len(job.targets) * job.sampling.nfe for job in jobs)
    with batch.console.progress(num_steps) as (advance, say):
        num_started = 0
        for group in ready_groups(jobs, batch, device, compute.batch_size):
            num_started += len(group)
            say(f"{group[-1].job.path.name} (image {num_started} of {len(jobs)})")
            for ready, images, seconds in restored(group, writer, advance):
                metrics: list[dict[str, float]] = [{} for _ in images]
                with batch.item(ready.job.path):  # a restoration is written even if it cannot be scored
                    metrics = scores.of(ready.job, images) if scores else metrics
                with batch.item(ready.job.path):
                    writer.write(ready, images, seconds, metrics)
    if scores:
        scores.print(batch.console)


def ready_groups(jobs: Sequence[Job], batch: Batch, device: torch.device, batch_size: int) -> Iterator[list[Ready]]:
    """Neighbouring inputs that share an operator, at most batch_size together; what cannot be read fails alone."""
    operators: dict[Any, LinearOperator] = {}  # the last one built: neighbours usually share it

    def readable() -> Iterator[Ready]:
        for job in jobs:
            with batch.item(job.path):
                yield read(job, batch.console, device, operators)

    def shared(ready: Ready) -> object:
        return ready.job.plan.key, ready.op.in_shape, ready.job.plan.sigma_y

    for _, group in groupby(readable(), key=shared):
        while chunk := list(islice(group, batch_size)):
            yield chunk


def read(job: Job, console: Console, device: torch.device, operators: dict[Any, LinearOperator]) -> Ready:
    """Reads the measurement and builds its operator. Raises InputError where they do not fit together."""
    reading = read_measurement(job.path, job.plan.sidecar)
    for note in reading.notes:
        console.note(note)
    pixels = reading.pixels.to(device)
    if job.plan.image_shape is None and pixels.ndim != PICTURE_NDIM:
        raise InputError(
            f"{job.path} holds {tuple(pixels.shape[1:])}, not (channels, height, width); its sidecar is missing"
        )
    shape = planned_shape(job.plan, (pixels.shape[-2], pixels.shape[-1]))
    key = (job.plan.key, shape)
    if key not in operators:
        operators.clear()
        operators[key] = job.plan.build(shape, device)
    op = operators[key]
    y = pixels if reading.is_exact else op.from_image(fit_channels(pixels, op, job.path, console))
    if tuple(y.shape[1:]) != op.out_shape:
        raise InputError(
            f"{job.path} holds {tuple(y.shape[1:])}, but {job.plan.describe()} of a picture of "
            f"{shape[2]} x {shape[1]} px gives {op.out_shape}"
        )
    return Ready(job=job, y=y, op=op)


def fit_channels(picture: Tensor, op: LinearOperator, path: Path, console: Console) -> Tensor:
    """A picture (1, 1 or 3, h, w) with the channels that the measurement has, said where they change."""
    wanted = 1 if op.out_shape[0] == 1 else 3
    if picture.shape[1] == 1 and wanted != 1:
        console.note(f"{path} is grey; its grey value is taken for red, green and blue")
        return picture.expand(-1, 3, -1, -1)
    if picture.shape[1] != 1 and wanted == 1:
        console.note(f"{path} is in colour; its grey value by the task's own weights is restored")
    return picture


def restored(
    group: Sequence[Ready], writer: Writer, advance: Callable[[], None]
) -> Iterator[tuple[Ready, Tensor, float]]:
    """Yields (job, samples (K, C, H, W), seconds per sample) for each of a group computed together."""
    import torch

    from dmps_cli.device import micro_batch, stopwatch
    from dmps_cli.pipeline import FILE_KEY, restore

    op, num_samples = group[0].op, len(group[0].job.targets)
    for together in ([ready] for ready in group) if micro_batch(op.device, len(group)) == 1 else [group]:
        y = torch.cat([ready.y.expand(num_samples, *op.out_shape) for ready in together])
        keys = [(FILE_KEY[0], k) for k in range(num_samples)] * len(together)
        elapsed = stopwatch(op.device)
        try:
            x = restore(
                y,
                op,
                writer.prior.prior,
                together[0].job.plan.sigma_y,
                together[0].job.sampling,
                seed=writer.compute.seed,
                keys=keys,
                on_step=advance,
            )
        except DmpsError as exc:
            for ready in together:
                writer.batch.fail(str(ready.job.path), exc)
            continue
        seconds = elapsed() / len(y)
        for ready, images in zip(together, torch.split(x, num_samples), strict=True):
            yield ready, images, seconds


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Writes restorations and their sidecars."""

    prior: LoadedPrior
    compute: ComputeFlags
    output: OutputFlags
    batch: Batch

    def write(self, ready: Ready, images: Tensor, seconds: float, metrics: Sequence[dict[str, float]]) -> None:
        """One picture and one sidecar per sample, the picture last; the paths go to stdout."""
        from dmps_cli.images import encode

        for k, (target, image, scores) in enumerate(zip(ready.job.targets, images, metrics, strict=True)):
            encoded = encode(image, target)
            facts = self.facts(ready, k, seconds) | {"picture_sha256": sha256_bytes(encoded), **scores}
            atomic_write(target.with_suffix(".json"), json_bytes(facts), overwrite=self.output.overwrite)
            atomic_write(target, encoded, overwrite=self.output.overwrite)
            self.batch.results.append({**facts, "output": str(target)})
            self.batch.console.result(str(target))

    def facts(self, ready: Ready, sample: int, seconds: float) -> dict[str, Any]:
        """Everything that made a restoration."""
        plan = ready.job.plan
        return {
            "kind": RESTORATION_KIND,
            "input": str(ready.job.path),
            "input_sha256": sha256_file(ready.job.path),
            "task": plan.task,
            "operator": dict(plan.params),
            "sigma_y": plan.sigma_y,
            "sigma_y_255": plan.sigma_y * GREY_LEVELS,
            **ready.job.sampling.as_dict(),
            "seed": self.compute.seed,
            "sample": sample,
            "model": self.prior.name,
            "model_sha256": self.prior.sha256,
            "dtype": self.prior.dtype,
            "device": str(ready.op.device),
            "seconds": seconds,
            "versions": versions(),
        }


class Scores:
    """Metrics against the references, gathered into one table."""

    def __init__(self, lpips_net: str, console: Console) -> None:
        from dmps_cli.metrics import Scorer

        self.scorer = Scorer(lpips_net=lpips_net)
        self.rows: list[dict[str, Any]] = []
        self.sigmas: set[float] = set()
        console.missing_metrics(self.scorer.missing)

    def of(self, job: Job, images: Tensor) -> list[dict[str, float]]:
        """One dict of metrics per sample; empty without a reference. Raises InputError if the sizes differ."""
        if job.reference is None:
            return [{} for _ in images]
        truth = load_truth(job).to(images)
        if truth.shape[1:] != images.shape[1:]:
            raise InputError(
                f"the reference {job.reference} is {truth.shape[-1]} x {truth.shape[-2]} px, the restoration "
                f"{images.shape[-1]} x {images.shape[-2]}"
            )
        scores = [self.scorer.score(image[None], truth)[0] for image in images]
        self.sigmas.add(job.plan.sigma_y)
        self.rows += [{"image": target.name, **row} for target, row in zip(job.targets, scores, strict=True)]
        return scores

    def print(self, console: Console) -> None:
        """The table on stdout, its protocol under it."""
        if self.rows:
            console.table(self.rows)
            console.result(self.scorer.protocol(self.sigmas, [row["image"] for row in self.rows]).line())


def load_truth(job: Job) -> Tensor:
    """The reference as (1, 3, H, W), cropped as the sidecar says the photograph was."""
    from dmps_cli.images import cropped, load_rgb

    truth = load_rgb(job.reference).pixels[None]  # type: ignore[arg-type]
    source = job.plan.sidecar.source if job.plan.sidecar else None
    if source and (truth.shape[-1], truth.shape[-2]) == (source.width, source.height):
        return cropped(truth, source.crop)
    return truth
