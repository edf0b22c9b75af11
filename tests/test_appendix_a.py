"""The toy of Appendix A (benchmarks/appendix_a.py) against facts that need none of its code.

With rho = q^2 / sigma_0^2, q = sigma / alpha, and a mode of singular value s, w = q^2 s^2 / (sigma_y^2 + q^2 s^2): the
exact score is (s / alpha) e / ((1 + rho) S_v) with e = y - A m ~ N(0, S_v) independent of x_t, S_v = sigma_y^2 + v s^2,
v = q^2 / (1 + rho). The flat score is (s / alpha) (e + s (m - x_t / alpha)) / S_q, S_q = sigma_y^2 + q^2 s^2, where
m - x_t / alpha has the variance rho v. Taking mean squares,

    E (flat - exact)^2 / E exact^2 = 1 + (rho^2 - 1) S_v / S_q = rho w + rho^2 (1 - w)

so the relative difference falls as q^2: (q / sigma_0)^2 sqrt(1 + s^2 sigma_0^2 / sigma_y^2) as q -> 0; without noise in
the measurement (w = 1) it is q / sigma_0 at every q. As q -> infinity it grows as q / sigma_0
sqrt(1 + sigma_y^2 / (s^2 sigma_0^2)): relative to the flat score the difference tends to 1.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import appendix_a
from benchmarks.appendix_a import compare, exact_posterior, exact_score, flat_posterior, scalar
from dmps_cli.levels import Level
from dmps_cli.methods.dmps import flat_prior_score
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.pointwise import ChannelMean
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import build, resolve
from tests.conftest import randn, rel

DOC = Path(__file__).parent.parent / "docs" / "appendix_a.md"
SIGMA_Y = 0.3
LEVELS = [Level(0.99, math.sqrt(1 - 0.99**2), 0.0), Level(0.6, 0.8, 0.0), Level(0.1, math.sqrt(0.99), 0.0)]


def operator(name: str) -> LinearOperator:
    return build(name, resolve(name, OperatorOptions()), (3, 8, 8), dtype=torch.float64)


def at(ratio: float) -> Level:
    """The variance-preserving level of that sigma / alpha."""
    return Level(1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio), 0.0)


def matrix(op: LinearOperator) -> Tensor:
    pixels = math.prod(op.in_shape)
    return op.A(torch.eye(pixels, dtype=op.dtype).reshape(-1, *op.in_shape)).flatten(1).T


def log_likelihood(A: Tensor, y: Tensor, x_t: Tensor, level: Level, sigma_0: float) -> Tensor:
    """log p(y | x_t), of the joint Gaussian of (x_t, y): what is left of y's covariance once x_t is known."""
    n, m = A.shape[1], A.shape[0]
    prior = sigma_0**2 * torch.eye(n, dtype=A.dtype)
    marginal = level.alpha**2 * prior + level.sigma**2 * torch.eye(n, dtype=A.dtype)
    gain = torch.linalg.solve(marginal, level.alpha * prior @ A.T).T
    covariance = A @ prior @ A.T + SIGMA_Y**2 * torch.eye(m, dtype=A.dtype) - level.alpha * gain @ prior @ A.T
    return torch.distributions.MultivariateNormal(gain @ x_t, (covariance + covariance.T) / 2).log_prob(y)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["colorize", "deblur-gauss", "sr4"])
def test_exact_score_is_the_gradient_of_the_joint_gaussian(name: str, level: Level) -> None:
    op, sigma_0 = operator(name), 0.7
    y, x_t = op.A(randn(1, 3, 8, 8, seed=1)), randn(1, 3, 8, 8, seed=2)
    with torch.enable_grad():
        point = x_t.flatten().requires_grad_()
        likelihood = log_likelihood(matrix(op), y.flatten(), point, level, sigma_0)
        (expected,) = torch.autograd.grad(likelihood, point)
    assert rel(exact_score(op.correction(y), x_t, SIGMA_Y, level, sigma_0).flatten(), expected) < 1e-8


@pytest.mark.parametrize("level", LEVELS)
def test_exact_posterior_is_prior_times_likelihood(level: Level) -> None:
    """Moments by quadrature of p(x0) p(x_t | x0) on a grid; the trapezoid rule is spectral for Gaussians."""
    sigma_0, x_t = 0.7, 0.9
    x0 = torch.linspace(-12 * sigma_0, 12 * sigma_0, 20001, dtype=torch.float64)
    log_joint = -0.5 * (x0 / sigma_0) ** 2 - 0.5 * ((x_t - level.alpha * x0) / level.sigma) ** 2
    weight = torch.softmax(log_joint, 0)
    mean = float((weight * x0).sum())
    found = exact_posterior(x_t, level, sigma_0)
    assert found.mean == pytest.approx(mean, rel=1e-10)
    assert found.variance == pytest.approx(float((weight * (x0 - mean) ** 2).sum()), rel=1e-10)


