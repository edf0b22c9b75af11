"""One input of a restoration, read: its measurement, with operator, noise and reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dmps_cli.errors import InputError
from dmps_cli.files.measurements import Reading, Taken, read_measurement
from dmps_cli.jobs.noise import MeasuredNoise, noise_of
from dmps_cli.jobs.plan import check_claimed, recorded_plan
from dmps_cli.jobs.request import Job
from dmps_cli.listener import Listener
from dmps_cli.tasks.plan import OperatorPlan, planned_shape
from dmps_cli.tasks.rows import Shape3
from dmps_cli.tasks.table import check_channels, task
from dmps_cli.units import both_scales

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dmps_cli.operators.base import LinearOperator
    from dmps_cli.weights.loading import LoadedPrior

PICTURE_NDIM = 4


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A job with its measurement read.

    y: (1, *op.out_shape). noise: of y; less than the plan's where y is the grey value of a measurement in colour.
    truth: the reference, if there is one, (1, C, H, W) as `op.picture` gives a result. read: what the file held.
    """

    job: Job
    y: Tensor
    op: LinearOperator
    noise: MeasuredNoise
    truth: Tensor | None
    read: Reading

    @property
    def kind(self) -> object:
        """Equal for measurements that may be restored together."""
        return id(self.op), self.noise.sigma_y, None if self.noise.each is None else id(self.noise)

    def finished(self, x: Tensor) -> Tensor:
        """Returns the picture (C, H, W) in a sample x; pixels that a mask keeps without noise are those measured."""
        from dmps_cli.operators.pointwise import Mask

        picture = self.op.picture(x)
        if not (self.noise.is_none and isinstance(self.op, Mask)):
            return picture
        return self.op.to_image(self.y)[0].to(picture.device).where(self.op.keep.to(picture.device), picture)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads the measurements of jobs for a prior, onto its device; neighbours of one kind share the operator.

    seed: of trials with a larger sigma. built: the last operator.
    """

    prior: LoadedPrior
    seed: int
    listener: Listener
    built: dict[object, LinearOperator] = field(default_factory=dict)

    def measured(self, job: Job) -> Measured:
        """Returns what a job's file holds. Raises InputError where what is read does not fit together."""
        read = self.read(job)
        if task(job.plan.task).reads_file:
            return self.of_file(job, read)
        pixels, is_exact = self.pixels(job, read)
        shape, share = self.shape(job, pixels), 1.0
        if shape[0] == 1 and pixels.shape[1] == 3 and not task(job.plan.task).is_own:
            pixels, share = self.grey_value(job, pixels)
        check_claimed(job.plan, pixels.numel(), job.path)
        op = self.operator(job.plan, shape)
        check_result(job, op)
        y = self.y(job, pixels, op, is_exact=is_exact)
        noise = noise_of(job, y, op, share, self.prior, self.seed, self.listener)
        beyond = job.plan.beyond_the_frame if noise.raised and noise.raised.is_beyond else None
        if beyond is not None:
            job, op = replace(job, plan=beyond), self.operator(beyond, planned_shape(beyond, op.picture_size, shape[0]))
        truth = load_truth(job, op)
        return Measured(job=job, y=y, op=op, noise=noise, truth=truth, read=read)

    def of_file(self, job: Job, read: Reading) -> Measured:
        """Returns the measurement that a file is by itself; said."""
        from dmps_cli.jobs.jpeg import jpeg_measurement

        found, text = jpeg_measurement(job.path, self.prior.channels, self.prior.device)
        self.listener.note(f"{job.path}: {text}")
        check_result(job, found.op)
        found.op.task = job.plan.task
        noise = MeasuredNoise(sigma_y=float(found.sigma_y), origin="of the file's rounding")
        return Measured(job=job, y=found.y, op=found.op, noise=noise, truth=load_truth(job, found.op), read=read)

    def read(self, job: Job) -> Reading:
        """Returns what a job's file holds; said. Opacity that is the mask is not carried."""
        taken = Taken(
            is_picture=task(job.plan.task).is_picture and not task(job.plan.task).is_own,
            options=job.reading if job.plan.mask_of is None else replace(job.reading, alpha="keep"),
            own_colours=job.writing.keeps_metadata,
        )
        read = read_measurement(job.path, job.sidecar, taken)
        for note in read.notes:
            self.listener.note(note)
        return read if job.plan.mask_of is None else replace(read, alpha=None)

    def pixels(self, job: Job, read: Reading) -> tuple[Tensor, bool]:
        """Returns (what the file holds, (1, ..); whether that is y itself, rather than a picture of it)."""
        pixels, is_exact = read.pixels.to(self.prior.device), read.is_exact
        if job.sidecar is None:
            return self.undescribed(job, pixels), False
        recorded = recorded_plan(job.path, job.sidecar)
        if is_exact and recorded.task == job.plan.task and task(recorded.task).is_own:
            return pixels, is_exact  # by its own file or code, whatever that holds now
        if is_exact and recorded.key != job.plan.key:  # restored as another operator's
            return as_picture(pixels, recorded, job.path, self.prior.device), False
        return pixels, is_exact

    def undescribed(self, job: Job, pixels: Tensor) -> Tensor:
        """Returns a picture that nothing vouches for, its first channel where all are equal, which is said."""
        from dmps_cli.files.images import is_grey

        row = task(job.plan.task)
        if row.is_own and job.plan.image_shape is not None:
            return pixels
        if pixels.ndim != PICTURE_NDIM or (row.is_own and pixels.shape[1] not in (1, 3)):
            more = "; say what x has with --image-shape" if row.is_own else "; it has no sidecar"
            raise InputError(f"{job.path} holds {tuple(pixels.shape[1:])}, not (channels, height, width){more}")
        if pixels.shape[1] == 1 or row.needs_colour or not is_grey(pixels):
            return pixels
        self.listener.note(f"{job.path}: its channels are equal; one is restored, and the result is grey")
        return pixels[:, :1]

    def shape(self, job: Job, pixels: Tensor) -> Shape3:
        """Returns (C, H, W) of what is restored: what the sidecar says, or what the pixels imply."""
        plan, prior = job.plan, self.prior
        is_grey = plan.image_shape is None and pixels.shape[1] == 1 and not task(plan.task).needs_colour
        shape = planned_shape(plan, (pixels.shape[-2], pixels.shape[-1]), 1 if is_grey else prior.channels)
        check_channels(plan.task, shape[0])
        side = prior.least_size
        if prior.aligned_faces and shape[1:] != (side, side):
            self.listener.note(f"{job.path}: '{prior.name}' was trained on aligned faces of {side} px alone")
        return shape

    def grey_value(self, job: Job, y: Tensor) -> tuple[Tensor, float]:
        """Returns (the grey value of a measurement in colour, (1, 1, ..), the share of its noise that is left); said.

        What every task but `colorize` does to the channels is the same for each: the grey value of the measurement is
        the measurement of the grey value.
        """
        from dmps_cli.files.images import to_grey

        grey, share = to_grey(y)
        text = f"{job.path} is in colour and the prior one of grey pictures; its grey value is restored"
        if share < 1.0 and job.plan.sigma_y > 0.0:
            text += f", whose noise is {both_scales(share * job.plan.sigma_y)} if that of the channels is independent"
        self.listener.note(text)
        return grey, share

    def operator(self, plan: OperatorPlan, shape: Shape3) -> LinearOperator:
        """Returns the operator of a plan; how its mask was read is said where it is built."""
        key = (plan.key, shape)
        if key not in self.built:
            self.built.clear()
            self.built[key] = plan.build(shape, self.prior.device, self.listener)
            for note in plan.mask_notes(self.built[key]):
                self.listener.note(note)
        return self.built[key]

    def y(self, job: Job, pixels: Tensor, op: LinearOperator, *, is_exact: bool) -> Tensor:
        """Returns the measurement, (1, *op.out_shape), that the pixels are or show."""
        if task(job.plan.task).is_own and pixels.numel() == math.prod(op.out_shape):
            return pixels.reshape(1, *op.out_shape)
        y = pixels if is_exact else op.from_image(self.of_channels(job, pixels, op))
        if tuple(y.shape[1:]) != op.out_shape:
            raise InputError(
                f"{job.path} holds {tuple(y.shape[1:])}, but '{job.plan.task}' of a picture of "
                f"{op.in_shape[2]} x {op.in_shape[1]} px gives {op.out_shape}"
            )
        return y

    def of_channels(self, job: Job, picture: Tensor, op: LinearOperator) -> Tensor:
        """Returns a picture (1, 1 or 3, h, w) with the channels that the measurement has, said where they change."""
        wanted = 1 if op.out_shape[0] == 1 else 3
        if picture.shape[1] == 1 and wanted != 1:
            self.listener.note(f"{job.path} is grey; its grey value is taken for red, green and blue")
            return picture.expand(-1, 3, -1, -1)
        if picture.shape[1] != 1 and wanted == 1:
            self.listener.note(f"{job.path} is in colour; its grey value by the task's own weights is restored")
        return picture


