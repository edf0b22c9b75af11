"""DMPS against dense closed forms: its score, its step, and the whole sampler on Gaussian priors.

With a Gaussian prior every step is affine, so mean and covariance are carried exactly, without Monte Carlo.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from dmps_cli.levels import SAMPLERS, Level, ddpm_levels, flow_levels
from dmps_cli.methods.choice import resolve_sampling
from dmps_cli.methods.dmps import Dmps, capped_weight, flat_prior_score
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.measurement import Measurement
from dmps_cli.priors import GaussianPrior
from dmps_cli.sampling import Denoiser
from tests.conftest import randn, where

SHAPE, N, M = (1, 2, 4), 8, 5
SIGMA_Y = 0.3


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


class Dense(LinearOperator):
    """Any matrix, with dense solves."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(SHAPE, (len(matrix),), torch.float64, where())
        self.matrix = matrix

    def A(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix.T

    def At(self, y: Tensor) -> Tensor:
        return (y @ self.matrix).reshape(-1, *SHAPE)

    def solve(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        return torch.linalg.solve(noise_var * eye(len(self.matrix)) + scale * self.matrix @ self.matrix.T, r.T).T


def matrix() -> Tensor:
    return randn(M, N, seed=11) / math.sqrt(N)


def operator() -> Dense:
    return Dense(matrix())


def dense_score(A: Tensor, y: Tensor, x_t: Tensor, sigma_y: float, level: Level) -> Tensor:
    """SPEC's formula with an explicit inverse."""
    inner = sigma_y**2 * eye(len(A)) + (level.sigma / level.alpha) ** 2 * A @ A.T
    residual = y - x_t.flatten(1) @ A.T / level.alpha
    return (residual @ torch.linalg.inv(inner) @ A / level.alpha).reshape(x_t.shape)


@pytest.mark.parametrize("level", [*ddpm_levels(6)[:-1], *flow_levels(6)[:-1]])
def test_score_is_the_closed_form(level: Level) -> None:
    y, x_t = randn(2, M, seed=1), randn(2, *SHAPE, seed=2)
    score = flat_prior_score(operator().correction(y), x_t, SIGMA_Y, level)
    expected = dense_score(matrix(), y, x_t, SIGMA_Y, level)
    torch.testing.assert_close(score, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


def test_score_is_the_gradient_of_the_pseudo_likelihood() -> None:
    """grad log N(y; A x_t / alpha, sigma_y^2 I + (sigma / alpha)^2 A A^T) by automatic differentiation (eq. (17))."""
    level, y = flow_levels(6)[3], randn(1, M, seed=1)
    A = matrix()
    covariance = SIGMA_Y**2 * eye(M) + (level.sigma / level.alpha) ** 2 * A @ A.T
    with torch.enable_grad():
        x_t = randn(1, *SHAPE, seed=2).requires_grad_()
        gaussian = torch.distributions.MultivariateNormal((x_t.flatten(1) @ A.T / level.alpha)[0], covariance)
        gradient = torch.autograd.grad(gaussian.log_prob(y[0]), x_t)[0]
    torch.testing.assert_close(
        flat_prior_score(operator().correction(y), x_t.detach(), SIGMA_Y, level), gradient, rtol=1e-9, atol=1e-9
    )


def prior(variance: float = 0.5) -> GaussianPrior:
    factor = randn(N, N, seed=3)
    return GaussianPrior(mean=randn(*SHAPE, seed=4), covariance=variance * (factor @ factor.T / N + eye(N)))


def dmps(sampler: str, y: Tensor, *, score_at: str = "x_t", weight: float = 1.3, cap: float | None = None) -> Dmps:
    return Dmps(
        prior(),
        Measurement(y, operator(), SIGMA_Y),
        weight=weight,
        score_at=score_at,  # type: ignore[arg-type]
        cap=cap,
        sampler_eta=SAMPLERS[sampler].eta,
    )


def one_step(denoiser: Denoiser, x_t: Tensor, cur: Level, nxt: Level, eta: float, z: Tensor) -> Tensor:
    return denoiser.step(x_t, cur, nxt, eta, lambda _: z)


@pytest.mark.parametrize("score_at", ["x_t", "sample"])
def test_ddpm_step_is_algorithm_1(score_at: str) -> None:
    """x += lambda (1 - alpha_t) / sqrt(alpha_t) S, alpha_t of the kept chain; S before or after the prior's step."""
    y, x_t, z = randn(2, M, seed=1), randn(2, *SHAPE, seed=2), randn(2, *SHAPE, seed=5)
    for cur, nxt in pairwise(ddpm_levels(20)):
        alpha_t = (cur.alpha / nxt.alpha) ** 2
        x = one_step(prior(), x_t, cur, nxt, 1.0, z)
        score = dense_score(matrix(), y, x_t if score_at == "x_t" else x, SIGMA_Y, cur)
        expected = x + 1.3 * (1 - alpha_t) / math.sqrt(alpha_t) * score
        step = one_step(dmps("ddpm", y, score_at=score_at), x_t, cur, nxt, 1.0, z)
        torch.testing.assert_close(step, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.parametrize("score_at", ["x_t", "sample"])
def test_flow_step_is_algorithm_2(score_at: str) -> None:
    """x -= v dt, x += lambda (b / a) dt S."""
    y, x_t = randn(2, M, seed=1), randn(2, *SHAPE, seed=2)
    for cur, nxt in pairwise(flow_levels(20)):
        x0, _ = prior().predict(x_t, cur, nxt)
        dt = cur.sigma - nxt.sigma
        x = x_t - ((x_t - cur.alpha * x0) / cur.sigma - x0) * dt
        score = dense_score(matrix(), y, x_t if score_at == "x_t" else x, SIGMA_Y, cur)
        expected = x + 1.3 * cur.sigma / cur.alpha * dt * score
        step = one_step(dmps("flow", y, score_at=score_at), x_t, cur, nxt, 0.0, 0 * x_t)
        torch.testing.assert_close(step, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


def carried_moments(denoiser: Denoiser, levels: Sequence[Level], eta: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the last sample, from N(0, I) at the first level, by pushing a basis through each step."""
    mean, covariance = torch.zeros(N, dtype=torch.float64), eye(N)
    basis = torch.cat([torch.zeros(1, N, dtype=torch.float64), eye(N)]).reshape(-1, *SHAPE)
    for cur, nxt in pairwise(levels):
        image = one_step(denoiser, basis, cur, nxt, eta, 0 * basis).flatten(1)
        of_noise = one_step(denoiser, 0 * basis, cur, nxt, eta, basis).flatten(1)
        offset, linear = image[0], (image[1:] - image[0]).T
        spread = (of_noise[1:] - of_noise[0]).T
        mean, covariance = linear @ mean + offset, linear @ covariance @ linear.T + spread @ spread.T
    return mean, covariance


@pytest.mark.parametrize("sampler", ["ddpm", "flow"])
def test_without_data_the_prior_is_sampled_and_the_error_halves(sampler: str) -> None:
    errors = []
    for nfe in (250, 500, 1000) if sampler == "ddpm" else (100, 200, 400):
        mean, covariance = carried_moments(prior(), prior().levels(sampler, nfe), SAMPLERS[sampler].eta)
        errors.append(float((covariance - prior().covariance).norm() + (mean - prior().mean.flatten()).norm()))
    assert errors[-1] < 0.05 * float(prior().covariance.norm())
    for coarse, fine in pairwise(errors):
        assert 1.6 < coarse / fine < 2.5


def test_score_error_falls_as_one_over_the_variance_of_the_prior() -> None:
    """Assumption 1 is the only approximation: the exact score for a prior N(0, v I) is approached as 1 / v."""
    level, y, x_t, A = flow_levels(6)[4], randn(1, M, seed=1), randn(1, *SHAPE, seed=2), matrix()
    flat = flat_prior_score(operator().correction(y), x_t, SIGMA_Y, level)
    errors = []
    for variance in (1e2, 1e3, 1e4):
        gain = level.alpha * variance / (level.alpha**2 * variance + level.sigma**2)
        spread = variance * level.sigma**2 / (level.alpha**2 * variance + level.sigma**2)
        inner = SIGMA_Y**2 * eye(M) + spread * A @ A.T
        exact = gain * (y - gain * x_t.flatten(1) @ A.T) @ torch.linalg.inv(inner) @ A
        errors.append(float((flat.flatten(1) - exact).norm() / exact.norm()))
    for near, far in pairwise(errors):
        assert near / far == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_sampler_converges_to_the_closed_form_of_its_ode(weight: float) -> None:
    """For x0 ~ N(0, v I), y = 0, u = x / alpha, q = sigma / alpha, the flow with DMPS's score is, per singular value s,

        du/dq = q u (1 / (v + q^2) + lambda s^2 / (sigma_y^2 + s^2 q^2)),

    so u(0) = u(q) sqrt(v / (v + q^2)) (sigma_y^2 / (sigma_y^2 + s^2 q^2))^(lambda / 2). Euler's error
    halves with the step.
    """
    variance = 0.7
    still = GaussianPrior(mean=torch.zeros(*SHAPE, dtype=torch.float64), covariance=variance * eye(N))
    _, S, Vt = torch.linalg.svd(matrix())
    s = torch.cat([S, torch.zeros(N - M, dtype=torch.float64)])
    errors = []
    for nfe in (400, 800, 1600):
        levels = [level for level in flow_levels(nfe) if level.sigma <= 0.75]
        q = levels[0].sigma / levels[0].alpha
        nothing = Measurement(torch.zeros(1, M, dtype=torch.float64), operator(), SIGMA_Y)
        method = Dmps(still, nothing, weight=weight, cap=None, sampler_eta=0.0)
        _, covariance = carried_moments(method, levels, 0.0)
        shrink = (variance / (variance + q**2)).__pow__(0.5) * (SIGMA_Y**2 / (SIGMA_Y**2 + s**2 * q**2)) ** (weight / 2)
        exact = Vt.T @ torch.diag((shrink / levels[0].alpha) ** 2) @ Vt
        errors.append(float((covariance - exact).norm() / exact.norm()))
    assert errors[-1] < 0.02
    for coarse, fine in pairwise(errors):
        assert 1.8 < coarse / fine < 2.2


def test_cap_binds_at_the_bound_and_leaves_the_papers_setting_alone() -> None:
    """lambda w <= sigma^2 + alpha^2 sigma_y^2 / norm^2 holds at every level; at 1000 DDPM steps it never binds."""
    for levels, eta, weight in ((ddpm_levels(5), 1.0, 1.75), (flow_levels(20), 0.0, 2.0)):
        for cur, nxt in pairwise(levels):
            measurement = Measurement(randn(1, M), operator(), 0.05)
            method = Dmps(prior(), measurement, weight=weight, cap=1.0, sampler_eta=eta)
            step = method._step(cur, nxt)
            factor = method._weight(cur, nxt) * step / (cur.sigma**2 + (cur.alpha * 0.05 / method.norm) ** 2)
            assert factor <= 1 + 1e-12
    for cur, nxt in pairwise(ddpm_levels(1000)):
        step = (1 - (cur.alpha / nxt.alpha) ** 2) / (cur.alpha / nxt.alpha)
        assert capped_weight(1.75, 1.0, step, 1.0, 0.05, cur) == 1.75


def test_what_measures_nothing_needs_no_cap() -> None:
    assert capped_weight(1.75, 1.0, 0.5, 0.0, 0.05, flow_levels(20)[3]) == 1.75


def test_cap_factor_is_the_move_of_the_largest_mode() -> None:
    """On the largest singular vector, with lambda huge, the capped update moves x_t / alpha exactly onto y_s / s."""
    U, S, Vt = torch.linalg.svd(matrix(), full_matrices=False)
    cur, nxt = flow_levels(20)[1:3]
    y = U[:, 0].reshape(1, M) * 0.7
    x_t = randn(1, *SHAPE, seed=2)
    method = Dmps(prior(), Measurement(y, operator(), SIGMA_Y), weight=1e6, cap=1.0, sampler_eta=0.0)
    update = method._weight(cur, nxt) * method._step(cur, nxt) * flat_prior_score(method.correction, x_t, SIGMA_Y, cur)
    moved = (x_t + update).flatten() @ Vt[0] / cur.alpha
    assert moved.item() == pytest.approx(0.7 / S[0].item(), rel=1e-6)


def test_batch_of_two_is_two_of_one() -> None:
    y, x_t = randn(2, M, seed=1), randn(2, *SHAPE, seed=2)
    cur, nxt = flow_levels(10)[4:6]
    both = dmps("flow", y).predict(x_t, cur, nxt)[0]
    for i in range(2):
        alone = dmps("flow", y[i : i + 1]).predict(x_t[i : i + 1], cur, nxt)[0]
        torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-9, atol=1e-9)


def test_a_choice_is_written_as_its_options_are_typed() -> None:
    paper = "dmps (x_t), ddpm levels (uniform), NFE 1000, lambda 1.75, cap none"
    assert str(resolve_sampling(preset="paper")) == paper
    assert str(resolve_sampling(knobs={"weight": 2.0, "cap": "1.0"})).endswith(", lambda 2, cap 1")
