"""DMPS with its likelihood at x0: against dense matrices, and its account of the measurement's noise."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dmps_cli.errors import UsageError
from dmps_cli.methods import resolve_sampling
from dmps_cli.methods.counted import CountedDmps
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.separable import separable_blur
from dmps_cli.priors import DenoiserPrior
from dmps_cli.schedules import Level
from dmps_cli.tasks import OperatorOptions, build, resolve
from tests.conftest import randn

SHAPE, SIGMA_Y = (2, 5, 6), 0.1
N = math.prod(SHAPE)
LEVELS = [(Level(0.6, 0.8, 0.0), Level(0.8, 0.6, 0.0)), (Level(0.95, 0.31, 0.0), Level(0.99, 0.05, 0.0))]


def blur() -> LinearOperator:
    return separable_blur(SHAPE, [0.2, 0.6, 0.2], [0.25, 0.5, 0.25], dtype=torch.float64, device="cpu")


def mask() -> LinearOperator:
    return build("inpaint", resolve("inpaint", OperatorOptions(fraction=0.4)), SHAPE, dtype=torch.float64)


def dense(op: LinearOperator) -> Tensor:
    return op.A(torch.eye(N, dtype=torch.float64).reshape(N, *SHAPE)).flatten(1).T


def counted(op: LinearOperator, y: Tensor, **knobs: float) -> CountedDmps:
    return CountedDmps(
        DenoiserPrior(lambda z, s: z), op, y, SIGMA_Y, **{"weight": 3.0, "eta": 0.85, "eta_y": 0.8, **knobs}
    )


@pytest.mark.parametrize("make", [blur, mask])
@pytest.mark.parametrize(("cur", "nxt"), LEVELS)
def test_step_is_the_formula_on_dense_matrices(make: Callable[[], LinearOperator], cur: Level, nxt: Level) -> None:
    """By the SVD of the dense matrix, mode after mode."""
    op = make()
    y, x0, eps, z = (randn(1, *shape, seed=k) for k, shape in enumerate([op.out_shape, SHAPE, SHAPE, SHAPE]))
    U, S, Vt = torch.linalg.svd(dense(op))
    c, e, fresh = (Vt @ image.flatten() for image in (x0, eps, z))
    yh = U.T @ y.flatten()
    q0, q = cur.sigma / cur.alpha, nxt.sigma / nxt.alpha
    expected = c + q * (math.sqrt(1 - 0.85**2) * e + 0.85 * fresh)
    for mode, s in enumerate(S.tolist()):
        if s < 1e-4 * float(S.max()):
            continue
        spread = SIGMA_Y / s
        k = min(3.0 * q0**2 / (3.0 * q0**2 + spread**2), q / spread)
        noise = math.sqrt(max(q**2 - (k * spread) ** 2, 0.0)) * (0.6 * e[mode] + 0.8 * fresh[mode])
        expected[mode] = c[mode] + k * (yh[mode] / s - c[mode]) + noise
    ours = counted(op, y).step(0 * x0, x0, eps, lambda _: z, cur, nxt)
    torch.testing.assert_close(ours.flatten(), nxt.alpha * Vt.T @ expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("make", [blur, mask])
@pytest.mark.parametrize(("cur", "nxt"), LEVELS)
def test_the_state_is_as_noisy_as_its_level(make: Callable[[], LinearOperator], cur: Level, nxt: Level) -> None:
    """If x0 is right, what is left of n and what is drawn add up to sigma'^2 in every direction, by covariances."""
    op, A = make(), dense(make())
    y0, zero = torch.zeros(1, *op.out_shape, dtype=torch.float64), torch.zeros(1, *SHAPE, dtype=torch.float64)
    m = A.shape[0]

    def of_y(y: Tensor) -> Tensor:
        x0 = zero.expand(len(y), *SHAPE)
        return counted(op, y, eta=1.0, eta_y=1.0).step(x0, x0, x0, lambda _: x0, cur, nxt)

    from_n = of_y(SIGMA_Y * torch.eye(m, dtype=torch.float64).reshape(m, *op.out_shape)).flatten(1)
    basis = torch.eye(N, dtype=torch.float64).reshape(N, *SHAPE)
    none = zero.expand(N, *SHAPE)
    method = counted(op, y0.expand(N, *op.out_shape), eta=1.0, eta_y=1.0)
    from_z = method.step(none, none, none, lambda _: basis, cur, nxt).flatten(1)
    covariance = from_n.T @ from_n + from_z.T @ from_z
    torch.testing.assert_close(covariance, nxt.sigma**2 * torch.eye(N, dtype=torch.float64), rtol=0, atol=1e-10)


def test_the_preset_and_its_refusals() -> None:
    fast = resolve_sampling(task="sr4", preset="fast")
    assert (fast.nfe, fast.spacing, fast.knobs["score_at"]) == (20, "quadratic", "x0")
    assert resolve_sampling(task="inpaint", preset="fast").knobs["eta"] == 1.0
    assert "eta" not in resolve_sampling(task="inpaint").as_dict()
    with pytest.raises(UsageError, match="--eta belongs to --score-at x0"):
        resolve_sampling(task="sr4", knobs={"eta": 0.5})