def check_result(job: Job, op: LinearOperator) -> None:
    """Raises InputError, OutputError for a result that its format does not hold, or that would not be read again."""
    from dmps_cli.files.encoding import check_holds
    from dmps_cli.files.images import check_pixels

    height, width = op.picture_size
    check_pixels(f"the restoration of {job.path}", width, height)
    for target in job.targets.values():
        check_holds(target, (height, width))


def as_picture(y: Tensor, measured: OperatorPlan, path: Path, device: torch.device) -> Tensor:
    """Returns the exact floats of one operator as the picture that another one takes them from. Raises InputError."""
    row = task(measured.task)
    if row.is_own or not row.is_picture or measured.image_shape is None:
        raise InputError(f"{path} is a '{measured.task}' measurement; no other operator can take it")
    op = measured.build(measured.image_shape, device)
    if tuple(y.shape[1:]) != op.out_shape:
        raise InputError(f"{path} holds {tuple(y.shape[1:])}, but its sidecar says {op.out_shape}")
    return op.to_image(y)


def load_truth(job: Job, op: LinearOperator) -> Tensor | None:
    """Returns the reference of what is written, (1, C, H, W), cropped as the sidecar says the photograph was, if any.

    Of a scene that goes on beyond the picture it may be the whole. Raises InputError if it has another size.
    """
    if job.reference is None:
        return None
    from dmps_cli.files.images import cropped, load_channels

    truth = load_channels(job.reference, op.in_shape[0]).pixels[None]
    source = job.sidecar.source if job.sidecar else None
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
