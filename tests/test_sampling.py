"""The reverse step against the posterior of DDPM and the Euler step of the flow; the noise streams."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from dmps_cli import sampling
from dmps_cli.errors import NumericsError
from dmps_cli.fields import field
from dmps_cli.levels import CLEAN, SAMPLERS, Level, ddpm_levels, flow_levels
from dmps_cli.priors import DenoiserPrior
from dmps_cli.sampling import DrawnAhead, Fresh, Noise, prepared, reverse_step, sample, x0_coefficient
from tests.conftest import golden, randn


@pytest.mark.parametrize("nfe", [5, 20])
def test_eta_one_is_the_ddpm_posterior(nfe: int) -> None:
    """Mean and variance of q(x_{t-1} | x_t, x0), Ho et al. 2020, eqs. (6) and (7)."""
    x_t, x0, z = randn(2, 3, 4, 4, seed=1), randn(2, 3, 4, 4, seed=2), randn(2, 3, 4, 4, seed=3)
    for cur, nxt in pairwise(ddpm_levels(nfe)):
        alpha = (cur.alpha / nxt.alpha) ** 2
        beta = 1 - alpha
        mean = nxt.alpha * beta / cur.sigma**2 * x0 + math.sqrt(alpha) * nxt.sigma**2 / cur.sigma**2 * x_t
        std = math.sqrt(beta) * nxt.sigma / cur.sigma
        step = reverse_step(x_t, x0, cur, nxt, SAMPLERS["ddpm"].eta, z)
        torch.testing.assert_close(step, mean + std * z, rtol=0, atol=1e-12)


def test_posterior_coefficients_of_the_full_chain_are_the_recorded_ones() -> None:
    recorded = golden("trajectories/schedule_linear_1000")
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    levels = ddpm_levels(1000)
    for t, (cur, nxt) in zip(reversed(range(1000)), pairwise(levels), strict=True):
        of_x0 = reverse_step(zero, one, cur, nxt, 1.0, zero).item()
        of_x_t = reverse_step(one, zero, cur, nxt, 1.0, zero).item()
        of_z = reverse_step(zero, zero, cur, nxt, 1.0, one).item()
        assert of_x0 == pytest.approx(recorded["posterior_mean_coef1"][t].item(), abs=1e-12)
        assert of_x_t == pytest.approx(recorded["posterior_mean_coef2"][t].item(), abs=1e-12)
        assert of_z**2 == pytest.approx(recorded["posterior_variance"][t].item(), abs=1e-12)


@pytest.mark.parametrize("nfe", [5, 50])
def test_eta_zero_is_the_euler_step_of_the_flow(nfe: int) -> None:
    """x - v dt with v = eps - x0 and dt = b - b' on rectified-flow levels."""
    x_t, x0 = randn(2, 3, 4, 4, seed=1), randn(2, 3, 4, 4, seed=2)
    for cur, nxt in pairwise(flow_levels(nfe)):
        velocity = (x_t - cur.alpha * x0) / cur.sigma - x0
        euler = x_t - velocity * (cur.sigma - nxt.sigma)
        step = reverse_step(x_t, x0, cur, nxt, SAMPLERS["flow"].eta, None)
        torch.testing.assert_close(step, euler, rtol=0, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.85, 1.0])
def test_a_step_carries_the_forward_marginal(eta: float) -> None:
    """With the true x0, x_t = alpha x0 + sigma eps becomes a draw of the next level, in coefficients and variance."""
    for cur, nxt in [*pairwise(ddpm_levels(10)), *pairwise(flow_levels(10))]:
        one = torch.ones(1, dtype=torch.float64)
        of_x0 = reverse_step(cur.alpha * one, one, cur, nxt, eta, 0 * one)
        of_eps = reverse_step(cur.sigma * one, 0 * one, cur, nxt, eta, 0 * one)
        of_z = reverse_step(0 * one, 0 * one, cur, nxt, eta, one)
        assert of_x0.item() == pytest.approx(nxt.alpha, abs=1e-12)
        assert of_eps.item() ** 2 + of_z.item() ** 2 == pytest.approx(nxt.sigma**2, abs=1e-12)
        assert x0_coefficient(cur, nxt, eta) == pytest.approx(reverse_step(0 * one, one, cur, nxt, eta, 0 * one).item())


def test_learned_std_replaces_the_ancestral_one_on_z_alone() -> None:
    cur, nxt = ddpm_levels(10)[3:5]
    x_t, x0, z, std = (randn(1, 3, 4, 4, seed=s) for s in range(4))
    mean = reverse_step(x_t, x0, cur, nxt, 1.0, 0 * z)
    torch.testing.assert_close(reverse_step(x_t, x0, cur, nxt, 1.0, z, std.abs()), mean + std.abs() * z)


def test_a_perfect_denoiser_is_reproduced() -> None:
    """If x0(x_t) is always the same picture, both samplers end on it exactly."""
    picture = randn(2, 3, 4, 4)
    prior = DenoiserPrior(lambda z, s: picture)
    for sampler, eta in (("ddpm", 1.0), ("flow", 0.0)):
        start = randn(2, 3, 4, 4, seed=5)
        noise = Noise(0, Noise.STEP, [(0, 0), (1, 0)])
        result = sample(prior, prior.levels(sampler, 7), start, eta=eta, noise=noise)
        torch.testing.assert_close(result, picture, rtol=0, atol=1e-12)


def test_a_state_that_is_not_finite_is_an_error() -> None:
    prior = DenoiserPrior(lambda z, s: z * float("nan"))
    with pytest.raises(NumericsError, match="sigma"):
        sample(prior, prior.levels("flow", 2), randn(1, 3, 4, 4), eta=0.0, noise=Noise(0, Noise.STEP, [(0, 0)]))


