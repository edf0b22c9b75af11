"""Degradation and restoration of one batch, from objects to tensors; no files, no names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dmps_cli import fields
from dmps_cli.device import check_memory, micro_batch, stopwatch
from dmps_cli.errors import memory_errors
from dmps_cli.files.atomic import content_key
from dmps_cli.levels import SAMPLERS
from dmps_cli.methods.choice import Sampling, build_posterior
from dmps_cli.methods.posterior import Posterior
from dmps_cli.methods.table import METHODS
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.grey import OfGreyValue
from dmps_cli.operators.inside import Inside
from dmps_cli.operators.measurement import Measurement
from dmps_cli.priors import Prior
from dmps_cli.sampling import Noise, sample
from dmps_cli.units import LARGE_PIXELS, duration
from dmps_cli.windows import WindowedPrior, for_large, strips_bytes

Key = tuple[int, int]
"""What an image is (not where it stands in a batch), and the number of its sample."""

SampleKey = tuple[int, ...]
"""A Key; of the further samples that a mean is taken of, their number beside it."""

FILE_KEY: Key = (0, 0)
"""Every file of `restore`: the same file gives the same result in any call."""


def picture_key(x: Tensor) -> Key:
    """Returns a key by a picture's pixels.

    Its noise in `degrade`, that of no other picture, whatever its name or place.

    x: (1, C, H, W) or (C, H, W), float32.
    """
    return content_key(x.contiguous().cpu().numpy().tobytes()), 0


SMALLER = "take a smaller picture, --tile 512 or --dtype bfloat16"
BACKWARD_MEMORY = 4.5
"""Peak memory of a call of the network with the way back, over that of the call (natural: 3.8; in bfloat16 4.4)."""


def degrade(x: Tensor, op: LinearOperator, sigma_y: float | Tensor, *, seed: int, keys: Sequence[Key]) -> Tensor:
    """Returns the measurement y = A x + n, n ~ N(0, sigma_y^2 I).

    x: (B, C, H, W) on [-1, 1]; sigma_y on the same scale, of all numbers or of each; keys: one per image.
    Result: (B, *op.out_shape).
    """
    with memory_errors():
        y = op.A(x)
        return y + sigma_y * Noise(seed, Noise.MEASUREMENT, keys).like(y)


@torch.no_grad()
def restore(
    measurement: Measurement,
    prior: Prior,
    sampling: Sampling,
    *,
    seed: int,
    keys: Sequence[Key],
    on_step: Callable[[], None] = lambda: None,
    instrument: Callable[[Posterior], Posterior] = lambda method: method,
    on_iterations: Callable[[list[list[int]]], None] = lambda iterations: None,
) -> Tensor:
    """Returns a posterior sample x given the measurement, for each item of its batch; or the mean of several.

    A picture smaller than what the prior knows is restored as the middle of one that is large enough. A grey one is
    restored by a prior of colour as the mean of the channels, of which there is one measurement with one noise.

    measurement: y on op.device; keys: one per item. Result: (B, *op.in_shape), not clipped. On a CPU the items are
    computed one at a time, so that their bits do not depend on the batch. on_step is called once per item and
    network evaluation; instrument wraps the method, to watch it or to put another in its place; on_iterations is given,
    part by part, the iterations in each step of each item, if the operator's solves are iterated. A large picture is
    restored strip by strip, its state and the result on the CPU, in a file where it takes more than
    `fields.FILE_BYTES`. Raises NumericsError if a state is no longer finite, ConvergenceError if a solve fails,
    UsageError if the method cannot work with the operator, MemoryShortageError.
    """
    measurement = measurement.whitened()
    y, op = measurement.y, measurement.op
    is_large = by_strips(op.in_shape, sampling)
    prior = for_large(prior) if is_large else prior
    size = 1 if is_large else micro_batch(op.device, len(y))
    height, width = prior.fitting(*op.in_shape[1:])
    needed = strips_bytes(prior, op.in_shape, op.out_shape) if is_large else prior.peak_bytes(height, width)
    if needed is not None and METHODS[sampling.method].back_propagates:
        needed *= BACKWARD_MEMORY
    advice = "close other programs, or take a smaller picture" if is_large else SMALLER
    check_memory(needed, min(size, len(y)), op.device, f"a picture of {width} x {height} px", advice)
    with memory_errors():
        parts = [
            _mean_together(
                replace(measurement, y=y[i : i + size]),
                prior,
                sampling,
                seed,
                keys[i : i + size],
                on_step,
                instrument,
                on_iterations,
            )
            for i in range(0, len(y), size)
        ]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def by_strips(shape: Sequence[int], sampling: Sampling) -> bool:
    """Returns whether images (C, H, W) are restored strip by strip: large ones are, on every machine.

    Not so by methods that go back through the network, which takes all of it.
    """
    return shape[1] * shape[2] > LARGE_PIXELS and not METHODS[sampling.method].back_propagates


@torch.no_grad()
def forecast(prior: Prior, shape: Sequence[int], sampling: Sampling, device: torch.device) -> str:
    """Returns what a large picture (C, H, W) will take, for a person: a window is computed, and the others counted."""
    height, width = shape[-2:]
    windowed = for_large(prior)
    levels = prior.levels(sampling.sampler, sampling.nfe, sampling.spacing)
    assert isinstance(windowed, WindowedPrior)
    side = min(windowed.window, height), min(windowed.window, width)
    probe, count = torch.zeros(1, prior.channels, *side, device=device), len(windowed.places(height, width))
    elapsed = stopwatch(device)
    windowed.inner.predict(probe, levels[0], levels[1])
    time = duration(elapsed() * count * sampling.nfe)
    return f"{width} x {height} px in {count} windows, {sampling.nfe} evaluations of each: about {time} to come"


def _mean_together(
    measurement: Measurement,
    prior: Prior,
    sampling: Sampling,
    seed: int,
    keys: Sequence[Key],
    on_step: Callable[[], None],
    instrument: Callable[[Posterior], Posterior],
    on_iterations: Callable[[list[list[int]]], None],
) -> Tensor:
    """Returns the mean of the samples that the sampling asks for, one by default, each of its share of evaluations."""
    iterations: list[list[list[int]]] = []

    def drawn(k: int, nfe: int) -> Tensor:
        one, of_sample = replace(sampling, nfe=nfe), [(*key, k) if k else key for key in keys]
        return _restore_together(measurement, prior, one, seed, of_sample, on_step, instrument, iterations.append)

    first, *others = sampling.shares
    x = drawn(0, first)
    for k, nfe in enumerate(others, 1):
        x += drawn(k, nfe)
    if iterations:
        on_iterations([[count for part in of_item for count in part] for of_item in zip(*iterations, strict=True)])
    return x.div_(len(sampling.shares)) if others else x


def _restore_together(
    measurement: Measurement,
    prior: Prior,
    sampling: Sampling,
    seed: int,
    keys: Sequence[SampleKey],
    on_step: Callable[[], None],
    instrument: Callable[[Posterior], Posterior],
    on_iterations: Callable[[list[list[int]]], None],
) -> Tensor:
    y, op = measurement.y, measurement.op
    is_grey = op.in_shape[0] == 1 and prior.channels > 1
    if is_grey:
        op = OfGreyValue(op, prior.channels)
    inside = Inside(op, (op.in_shape[0], *prior.fitting(*op.in_shape[1:])))
    fitted = op if inside.in_shape == op.in_shape else inside
    state = fields.buffer((1, *fitted.in_shape)) if by_strips(op.in_shape, sampling) else None
    fitted = fitted if state is None else fitted.by_strips()
    chosen = build_posterior(sampling, prior, replace(measurement, op=fitted))
    method = instrument(chosen)
    levels = prior.levels(sampling.sampler, sampling.nfe, sampling.spacing, METHODS[sampling.method].start)
    z = Noise(seed, Noise.START, keys).like(
        y.new_empty((len(y), *inside.in_shape)) if state is None else fields.field(state, y.device)
    )

    def held(x: Tensor) -> Tensor:
        return x if state is None else fields.store(x, state)

    totals = [torch.zeros(len(y), dtype=torch.long, device=y.device)]

    def steps_of_every_item() -> None:
        if op.is_iterated:
            totals.append(chosen.solver.total)
        for _ in keys:
            on_step()

    x = sample(
        method,
        levels,
        held(method.start(z, levels[0])),
        eta=SAMPLERS[sampling.sampler].eta,
        noise=Noise(seed, Noise.STEP, keys),
        on_step=steps_of_every_item,
        held=held,
    )
    if int(totals[-1].sum()) > 0:
        on_iterations(torch.stack(totals, dim=1).diff().tolist())
    x = x if state is None else state
    return inside.crop(x).mean(1, keepdim=True) if is_grey else inside.crop(x)
