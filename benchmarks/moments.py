"""How far samples of a method are from the posterior, where that is known: a Gaussian prior, by algebra alone.

    python benchmarks/moments.py

Pictures of 6 x 6 px with x ~ N(0, C), C = 0.25 exp(-distance / 3 px). Every step is linear in the state, y and the
noise drawn: a basis pushed through the levels gives mean and covariance of what is drawn, without a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from dmps_cli.levels import SAMPLERS
from dmps_cli.methods.choice import build_posterior, resolve_sampling
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.measurement import Measurement
from dmps_cli.operators.separable import separable_blur
from dmps_cli.priors import GaussianPrior
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import build, resolve

SIDE, REACH, VARIANCE = 6, 3.0, 0.25
SHAPE = (1, SIDE, SIDE)
SIGMA = {"denoise": 0.5}  # of the others 0.05


class Grey(GaussianPrior):
    """Of one channel."""

    channels = 1


def covariance() -> Tensor:
    """C, (N, N)."""
    place = torch.cartesian_prod(*[torch.arange(SIDE, dtype=torch.float64)] * 2)
    return VARIANCE * torch.exp(-torch.cdist(place, place) / REACH)


def operator(task: str) -> LinearOperator:
    """Of a task; a blur of three taps, for the picture is small."""
    if task == "deblur":
        taps = [0.25, 0.5, 0.25]
        return separable_blur(SHAPE, taps, taps, dtype=torch.float64, device=torch.device("cpu"))
    return build(task, resolve(task, OperatorOptions()), SHAPE, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Over the posterior's own variance, its trace. bias: squared error of the samples' mean; variance: of a sample."""

    bias: float
    variance: float


def moments(task: str, nfe: int, *, sampler: str = "ddpm", knobs: Mapping[str, Any] | None = None) -> Moments:
    """What the default method draws, averaged over the y that the prior gives."""
    prior, op, sigma_y = (
        Grey(torch.zeros(SHAPE, dtype=torch.float64), covariance()),
        operator(task),
        SIGMA.get(task, 0.05),
    )
    sampling = resolve_sampling(task=task, sampler=sampler, nfe=nfe, knobs=knobs)
    levels, eta = prior.levels(sampler, nfe, sampling.spacing), SAMPLERS[sampler].eta
    basis = torch.eye(SIDE**2, dtype=torch.float64).reshape(-1, *SHAPE)
    a = op.A(basis).flatten(1).T
    ys = torch.eye(len(a), dtype=torch.float64).reshape(-1, *op.out_shape)

    def steps(y: Tensor) -> tuple[Any, Iterator[Callable[[Tensor, Any], Tensor]]]:
        method = build_posterior(sampling, prior, Measurement(y, op, sigma_y))
        pairs = pairwise(levels)
        return method, ((lambda x, z, cur=cur, nxt=nxt: method.step(x, cur, nxt, eta, z)) for cur, nxt in pairs)

    method, ladder = steps(ys)
    mean = method.start(torch.zeros(len(ys), *SHAPE, dtype=torch.float64), levels[0])
    for step in ladder:
        mean = step(mean, torch.zeros_like)
    method, ladder = steps(torch.zeros(len(basis), *op.out_shape, dtype=torch.float64))
    start = method.start(basis, levels[0]).flatten(1)
    drawn = start.T @ start
    for step in ladder:
        linear, noise = step(basis, torch.zeros_like).flatten(1).T, step(0.0 * basis, lambda _: basis).flatten(1)
        drawn = linear @ drawn @ linear.T + noise.T @ noise
    c, of_y = covariance(), a @ covariance() @ a.T + sigma_y**2 * torch.eye(len(a), dtype=torch.float64)
    gain = c @ a.T @ torch.linalg.inv(of_y)
    least = torch.trace(c - gain @ a @ c)
    error = mean.flatten(1).T - gain
    return Moments(bias=float(torch.trace(error @ of_y @ error.T) / least), variance=float(torch.trace(drawn) / least))


def main() -> None:
    """Prints a table."""
    exact = {"variance_factor": 1.0, "eta": 1.0, "eta_y": 1.0}
    print("| task | default, 20 | 1000 | variance factor 1, eta 1, eta_y 1: 20 | 1000 |\n|---|---|---|---|---|")
    for task in ("denoise", "deblur", "sr2", "inpaint"):
        found = [moments(task, nfe, knobs=knobs) for knobs in (None, exact) for nfe in (20, 1000)]
        print(f"| {task} | {' | '.join(f'{each.bias:.3f}, {each.variance:.2f}' for each in found)} |", flush=True)


if __name__ == "__main__":
    main()