def test_one_call_of_the_denoiser_and_one_report_per_step() -> None:
    calls: list[float] = []
    prior = DenoiserPrior(lambda z, s: calls.append(s) or z)
    steps: list[None] = []
    noise = Noise(0, Noise.STEP, [(0, 0)])
    sample(prior, prior.levels("ddpm", 9), randn(1, 3, 4, 4), eta=1.0, noise=noise, on_step=lambda: steps.append(None))
    assert len(calls) == len(steps) == 9


def test_noise_is_drawn_where_it_counts_alone() -> None:
    """Not on an ODE, not in the step to the clean end; else once a step, however small eta is."""
    prior, (noisy, middle) = DenoiserPrior(lambda z, s: z), ddpm_levels(10)[3:5]
    for eta, nxt, expected in ((0.0, middle, 0), (1.0, CLEAN, 0), (0.05, middle, 1), (1.0, middle, 1)):
        drawn: list[torch.Tensor] = []
        prior.step(randn(1, 3, 4, 4), noisy, nxt, eta, lambda x, drawn=drawn: drawn.append(x) or x)
        assert len(drawn) == expected


class OnOde(DenoiserPrior):
    """Draws noise in every step but the last, whatever the sampler."""

    draws_on_ode = True

    def step(self, x_t: Tensor, cur: Level, nxt: Level, eta: float, fresh: Fresh) -> Tensor:
        return super().step(x_t, cur, nxt, 1.0, fresh)


@pytest.mark.parametrize(
    ("kind", "eta", "expected"), [(DenoiserPrior, 0.0, 0), (DenoiserPrior, 0.05, 6), (OnOde, 0.0, 6)]
)
def test_as_many_draws_are_prepared_as_are_taken(
    monkeypatch: pytest.MonkeyPatch, kind: type[DenoiserPrior], eta: float, expected: int
) -> None:
    counts, drawn = [], []

    class Counting(Noise):
        def like(self, x: Tensor) -> Tensor:
            drawn.append(x)
            return super().like(x)

    def recorded(noise: Noise, x: Tensor, count: int) -> AbstractContextManager[Noise]:
        counts.append(count)
        return nullcontext(noise)

    monkeypatch.setattr(sampling, "prepared", recorded)
    prior = kind(lambda z, s: z)
    sample(prior, prior.levels("ddpm", 7), randn(1, 3, 4, 4), eta=eta, noise=Counting(0, Noise.STEP, [(0, 0)]))
    assert (counts, len(drawn)) == ([expected], expected)


def test_noise_follows_the_image_not_its_place() -> None:
    x = torch.zeros(3, 3, 8, 8)
    together = Noise(7, Noise.STEP, [(0, 0), (5, 0), (0, 1)])
    alone = Noise(7, Noise.STEP, [(5, 0)])
    for _ in range(3):
        assert torch.equal(together.like(x)[1], alone.like(x[:1])[0])


def test_what_is_drawn_ahead_is_what_would_be_drawn() -> None:
    """Also where fewer are taken than were made, and where drawing fails."""
    x, keys = torch.zeros(2, 3, 8, 8), [(4, 0), (5, 1)]
    now, later = (Noise(7, Noise.STEP, keys) for _ in range(2))
    with DrawnAhead(later, x, 9) as ahead:
        for _ in range(7):
            assert torch.equal(ahead.like(x), now.like(x))
    for shapes in ([(2, 5), (2, 3, 8, 8), (2, 5)], [(2, 3, 8, 8)] * 4 + [(2, 5)]):  # others, and more than foreseen
        now, later = (Noise(7, Noise.STEP, keys) for _ in range(2))
        with DrawnAhead(later, x, 3) as ahead:
            for shape in shapes:
                assert torch.equal(ahead.like(torch.zeros(shape)), now.like(torch.zeros(shape)))
    with DrawnAhead(Noise(7, Noise.STEP, keys[:0]), x, 1) as none, pytest.raises(RuntimeError, match="non-empty"):
        none.like(x)


def test_a_cpu_has_no_time_to_draw_ahead() -> None:
    noise = Noise(7, Noise.STEP, [(4, 0)])
    for x in (torch.zeros(1, 3, 8, 8), field(torch.zeros(1, 3, 8, 8), torch.device("cpu"))):
        with prepared(noise, x, 3) as draws:
            assert draws is noise


def test_streams_do_not_coincide() -> None:
    x = torch.zeros(1, 3, 64, 64)
    draws = [
        Noise(seed, purpose, [key]).like(x).flatten()
        for seed, purpose, key in [
            (0, Noise.MEASUREMENT, (0, 0)),
            (0, Noise.START, (0, 0)),
            (0, Noise.STEP, (0, 0)),
            (1, Noise.START, (0, 0)),
            (0, Noise.START, (1, 0)),
            (0, Noise.START, (0, 1)),
        ]
    ]
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    assert correlation.abs().max() < 5 / math.sqrt(x.numel())  # five standard deviations


def test_noise_is_standard_normal() -> None:
    z = Noise(3, Noise.START, [(0, 0)]).like(torch.zeros(1, 3, 128, 128)).double().flatten()
    n = z.numel()
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs(z.square().mean() - 1) < 5 * math.sqrt(2 / n)
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / n)


def test_levels_are_not_changed_by_sampling() -> None:
    levels = [Level(0.5, 0.5, 1.0), Level(1.0, 0.0, 0.0)]
    start = randn(1, 3, 4, 4)
    before = start.clone()
    sample(DenoiserPrior(lambda z, s: z), levels, start, eta=0.0, noise=Noise(0, Noise.STEP, [(0, 0)]))
    assert torch.equal(start, before)
