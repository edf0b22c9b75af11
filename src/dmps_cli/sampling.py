"""The one sampling loop: a posterior denoiser pushed down a ladder of noise levels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dmps_cli.ahead import Ahead
from dmps_cli.device import onto
from dmps_cli.errors import NumericsError
from dmps_cli.fields import STRIP_ROWS, Field, all_finite
from dmps_cli.levels import Level

Fresh = Callable[[Tensor], Tensor]
"""Standard normal noise like a tensor (B, ..), fresh in every call."""


class Denoiser(ABC):
    """What the loop needs: a prior alone, or a method wrapped around one.

    draws_on_ode: whether its steps draw noise where the sampler's do not.
    """

    draws_on_ode = False

    @abstractmethod
    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns (E[x0 | x_t], standard deviation of the reverse step's noise or None for the ancestral one)."""

    def step(self, x_t: Tensor, cur: Level, nxt: Level, eta: float, fresh: Fresh) -> Tensor:
        """Returns the sample at level nxt from x_t at level cur: `predict`, then `reverse_step`.

        eta: stochasticity of the sampler's steps. A method that chooses its noise, or corrects the sample,
        overrides it.
        """
        x0, std = self.predict(x_t, cur, nxt)
        drawn = fresh(x_t) if eta > 0.0 and nxt.sigma > 0.0 else None
        return reverse_step(x_t, x0, cur, nxt, eta, drawn, std)


class Noise:
    """Independent normal draws for each image of a batch, fixed by (seed, purpose, image key, sample).

    Drawn on the CPU in float32, so that they are the same on every device and in every batch.
    """

    MEASUREMENT, START, STEP = range(3)  # purposes: streams that must never coincide

    def __init__(self, seed: int, purpose: int, keys: Sequence[tuple[int, ...]]) -> None:
        """keys: (image key, sample number, ..) of each image of the batch. All numbers >= 0."""
        self.origins = [(seed, purpose, *key) for key in keys]
        self.generators = [_generator(*origin) for origin in self.origins]
        self.num_fields = 0

    def like(self, x: Tensor) -> Tensor:
        """Draws fresh standard normal noise of x's shape, dtype and device. x: (B, ..), B as given; or a field."""
        if isinstance(x, Field):
            self.num_fields += 1
            return self._field(x, self.num_fields)
        drawn = torch.stack([torch.randn(x.shape[1:], generator=g) for g in self.generators])
        return onto(drawn.to(x.dtype), x.device)

    def _field(self, x: Field, number: int) -> Field:
        """Returns noise of which each strip has a generator of its own: its rows are the same in any order."""
        (origin,), (channels, height, width) = self.origins, x.shape[1:]

        def strip(top: int) -> Tensor:
            shape = (1, channels, min(STRIP_ROWS, height - top), width)
            return torch.randn(shape, generator=_generator(*origin, number, top // STRIP_ROWS))

        def rows(top: int, bottom: int) -> Tensor:
            first = top - top % STRIP_ROWS
            drawn = torch.cat([strip(start) for start in range(first, bottom, STRIP_ROWS)], dim=-2)
            return drawn[..., top - first : bottom - first, :].to(x.device, x.dtype)

        return Field(rows, x.shape, x.dtype, x.device)


def _generator(*origin: int) -> torch.Generator:
    seed = np.random.SeedSequence(origin).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed >> np.uint64(1)))


class DrawnAhead:
    """What a Noise draws for one x time after time, by a thread while a GPU computes: the same bits, never waited for.

    x: what `like` is expected to be asked for; count: how often. If it is asked for another shape, or more often, what
    was drawn in vain is taken back, and from there on it draws as it is asked.
    """

    def __init__(self, noise: Noise, x: Tensor, count: int) -> None:
        self.noise, self.num_left = noise, count
        alike = torch.empty(x.shape, dtype=x.dtype)  # on the CPU, never written to
        self.ahead = Ahead(
            lambda number: ([generator.get_state() for generator in noise.generators], noise.like(alike)), count=count
        )

    def __enter__(self) -> Self:
        self.ahead.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.ahead.__exit__(*exc)

    def like(self, x: Tensor) -> Tensor:
        """Returns the next draw, on x's device."""
        if self.num_left:
            before, drawn = self.ahead.take()
            self.num_left -= 1
            if drawn.shape == x.shape:
                return onto(drawn, x.device)
            self.ahead.__exit__()
            self.num_left = 0
            for generator, state in zip(self.noise.generators, before, strict=True):
                generator.set_state(state)
        return self.noise.like(x)


