"""One input of a restoration: planned from its file's names, then read with operator and noise."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli.errors import InputError
from dmps_cli.files.inputs import pictures_in
from dmps_cli.files.measurements import RESTORATION_KIND, read_measurement, read_sidecar
from dmps_cli.jobs.batch import OutputOptions, may_write
from dmps_cli.jobs.noise import MeasuredNoise, estimated_noise, raised_noise
from dmps_cli.jobs.plan import GivenSigma, InputPlan, check_claimed, plan_operator
from dmps_cli.listener import Listener
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.plan import OperatorPlan, planned_shape
from dmps_cli.tasks.table import TASKS, check_channels
from dmps_cli.units import both_scales

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dmps_cli.methods.choice import Sampling
    from dmps_cli.operators.base import LinearOperator
    from dmps_cli.weights.loading import LoadedPrior

PICTURE_NDIM = 4


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
class Measured:
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


def sample_names(target: Path, samples: int) -> tuple[Path, ...]:
    """Returns out.png, or out_1.png .. out_K.png."""
    if samples == 1:
        return (target,)
    return tuple(target.with_stem(f"{target.stem}_{k + 1}") for k in range(samples))


def references(reference: Path | None) -> list[Path]:
    """Returns the pictures that --reference may mean: they are read, and never written."""
    if reference is None or not os.path.isdir(reference):  # noqa: PTH112 - False for any odd name
        return [] if reference is None else [reference]
    return pictures_in(reference)


def unfinished(
    names: Iterable[tuple[int, Path]], input_sha256: str, flags: OutputOptions, listener: Listener
) -> Iterator[Target]:
    """Yields the samples that are still to be drawn. Raises OutputError where one exists."""
    for k, path in names:
        made_of = {"kind": RESTORATION_KIND, "input_sha256": input_sha256, "sample": k}
        overwrite = may_write(path, [path.with_suffix(".json")], made_of, flags, listener)
        if overwrite is not None:
            yield Target(path=path, sample=k, overwrite=overwrite)


def plan_input(
    path: Path, task: str | None, operator: OperatorOptions, sigma: GivenSigma, listener: Listener
) -> InputPlan:
    """Reads the sidecar and settles task, operator and sigma_y. Raises UsageError if they stay open."""
    sidecar, notes = read_sidecar(path)
    for note in notes:
        listener.note(note)
    planned = plan_operator(path, sidecar, task, operator, sigma)
    for note in planned.notes:
        listener.note(note)
    return planned


def find_reference(reference: Path | None, path: Path, planned: InputPlan) -> Path | None:
    """Returns the true picture of an input: the file named, or the one of that name in the folder.

    Raises InputError.
    """
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


def measured(
    job: Job,
    prior: LoadedPrior,
    device: torch.device,
    operators: dict[Any, LinearOperator],
    seed: int,
    listener: Listener,
) -> Measured:
    """Reads measurement and reference, builds the operator, settles the noise.

    operators: the last one built. seed: of trials with a larger sigma. Raises InputError where what is read does not
    fit together.
    """
    from dmps_cli.operators.pointwise import Mask

    reading = read_measurement(job.path, job.input.sidecar, over_white=job.plan.mask_of is None)
    for note in reading.notes:
        listener.note(note)
    pixels, is_exact = reading.pixels.to(device), reading.is_exact
    if is_exact and job.input.measured is not None:
        pixels, is_exact = as_picture(pixels, job.input.measured, job.path, device), False
    if job.input.sidecar is None and pixels.ndim == PICTURE_NDIM:
        is_exact = False  # floats that nobody vouches for are a picture
    if job.plan.image_shape is None and pixels.ndim != PICTURE_NDIM:
        raise InputError(
            f"{job.path} holds {tuple(pixels.shape[1:])}, not (channels, height, width); it has no sidecar"
        )
    if is_grey_input(job, pixels, listener):
        pixels, channels = pixels[:, :1], 1
    else:
        channels = prior.prior.channels
    shape = planned_shape(job.plan, (pixels.shape[-2], pixels.shape[-1]), channels)
    check_channels(job.plan.task, shape[0])
    if prior.aligned_faces and shape[1:] != (prior.prior.least_size,) * 2:
        listener.note(f"{job.path}: '{prior.name}' was trained on aligned faces of {prior.prior.least_size} px alone")
    sigma_y = job.plan.sigma_y
    if shape[0] == 1 and pixels.shape[1] == 3:
        pixels, share = grey_measurement(pixels, sigma_y, job.path, listener)
        sigma_y *= share
    check_claimed(job.plan, pixels.numel(), job.path)
    key = (job.plan.key, shape)
    if key not in operators:
        operators.clear()
        operators[key] = job.plan.build(shape, device)
        for note in job.plan.mask_notes(operators[key]):
            listener.note(note)
    op = operators[key]
    truth = load_truth(job, op)
    y = pixels if is_exact else op.from_image(fit_channels(pixels, op, job.path, listener))
    if tuple(y.shape[1:]) != op.out_shape:
        raise InputError(
            f"{job.path} holds {tuple(y.shape[1:])}, but '{job.plan.task}' of a picture of "
            f"{shape[2]} x {shape[1]} px gives {op.out_shape}"
        )
    known = MeasuredNoise(sigma_y=sigma_y, is_none=sigma_y == 0.0)
    noise = estimated_noise(job.path, op, y, listener) if job.plan.is_estimated else known
    noise = raised_noise(noise, job.path, job.plan, y, op, prior, seed, listener)
    kept = (op.to_image(y), op.keep) if noise.is_none and isinstance(op, Mask) else None
    sampling = own_sampling(job, op, prior, listener)
    return Measured(job=job, y=y, op=op, truth=truth, noise=noise, sampling=sampling, kept=kept)


def own_sampling(job: Job, op: LinearOperator, prior: LoadedPrior, listener: Listener) -> Sampling:
    """Returns the job's sampling; that for grey pictures where the picture is one and the prior is not; said."""
    if op.in_shape[0] == prior.prior.channels or job.grey_sampling == job.sampling:
        return job.sampling
    listener.note(f"{job.path} is grey: {job.grey_sampling}")
    return job.grey_sampling


