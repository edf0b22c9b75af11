"""Operators by a matrix or by functions against dense float64; noise of each number, against the closed posterior."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch import Tensor

import dmps_cli as dmps
from dmps_cli.errors import InputError
from dmps_cli.levels import Level, ddpm_levels, flow_levels
from dmps_cli.methods.choice import resolve_sampling
from dmps_cli.methods.pgdm import Pgdm
from dmps_cli.methods.tweedie import DmpsTweedie
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.functions import FunctionOperator, verdict
from dmps_cli.operators.matrix import MatrixOperator
from dmps_cli.operators.measurement import Measurement
from dmps_cli.operators.weighted import ScaledRows, Weighted
from dmps_cli.pipeline import FILE_KEY, restore
from dmps_cli.priors import GaussianPrior
from tests.conftest import Iterated, randn, where

D = torch.float64


def near(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * max(1.0, float(expected.abs().max())))


def check(op: LinearOperator, A: Tensor) -> None:
    """Every form of an operator against its matrix (M, N)."""
    x, y = randn(2, *op.in_shape, seed=1), randn(2, *op.out_shape, seed=2)
    near(op.A(x).flatten(1), x.flatten(1) @ A.T, 1e-12)
    near(op.At(y).flatten(1), y.flatten(1) @ A, 1e-12)
    system = 0.05 * torch.eye(len(A), dtype=D, device=where()) + 0.7 * A @ A.T
    near(op.solve(y, 0.05, 0.7).flatten(1), torch.linalg.solve(system, y.flatten(1).T).T)
    assert op.norm == pytest.approx(float(torch.linalg.matrix_norm(A, 2)), rel=1e-2)


@given(
    shape=st.tuples(st.sampled_from([1, 3]), st.integers(2, 5), st.integers(2, 6)),
    rows=st.integers(1, 30),
    is_sparse=st.booleans(),
    per_channel=st.booleans(),
)
@settings(max_examples=15, deadline=None, derandomize=True)
def test_a_matrix(shape: tuple[int, int, int], rows: int, is_sparse: bool, per_channel: bool) -> None:
    columns = shape[1] * shape[2] if per_channel else math.prod(shape)
    K = randn(rows, columns, seed=rows)
    if is_sparse:
        K = torch.where(randn(rows, columns, seed=7) > 0.5, K, 0.0)
    given = sparse.csr_array(K.cpu().numpy()) if is_sparse else K
    op = MatrixOperator(shape, given, dtype=D, device=where())
    dense = torch.block_diag(*[K] * (shape[0] if per_channel else 1))
    assert math.prod(op.out_shape) == len(dense)
    check(op, dense)


def test_a_matrix_of_another_size() -> None:
    with pytest.raises(InputError, match=r"7 x 10; expected 60 columns .* or 20 for each channel"):
        MatrixOperator((3, 4, 5), randn(7, 10), dtype=D, device=where())


@given(shape=st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(2, 5)), rows=st.integers(1, 20))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_functions_and_the_way_back(shape: tuple[int, int, int], rows: int) -> None:
    K = randn(rows, math.prod(shape), seed=rows)

    def forward(x: Tensor) -> Tensor:
        return x.flatten(1) @ K.T

    def back(y: Tensor) -> Tensor:
        return (y @ K).reshape(-1, *shape)

    for At in (back, None):
        op = FunctionOperator(shape, forward, At, dtype=D, device=where())
        check(op, K)
        with torch.no_grad():
            assert not op.At(randn(1, rows)).requires_grad
        assert "linear" in verdict(op, "mine")


def row_sum(x: Tensor) -> Tensor:
    return x.sum(-1)


def spread(y: Tensor) -> Tensor:
    return y[..., None].expand(-1, -1, -1, 5)


def in_place(x: Tensor) -> Tensor:
    return x.mul_(2.0)


WRONG: dict[str, tuple[Callable[[Tensor], object], Callable[[Tensor], object] | None, str]] = {
    "square": (lambda x: x**2, lambda y: y, "A is not linear"),
    "affine": (lambda x: x + 1.0, lambda y: y, "A is not linear"),
    "transpose": (row_sum, lambda y: 2.0 * spread(y), "At is not the transpose"),
    "transpose beyond the range": (
        lambda x: torch.cat([x, x], dim=1),
        lambda y: 2.0 * y[:, :3] + 0.0 * y[:, 3:],
        "At is not the transpose",
    ),
    "shape of At": (row_sum, lambda y: y, "At gives"),
    "zero": (lambda x: 0.0 * x, lambda y: y, "A gives 0 for a random picture"),
    "nan": (lambda x: x.sqrt(), lambda y: y, "NaN"),
    "dtype": (lambda x: x.float(), lambda y: y, "A gives torch.float32 on cpu; expected torch.float64"),
    "device": (lambda x: x.to("meta"), lambda y: y, "on meta; expected"),
    "no tensor": (lambda x: x.tolist(), lambda y: y, "A gives a list; expected a tensor"),
    "raises": (lambda x: x @ x.new_zeros(7, 7), lambda y: y, "A raises RuntimeError"),
    "no batch": (lambda x: x.sum(0), lambda y: y, "a result for each of the batch"),
    "one for all": (lambda x: x - x.mean(), lambda y: y, "A is not linear|alone and in a batch|At is not"),
    "mixes": (lambda x: x - x.mean(0, keepdim=True) + x, lambda y: y, "alone and in a batch"),
    "no way back": (lambda x: x.detach() * 2.0, None, "give At too"),
    "writes": (in_place, lambda y: 2.0 * y, "writes into its argument"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_no_operator_may_do(case: str) -> None:
    A, At, said = WRONG[case]
    with pytest.raises(InputError, match=said):
        verdict(FunctionOperator((3, 4, 5), A, At, name="mine", dtype=D), "mine")  # type: ignore[arg-type]


# Noise of each number -----------------------------------------------------------------------------------------------


class Dense(LinearOperator):
    """A by its matrix, and nothing closed."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__((1, 2, 3), (len(matrix),), D, where())
        self.matrix = matrix

    def A(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix.T

    def At(self, y: Tensor) -> Tensor:
        return (y @ self.matrix).reshape(-1, *self.in_shape)


def sigmas(shape: tuple[int, ...], ratio: float = 8.0) -> Tensor:
    return 0.05 * ratio ** torch.rand(shape, generator=torch.Generator().manual_seed(3), dtype=D).to(where())


@pytest.mark.parametrize("levels", [ddpm_levels(10)[3:5], flow_levels(10)[3:5]], ids=["ddpm", "flow"])
@pytest.mark.parametrize("kind", [Pgdm, DmpsTweedie])
@pytest.mark.parametrize("is_closed", [True, False])
def test_the_guidance_is_exact_for_a_standard_normal_prior(
    kind: type[Pgdm | DmpsTweedie], levels: list[Level], is_closed: bool
) -> None:
    """E[x0 | x_t, y] in closed form, the covariance of y's noise a diagonal of different values."""
    cur, nxt = levels
    one = torch.eye(6, dtype=D, device=where())
    A = one[[0, 2, 3, 5]] if is_closed else randn(4, 6, seed=5)
    keep = A.sum(0).reshape(2, 3) > 0
    op = dmps.operator("inpaint", (1, 2, 3), mask=keep, dtype=D, device=where()) if is_closed else Dense(A)
    sigma, y, x_t = sigmas(op.out_shape), randn(1, *op.out_shape, seed=6), randn(1, 1, 2, 3, seed=7)
    weights = 1.0 / sigma.flatten() ** 2
    precision = (1.0 + (cur.alpha / cur.sigma) ** 2) * one + A.T @ (weights[:, None] * A)
    right = cur.alpha / cur.sigma**2 * x_t.flatten() + A.T @ (weights * y.flatten())
    exact = torch.linalg.solve(precision, right).reshape(x_t.shape)
    prior = GaussianPrior(torch.zeros(1, 2, 3, dtype=D, device=where()), one)
    knobs: dict[str, Any] = {"guidance": "bayes"} if kind is Pgdm else {}
    x0, _ = kind(prior, Measurement(y, op, sigma), weight=1.0, **knobs).predict(x_t, cur, nxt)
    near(x0, exact, 1e-12 if is_closed else 1e-4)  # or by iterations, truncated


@pytest.mark.parametrize(
    "text", ["denoise", "inpaint", "colorize", "colorize | inpaint(fraction=0.5)", "deblur(3)", "sr2"]
)
def test_division_by_the_noise_is_that_of_the_matrix(text: str) -> None:
    op = dmps.operator(text, (3, 4, 6), dtype=D, device=where())
    A = op.A(torch.eye(72, dtype=D, device=where()).reshape(72, 3, 4, 6)).flatten(1).T
    sigma = sigmas(op.out_shape)
    white = Measurement(randn(2, *op.out_shape), op, sigma).whitened()
    common = white.sigma_y
    assert isinstance(common, float)
    near((white.y / common).flatten(1), (randn(2, *op.out_shape) / sigma).flatten(1), 1e-12)
    check(white.op, common * A / sigma.flatten()[:, None])
    assert white.op.is_iterated is (text in ("deblur(3)", "sr2"))
    assert isinstance(white.op, Weighted if white.op.is_iterated else ScaledRows)


def test_the_preconditioner_is_near_the_inverse() -> None:
    """Symmetric and positive definite; and few iterations do, whether the picture or the noise counts for more."""
    from dmps_cli.methods.solver import TruncatedSolver

    op = dmps.operator("blur", (1, 24, 24), kernel="motion:7,30", dtype=D, device=where())
    white = Measurement(randn(1, 1, 24, 24), op, sigmas(op.out_shape, 5.0)).whitened()
    u, v = randn(1, 1, 24, 24, seed=8), randn(1, 1, 24, 24, seed=9)
    M = white.op.precondition
    assert float((M(u, 0.01, 2.0) * v).sum()) == pytest.approx(float((u * M(v, 0.01, 2.0)).sum()), rel=1e-9)
    assert float((M(u, 0.01, 2.0) * u).sum()) > 0.0
    sigma_y = float(white.sigma_y)
    for q in (3.0, 0.3, 0.03):
        solver, plain = TruncatedSolver(white.op, 1), TruncatedSolver(Iterated(white.op), 1)
        for each in (solver, plain):
            each(white.y, sigma_y**2, q**2)
        assert int(solver.total) <= min(16, 2 * int(plain.total))
    assert int(plain.total) < 12  # where the noise counts for more: nothing is lost there


@pytest.mark.parametrize("method", ["dmps", "dmps-tweedie", "dps", "pgdm", "diffpir"])
def test_equal_sigmas_are_one_sigma(method: str) -> None:
    """To the bit, whatever the method, and of one that is not given for each: a row's, repeated."""
    op = dmps.operator("inpaint", (3, 4, 4), fraction=0.5, dtype=torch.float32)
    prior = GaussianPrior(torch.zeros(3, 4, 4), torch.eye(48))
    y = randn(1, *op.out_shape).float().cpu()

    def drawn(sigma: float | Tensor) -> Tensor:
        sampling = resolve_sampling(method=method, nfe=4)
        return restore(Measurement(y, op, sigma), prior, sampling, seed=0, keys=[FILE_KEY])

    assert torch.equal(drawn(0.1), drawn(torch.full((1, 1), 0.1)))
    assert not torch.equal(drawn(0.1), drawn(sigmas(op.out_shape).cpu()))


def test_a_pixel_known_better_is_kept_better() -> None:
    """Half of the picture has a tenth of the noise; restored, its error is smaller, and smaller than by one sigma."""
    op = dmps.operator("denoise", (3, 4, 16))
    truth = randn(8, 3, 4, 16, seed=1).float().cpu()
    sigma = torch.full((3, 4, 16), 0.3)
    sigma[..., :8] = 0.03
    measured = dmps.degrade(truth, op, sigma, seed=0)
    prior = GaussianPrior(torch.zeros(3, 4, 16), torch.eye(192))
    x = dmps.restore(measured, prior, method="pgdm", nfe=20)
    error = (x - truth).square().mean((0, 1, 2)).sqrt()
    assert float(error[:8].mean()) < 0.2 * float(error[8:].mean())


@pytest.mark.parametrize(
    ("sigma", "said"),
    [
        (torch.zeros(1, 4, 4), "holds 0; expected finite numbers above 0"),
        (torch.full((1, 4, 4), math.inf), "expected finite numbers"),
        (torch.ones(3, 3), r"is \(3, 3\); the operator gives \(1, 4, 4\)"),
    ],
)
def test_sigmas_that_cannot_be(sigma: Tensor, said: str) -> None:
    op = dmps.operator("denoise", (1, 4, 4))
    with pytest.raises(ValueError, match=said):
        Measurement(torch.zeros(1, 1, 4, 4), op, sigma)
    with pytest.raises(ValueError, match=said):
        dmps.degrade(torch.zeros(1, 1, 4, 4), op, sigma)