@contextmanager
def prepared(noise: Noise, x: Tensor, count: int) -> Iterator[Noise | DrawnAhead]:
    """Yields the noise of `count` steps: for a GPU drawn ahead of them; for a CPU, which has no time to spare, not."""
    if x.device.type != "cuda" or isinstance(x, Field):
        yield noise
        return
    with DrawnAhead(noise, x, count) as ahead:
        yield ahead


def x0_coefficient(cur: Level, nxt: Level, eta: float) -> float:
    """Returns c0, the factor of x0 in the mean of `reverse_step`."""
    return nxt.alpha - nxt.sigma * math.sqrt(1.0 - eta**2 * _tau(cur, nxt)) * cur.alpha / cur.sigma


def _tau(cur: Level, nxt: Level) -> float:
    """Returns the share of the next level's noise variance that the ancestral step draws afresh."""
    return 1.0 - (cur.alpha * nxt.sigma / (nxt.alpha * cur.sigma)) ** 2


def reverse_step(
    x_t: Tensor, x0: Tensor, cur: Level, nxt: Level, eta: float, z: Tensor | None, std: Tensor | None = None
) -> Tensor:
    """Takes one step from level `cur` to `nxt` (DDIM, Song et al. 2021, eq. (12), for general alpha and sigma).

        alpha' x0 + sigma' (sqrt(1 - eta^2 tau) eps + eta sqrt(tau) z),  eps = (x_t - alpha x0) / sigma,
        tau = 1 - (alpha sigma' / (alpha' sigma))^2

    eta = 1: the DDPM posterior; eta = 0: the Euler step of the flow ODE. std: a learned standard deviation that
    replaces sigma' sqrt(tau) on z alone. z may be None where it has no weight. All tensors (B, C, H, W).
    """
    tau = _tau(cur, nxt)
    eps = (x_t - cur.alpha * x0) / cur.sigma
    mean = nxt.alpha * x0 + nxt.sigma * math.sqrt(1.0 - eta**2 * tau) * eps
    if eta == 0.0 or nxt.sigma == 0.0:
        return mean
    assert z is not None
    return mean + eta * (nxt.sigma * math.sqrt(tau) if std is None else std) * z


def sample(
    denoiser: Denoiser,
    levels: Sequence[Level],
    x: Tensor,
    *,
    eta: float,
    noise: Noise,
    on_step: Callable[[], None] = lambda: None,
    held: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Runs x, a state at levels[0], down to the last level; one call of `denoiser` per step.

    x: (B, C, H, W). held: where a state is a field, computes and keeps it. Raises NumericsError, naming the level, if
    a state is no longer finite.
    """
    finite_so_far: list[Tensor] = []
    is_noisy = eta > 0.0 or denoiser.draws_on_ode
    with prepared(noise, x, sum(is_noisy and nxt.sigma > 0.0 for nxt in levels[1:])) as draws:
        for cur, nxt in pairwise(levels):
            x = held(denoiser.step(x, cur, nxt, eta, draws.like))
            finite_so_far.append(all_finite(x))  # read at the end: reading waits for a GPU
            on_step()
    _check_finite(finite_so_far, levels)
    return x


def _check_finite(finite: Sequence[Tensor], levels: Sequence[Level]) -> None:
    """Raises NumericsError at the first step whose result was not finite."""
    flags = torch.stack(list(finite)).tolist()
    if not all(flags):
        step = flags.index(False)
        alpha, sigma, time = levels[step]
        raise NumericsError(
            f"NaN or infinity after step {step + 1} of {len(flags)} (alpha {alpha:.4g}, sigma {sigma:.4g}, "
            f"time {time:.4g}); try a smaller --lambda or --zeta, or --dtype float32 if another was named"
        )