@pytest.mark.parametrize("level", LEVELS)
def test_both_moments_differ_by_the_ratio_of_variances(level: Level) -> None:
    """By eqs. (36) and (38) flat / exact = 1 + (sigma / alpha)^2 / sigma_0^2, mean and variance alike."""
    exact, flat = exact_posterior(5.0, level, 25.0), flat_posterior(5.0, level)
    expected = 1 + (level.sigma / level.alpha) ** 2 / 625
    assert flat.mean / exact.mean == pytest.approx(expected, rel=1e-12)
    assert flat.variance / exact.variance == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["colorize", "deblur-gauss", "sr4"])
def test_flat_score_is_the_exact_one_of_an_ever_wider_prior(name: str, level: Level) -> None:
    """The project's flat-prior score is the limit, and the difference falls as 1 / sigma_0^2."""
    op = operator(name)
    correction, x_t = op.correction(op.A(randn(1, 3, 8, 8, seed=1))), randn(1, 3, 8, 8, seed=2)
    flat = flat_prior_score(correction, x_t, SIGMA_Y, level)
    narrow, wide = (rel(exact_score(correction, x_t, SIGMA_Y, level, s), flat) for s in (1e3, 1e4))
    assert wide < 1e-5
    assert narrow / wide == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize("sigma_0", [25.0, 1.0, 0.1])
@pytest.mark.parametrize("ratio", [1e-2, 0.3, 1.0, 9.95, 157.0])
def test_relative_difference_is_that_of_theory(ratio: float, sigma_0: float) -> None:
    """One singular value, s = sqrt(0.14): the closed form above, on a level that is not the paper's."""
    op = ChannelMean((3, 1, 2), [0.1, 0.2, 0.3], dtype=torch.float64, device="cpu")
    rho, signal = (ratio / sigma_0) ** 2, ratio**2 * 0.14
    w = signal / (SIGMA_Y**2 + signal)
    expected = math.sqrt(rho * w + rho**2 * (1 - w))
    assert compare(op, SIGMA_Y, at(ratio), sigma_0).relative == pytest.approx(expected, rel=1e-8)


def test_comparison_is_the_mean_over_draws() -> None:
    """Monte Carlo over x0, x_t, y: 1 / sqrt(N) is 0.1 %."""
    draws, level, sigma_0 = 400_000, at(0.5), 0.7
    x0 = sigma_0 * randn(draws, 1, 1, 1, seed=3)
    x_t = level.alpha * x0 + level.sigma * randn(draws, 1, 1, 1, seed=4)
    correction = scalar().correction(x0 + SIGMA_Y * randn(draws, 1, 1, 1, seed=5))
    exact = exact_score(correction, x_t, SIGMA_Y, level, sigma_0)
    flat = flat_prior_score(correction, x_t, SIGMA_Y, level)
    drawn = [float(score.square().mean()) ** 0.5 for score in (exact, flat, flat - exact)]
    assert list(compare(scalar(), SIGMA_Y, level, sigma_0)) == pytest.approx(drawn, rel=0.01)


def test_difference_vanishes_as_the_square_of_the_noise() -> None:
    """A tenth of the noise, a hundredth of the difference, with theory's factor."""
    sigma_0 = 0.7
    factor = math.sqrt(1 + sigma_0**2 / SIGMA_Y**2) / sigma_0**2
    first, second = (compare(scalar(), SIGMA_Y, at(q), sigma_0).relative / q**2 for q in (1e-2, 1e-3))
    assert second == pytest.approx(factor, rel=1e-5)
    assert abs(first - factor) == pytest.approx(100 * abs(second - factor), rel=0.05)


@pytest.mark.parametrize("ratio", [1e-3, 1.0, 1e3])
def test_without_measurement_noise_the_difference_is_linear_at_every_level(ratio: float) -> None:
    assert compare(scalar(), 0.0, at(ratio), 0.7).relative == pytest.approx(ratio / 0.7, rel=1e-9)


def test_at_large_noise_the_flat_score_is_all_error() -> None:
    sigma_0, q = 0.7, 1e4
    found = compare(scalar(), SIGMA_Y, at(q), sigma_0)
    assert found.relative / q == pytest.approx(math.sqrt(1 + (SIGMA_Y / sigma_0) ** 2) / sigma_0, rel=1e-6)
    assert found.difference / found.flat == pytest.approx(1, rel=1e-6)


def test_document_has_the_tables_that_the_script_prints() -> None:
    for row in appendix_a.tables().splitlines():
        assert row in DOC.read_text()
