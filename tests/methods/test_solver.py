"""Iterated solves that serve a sampler: what they leave, against dense solves, and when they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dmps_cli.errors import ConvergenceError
from dmps_cli.linalg import item_dot, refine
from dmps_cli.methods.solver import TruncatedSolver
from dmps_cli.operators.base import PINV_DAMPING, LinearOperator
from dmps_cli.operators.convolution import ValidConvolution
from dmps_cli.operators.kernels import line
from tests.conftest import randn

N = 40
SHAPE = (2, 14, 13)


def graded() -> Tensor:
    """Symmetric, eigenvalues from 1 down to 1e-4."""
    Q, _ = torch.linalg.qr(randn(N, N, seed=1))
    return Q * torch.logspace(0, -4, N, dtype=torch.float64) @ Q.T


def blur(dtype: torch.dtype = torch.float64) -> ValidConvolution:
    return ValidConvolution(SHAPE, line(5.0, 30.0).values, dtype=dtype, device="cpu")


def dense(op: LinearOperator) -> Tensor:
    size = math.prod(op.in_shape)
    return op.A(torch.eye(size, dtype=op.dtype).reshape(size, *op.in_shape)).flatten(1).T


def solved(matrix: Tensor, b: Tensor, error: float, scaling: float = 1.0) -> Tensor:
    """By a preconditioner that knows the diagonal."""
    diagonal = scaling * matrix.diagonal()
    rows = lambda v: torch.stack([matrix @ row for row in v])  # noqa: E731
    return refine(rows, 0 * b, b, precondition=lambda v: v / diagonal, error=error, max_iter=500).x


@pytest.mark.parametrize("error", [1.0, 1e-1, 1e-3, 1e-8])
def test_an_item_stops_at_its_error_in_the_energy_norm(error: float) -> None:
    """Items of unlike size, a zero one among them; the preconditioner's scale does not matter."""
    matrix, b = graded(), randn(3, N, seed=2) * torch.tensor([[1.0], [30.0], [0.0]], dtype=torch.float64)
    exact = torch.linalg.solve(matrix, b.T).T
    for scaling in (1.0, 1e5):
        wrong = solved(matrix, b, error, scaling) - exact
        assert bool((item_dot(wrong, wrong @ matrix).sqrt() < 1.5 * error).all())


def test_an_item_is_not_disturbed_by_its_company() -> None:
    matrix, b = graded(), randn(2, N, seed=2) * torch.tensor([[1.0], [30.0]], dtype=torch.float64)
    together = solved(matrix, b, 1e-2)
    for i in range(2):
        assert torch.equal(together[i], solved(matrix, b[i : i + 1], 1e-2)[0])


@pytest.mark.parametrize("matrix", [torch.diag(-graded().diagonal()), graded() @ torch.triu(randn(N, N) * 100)])
def test_a_map_that_is_not_positive_definite_is_an_error(matrix: Tensor) -> None:
    with pytest.raises(ConvergenceError, match=r"diverged in .* may not be the transpose"):
        refine(lambda v: v @ matrix, randn(1, N) * 0, randn(1, N), precondition=lambda v: v, error=1e-9, max_iter=100)


def test_a_nan_that_is_given_is_handed_on() -> None:
    """The sampler's own message names the level."""
    b = randn(1, N) * math.nan
    assert bool(solved(graded(), b, 1e-3).isnan().all())


@pytest.mark.parametrize("q", [0.02, 0.3, 3.0, 50.0])
@pytest.mark.parametrize("sigma_y", [0.0, 0.05])
def test_the_shift_that_a_step_takes_is_exact_to_a_share_of_its_noise(q: float, sigma_y: float) -> None:
    op, A = blur(), dense(blur())
    r = op.A(randn(2, *SHAPE, seed=3)) + 0.05 * randn(2, *op.out_shape, seed=4)
    for tolerance in (0.3, 0.03, 1e-4):
        solver = TruncatedSolver(op, 2, tolerance=tolerance, max_iter=1000)
        noise_var = solver.noise_var(sigma_y**2, q**2)
        inner = noise_var * torch.eye(len(A), dtype=torch.float64) + q**2 * A @ A.T
        exact = q**2 * (torch.linalg.solve(inner, r.flatten(1).T).T @ A).reshape(2, *SHAPE)
        shift = q**2 * op.At(solver(r, sigma_y**2, q**2))
        assert bool(((shift - exact).square().mean((1, 2, 3)).sqrt() < tolerance * q).all())


def test_noise_is_raised_to_what_the_precision_resolves() -> None:
    op = blur(torch.float32)
    assert TruncatedSolver(op, 1).noise_var(0.05**2, 1.0) == 0.05**2
    assert TruncatedSolver(op, 1).noise_var(0.0, 4.0) == pytest.approx(4.0 * (PINV_DAMPING[op.dtype] * op.norm) ** 2)


def test_a_solve_begins_where_the_last_one_ended() -> None:
    """At another scale, where the solution is another multiple; a fresh one neither takes nor leaves a start."""
    op = blur()
    r = op.A(randn(1, *SHAPE, seed=3))
    solver = TruncatedSolver(op, 1, tolerance=1e-6, max_iter=1000)
    solver(r, 1e-3, 1.0)
    first = int(solver.total)
    solver.anew(randn(1, *op.out_shape), 1e-3, 1.0)
    before = int(solver.total)
    solver(r, 1e-1, 100.0)
    assert int(solver.total) - before <= 2 < first


class WrongTranspose(ValidConvolution):
    def gram(self, r: Tensor) -> Tensor:
        return -super().gram(r)


def test_an_operator_whose_transpose_is_wrong_is_an_error() -> None:
    op = WrongTranspose(SHAPE, line(5.0, 30.0).values, dtype=torch.float64, device="cpu")
    op.norm = 1.0  # type: ignore[misc]
    with pytest.raises(ConvergenceError, match="diverged"):
        TruncatedSolver(op, 1)(randn(1, *op.out_shape), 1e-4, 1.0)
