"""Priors against the Gaussian one, whose denoiser is known, whatever clock the network was trained on."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from dmps_cli.levels import alpha_bars, ddpm_levels, flow_levels
from dmps_cli.priors import DDPMPrior, DenoiserPrior, FlowPrior, GaussianPrior, Prior
from tests.conftest import randn

SHAPE = (3, 2, 2)


def gaussian() -> GaussianPrior:
    factor = randn(12, 12, seed=3)
    return GaussianPrior(
        mean=randn(*SHAPE, seed=4), covariance=factor @ factor.T / 12 + 0.1 * torch.eye(12, dtype=torch.float64)
    )


def as_ddpm_network(prior: GaussianPrior) -> DDPMPrior:
    """The eps network that Gaussian data would teach, at whole and fractional steps."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        below = math.floor(t[0].item())
        logs = [0.5 * math.log((1 - bar) / bar) for bar in (alpha_bars()[below], alpha_bars()[min(below + 1, 999)])]
        ratio = math.exp(logs[0] + (t[0].item() - below) * (logs[1] - logs[0]))
        alpha = 1 / math.hypot(1, ratio)
        level = ddpm_levels(1)[0]._replace(alpha=alpha, sigma=alpha * ratio)
        x0, _ = prior.predict(x, level, level)
        return (x - level.alpha * x0) / level.sigma

    return DDPMPrior(network, learned_range=False, clip_denoised=False)


def as_flow_network(prior: GaussianPrior) -> FlowPrior:
    """The velocity network that Gaussian data would teach."""

    def network(x: Tensor, label: Tensor) -> Tensor:
        s = label[0].item() / 999
        level = flow_levels(1)[0]._replace(alpha=s, sigma=1 - s)
        x0, _ = prior.predict(x, level, level)
        return x0 - (x - s * x0) / (1 - s)

    return FlowPrior(network)


def as_denoiser(prior: GaussianPrior) -> DenoiserPrior:
    level = ddpm_levels(1)[0]
    return DenoiserPrior(lambda z, s: prior.predict(z, level._replace(alpha=1.0, sigma=s), level)[0])


def test_an_overflow_is_not_hidden_by_clipping() -> None:
    prior = DDPMPrior(lambda x, t: torch.full_like(x, torch.inf), learned_range=False, clip_denoised=True)
    cur, nxt = ddpm_levels(4)[1:3]
    assert bool(prior.predict(torch.zeros(1, 3, 4, 4), cur, nxt)[0].isnan().all())


def test_a_chain_of_another_schedule_is_met_by_its_signal_to_noise_ratio() -> None:
    """The network is told the step of its own chain whose sigma / alpha is the level's."""
    told = []

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        told.append(float(t[0]))
        return x

    prior = DDPMPrior(network, learned_range=False, clip_denoised=False)
    cosine = [math.cos((k / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for k in range(1001)]
    prior.bars = [bar / cosine[0] for bar in cosine[1:]]
    levels = prior.levels("ddpm", 5)
    for cur, nxt in pairwise(levels):
        prior.predict(torch.zeros(1, 3, 2, 2), cur, nxt)
    for level, t in zip(levels, told, strict=False):
        bar = float(np.interp(t, range(1000), np.log(prior.bars)))
        assert bar == pytest.approx(math.log(level.alpha**2), abs=0.02)


def test_gaussian_denoiser_against_conditioning() -> None:
    """E[x0 | x_t] by conditioning the joint Gaussian of (x0, x_t)."""
    prior, x_t = gaussian(), randn(2, *SHAPE)
    for cur, nxt in pairwise(flow_levels(5)):
        cross = cur.alpha * prior.covariance
        marginal = cur.alpha**2 * prior.covariance + cur.sigma**2 * torch.eye(12, dtype=torch.float64)
        shift = (x_t - cur.alpha * prior.mean).reshape(2, 12)
        expected = prior.mean.reshape(12) + (cross @ torch.linalg.inv(marginal) @ shift.T).T
        x0, std = prior.predict(x_t, cur, nxt)
        assert std is None
        torch.testing.assert_close(x0.reshape(2, 12), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", ["ddpm", "flow"])
@pytest.mark.parametrize("wrap", [as_ddpm_network, as_flow_network, as_denoiser])
def test_every_network_serves_every_sampler(wrap: object, sampler: str) -> None:
    """The same data, learned on three clocks, gives the same x0 on both ladders."""
    exact = gaussian()
    prior: Prior = wrap(exact)  # type: ignore[operator]
    x_t = randn(2, *SHAPE)
    for cur, nxt in pairwise(prior.levels(sampler, 9)):
        if wrap is as_ddpm_network and cur.sigma / cur.alpha > ddpm_levels(1)[0].sigma / ddpm_levels(1)[0].alpha:
            continue  # noisier than anything a DDPM chain was trained on: told its last step, tested below
        x0, _ = prior.predict(x_t, cur, nxt)
        torch.testing.assert_close(x0, exact.predict(x_t, cur, nxt)[0], rtol=1e-7, atol=1e-7)


def test_a_ddpm_network_is_told_its_last_step_beyond_its_chain() -> None:
    prior = as_ddpm_network(gaussian())
    assert prior.levels("flow", 2)[0].time == 999


def test_sizes_and_memory_are_as_declared() -> None:
    prior = as_denoiser(gaussian())
    assert (prior.fitting(1, 7), prior.peak_bytes(10, 20)) == ((1, 7), None)
    prior.multiple, prior.least_size, prior.bytes_per_pixel = 8, 12, 3.0
    assert (prior.fitting(1, 12), prior.fitting(16, 17)) == ((12, 16), (16, 24))
    assert prior.peak_bytes(10, 20) == 600.0


def test_clipping_is_as_declared() -> None:
    prior = DDPMPrior(lambda x, t: torch.zeros_like(x), learned_range=False, clip_denoised=True)
    cur, nxt = ddpm_levels(10)[2:4]
    x0, _ = prior.predict(randn(1, *SHAPE), cur, nxt)
    assert x0.abs().max() == 1


@pytest.mark.parametrize(("v", "which"), [(1.0, "beta"), (-1.0, "posterior")])
def test_learned_range_interpolates_log_variances(v: float, which: str) -> None:
    """v = 1 is beta_t, v = -1 the posterior variance, v = 0 their geometric mean (Nichol & Dhariwal 2021, eq. (15))."""
    prior = DDPMPrior(lambda x, t: torch.cat([0 * x, v + 0 * x], 1), learned_range=True, clip_denoised=False)
    for cur, nxt in pairwise(ddpm_levels(20)[:-1]):
        beta = 1 - (cur.alpha / nxt.alpha) ** 2
        variance = {"beta": beta, "posterior": beta * nxt.sigma**2 / cur.sigma**2}[which]
        _, std = prior.predict(randn(1, *SHAPE), cur, nxt)
        assert std is not None
        torch.testing.assert_close(std**2, torch.full_like(std, variance), rtol=1e-9, atol=0)


def test_no_variance_is_learned_for_the_last_step() -> None:
    prior = DDPMPrior(lambda x, t: torch.cat([x, x], 1), learned_range=True, clip_denoised=False)
    cur, nxt = ddpm_levels(20)[-2:]
    assert prior.predict(randn(1, *SHAPE), cur, nxt)[1] is None