def is_grey_input(job: Job, pixels: Tensor, listener: Listener) -> bool:
    """Returns whether one value a pixel is restored: of grey files, and of colour files that are grey, which is said.

    A measurement with a sidecar is what that says.
    """
    from dmps_cli.files.images import is_grey

    if job.plan.image_shape is not None or pixels.ndim != PICTURE_NDIM or TASKS[job.plan.task].needs_colour:
        return False
    if pixels.shape[1] == 1 or job.input.sidecar is not None:
        return pixels.shape[1] == 1
    if is_grey(pixels):
        listener.note(f"{job.path}: its channels are equal; one is restored, and the result is grey")
        return True
    return False


def as_picture(y: Tensor, measured: OperatorPlan, path: Path, device: torch.device) -> Tensor:
    """Returns the exact floats of one operator as the picture that another one takes them from. Raises InputError."""
    if not TASKS[measured.task].is_picture or measured.image_shape is None:
        raise InputError(f"{path} is a '{measured.task}' measurement; no other operator can take it")
    op = measured.build(measured.image_shape, device)
    if tuple(y.shape[1:]) != op.out_shape:
        raise InputError(f"{path} holds {tuple(y.shape[1:])}, but its sidecar says {op.out_shape}")
    return op.to_image(y)


def grey_measurement(y: Tensor, sigma_y: float, path: Path, listener: Listener) -> tuple[Tensor, float]:
    """Returns (the grey value of a measurement in colour, (1, 1, ..), the share of its noise that is left); said.

    What every task but `colorize` does to the channels is the same for each: the grey value of the measurement is the
    measurement of the grey value.
    """
    from dmps_cli.files.images import to_grey

    grey, share = to_grey(y)
    left = (
        ""
        if share == 1.0 or sigma_y == 0.0
        else f", whose noise is {both_scales(share * sigma_y)} if that of the channels is independent"
    )
    listener.note(f"{path} is in colour and the prior one of grey pictures; its grey value is restored{left}")
    return grey, share


def fit_channels(picture: Tensor, op: LinearOperator, path: Path, listener: Listener) -> Tensor:
    """Returns a picture (1, 1 or 3, h, w) with the channels that the measurement has, said where they change."""
    wanted = 1 if op.out_shape[0] == 1 else 3
    if picture.shape[1] == 1 and wanted != 1:
        listener.note(f"{path} is grey; its grey value is taken for red, green and blue")
        return picture.expand(-1, 3, -1, -1)
    if picture.shape[1] != 1 and wanted == 1:
        listener.note(f"{path} is in colour; its grey value by the task's own weights is restored")
    return picture


def load_truth(job: Job, op: LinearOperator) -> Tensor | None:
    """Returns the reference of what is written, (1, C, H, W), cropped as the sidecar says the photograph was.

    None without one.

    Of a scene that goes on beyond the picture it may be the whole. Raises InputError if it has another size.
    """
    if job.reference is None:
        return None
    from dmps_cli.files.images import cropped, load_channels

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
