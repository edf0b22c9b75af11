"""The noise of one measurement: given, estimated, or raised where a kernel does not fit."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli.errors import UsageError
from dmps_cli.jobs.noise_values import common_sigma, each_sigma
from dmps_cli.listener import Listener
from dmps_cli.tasks.geometry import scene_shape
from dmps_cli.tasks.options import VALID
from dmps_cli.tasks.plan import OperatorPlan
from dmps_cli.tasks.table import task
from dmps_cli.units import GREY_LEVELS, SEEN_ROUNDING, both_scales

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dmps_cli.jobs.raised_sigma import Raised
    from dmps_cli.jobs.request import Job
    from dmps_cli.operators.base import LinearOperator
    from dmps_cli.weights.loading import LoadedPrior


@dataclass(frozen=True, kw_only=True)
class MeasuredNoise:
    """sigma_y, and where it is from: given by --sigma or the sidecar, or estimated; then notes on its kind.

    is_none: whether the measurement is exact, up to its rounding. is_bound: whether the file is compressed, so that
    less of the noise may be left than sigma_y. each: of each number of y (*out_shape), where they have their own;
    sigma_y is then the common one.
    """

    sigma_y: float
    origin: str = "given"
    notes: tuple[str, ...] = ()
    is_none: bool = False
    is_bound: bool = False
    raised: Raised | None = None
    each: Tensor | None = None

    @property
    def remark(self) -> str | None:
        """What was said of the kernel already, before anything was restored with it."""
        return self.raised.text if self.raised else None

    def as_dict(self) -> dict[str, Any]:
        """Returns what the sidecar says of it."""
        facts = {"sigma_y": self.sigma_y, "sigma_y_255": self.sigma_y * GREY_LEVELS, "sigma_origin": self.origin}
        facts |= {"sigma_search": self.raised.as_dict()} if self.raised else {}
        return facts | ({"noise_notes": list(self.notes)} if self.notes else {})


def noise_of(
    job: Job, y: Tensor, op: LinearOperator, share: float, prior: LoadedPrior, seed: int, listener: Listener
) -> MeasuredNoise:
    """Returns the noise of y: as the plan says it, of which y has a share, or as y shows it.

    seed: of trials with the prior. Raises UsageError where it is to be estimated, and no picture shows it.
    """
    if job.plan.each_sigma is not None:
        each = share * each_sigma(job.plan.each_sigma, op)
        return MeasuredNoise(sigma_y=common_sigma(each), origin="of each value", each=each)
    from dmps_cli.files.compression import rounding_of

    rounding = rounding_of(job.path)
    is_compressed = rounding is not None and not job.sidecar
    if not job.plan.is_estimated:
        sigma_y = share * job.plan.sigma_y
        return MeasuredNoise(sigma_y=sigma_y, is_none=sigma_y == 0.0, is_bound=is_compressed)
    noise = estimated_noise(job.path, op, y, listener)
    if task(job.plan.task).kernel is None:
        if is_compressed and rounding is not None and rounding > max(noise.sigma_y * GREY_LEVELS, SEEN_ROUNDING):
            listener.note(
                f"{job.path}: its JPEG compression is an error of {rounding:.2g} of 255, more than the noise; "
                "--task jpeg restores that"
            )
        return replace(noise, is_bound=is_compressed)
    return raised_noise(compressed_noise(noise, job.path, rounding, listener), job, y, op, prior, seed, listener)


def estimated_noise(path: Path, op: LinearOperator, y: Tensor, listener: Listener) -> MeasuredNoise:
    """Returns the noise of y, as the picture of it shows; said. Raises UsageError where no picture shows it."""
    from dmps_cli.jobs.noise_estimate import estimate_sigma
    from dmps_cli.operators.pointwise import Mask

    if op.to_image(y).shape[1:] != op.out_shape and not isinstance(op, Mask):
        raise UsageError(f"{path}: the measurement is no picture that shows its noise; give --sigma")
    estimate = estimate_sigma(op.to_image(y)[0], op.keep if isinstance(op, Mask) else None)
    least = ", the rounding to 8 bits alone" if estimate.is_floor else ""
    listener.note(f"{path}: its noise is estimated at {both_scales(estimate.sigma_y)}{least}; --sigma replaces it")
    for note in estimate.notes:
        listener.note(f"{path}: {note}")
    return MeasuredNoise(sigma_y=estimate.sigma_y, origin="estimated", notes=estimate.notes, is_none=estimate.is_floor)


def compressed_noise(noise: MeasuredNoise, path: Path, rounding: float | None, listener: Listener) -> MeasuredNoise:
    """Returns the noise of a blur with what a JPEG file's rounding, grey levels, adds to it; said. None: another file.

    Compression takes the high frequencies, where noise is looked for, and leaves an error in those that a kernel is
    divided out of.
    """
    if rounding is None:
        return noise
    sigma_y = math.hypot(noise.sigma_y, rounding / GREY_LEVELS)
    listener.note(f"{path}: its JPEG compression is an error of {rounding:.2g} of 255 beside: {both_scales(sigma_y)}")
    return replace(noise, sigma_y=sigma_y, is_none=False, is_bound=True)


def raised_noise(
    noise: MeasuredNoise, job: Job, y: Tensor, op: LinearOperator, prior: LoadedPrior, seed: int, listener: Listener
) -> MeasuredNoise:
    """Returns a blur's estimated noise, raised where the kernel does not fit; what that takes and gives is said."""
    from dmps_cli.device import stopwatch
    from dmps_cli.jobs.raised_sigma import TRIAL_NFE, fitting_sigma

    path, plan = job.path, job.plan

    def on_search(trials: int) -> None:
        left = f"{trials} trials of {TRIAL_NFE} evaluations at most"
        listener.note(f"{path}: the kernel may not fit; larger sigmas are tried, {left}")

    elapsed = stopwatch(op.device)
    beyond = plan.beyond_the_frame
    raised = fitting_sigma(
        trial_part(y, plan, op.device),
        None if beyond is None else trial_part(y, beyond, op.device),
        prior.prior,
        noise.sigma_y,
        plan.task,
        prior.name,
        seed=seed,
        on_search=on_search,
    )
    if raised.text:
        listener.note(f"{path}: {raised.text} ({raised.evaluations} evaluations to find it, {elapsed():.1f} s)")
    return replace(noise, sigma_y=raised.sigma_y, raised=raised)


def trial_part(y: Tensor, plan: OperatorPlan, device: torch.device) -> tuple[Tensor, LinearOperator]:
    """Returns (y, the operator) of the part that sigmas are tried on: of a scene that goes on around it, a part is one.

    Elsewhere all of it.
    """
    from dmps_cli.jobs.raised_sigma import busiest

    part = busiest(y) if plan.params["boundary"] == VALID else y
    shape = scene_shape(plan.task, plan.params, (part.shape[-2], part.shape[-1]), part.shape[1])
    return part, plan.build(shape, device)
