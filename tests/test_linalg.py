"""Iterations and transforms against NumPy's and SciPy's dense answers."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import torch
from scipy.linalg import hadamard

from dmps_cli.errors import ConvergenceError
from dmps_cli.linalg import (
    along_both_axes,
    conjugate_gradient,
    cosine_transform,
    fast_length,
    inverse_cosine_transform,
    kernel_spectrum,
    largest_eigenvalue,
    matrix_svd,
    shifted,
    walsh_hadamard,
)
from tests.conftest import randn, same


def spd(n: int = 12) -> torch.Tensor:
    factor = randn(n, n, seed=1)
    return factor @ factor.T + 0.1 * torch.eye(n, dtype=torch.float64)


def test_conjugate_gradients_solve_each_item() -> None:
    matrix, b = spd(), randn(3, 12, seed=2) * torch.tensor([[1.0], [1e6], [0.0]], dtype=torch.float64)
    x = conjugate_gradient(lambda v: v @ matrix, b, rtol=1e-12, max_iter=200)
    expected = torch.linalg.solve(matrix, b.T).T
    for i in range(3):
        torch.testing.assert_close(x[i], expected[i], rtol=1e-8, atol=1e-12)


def test_an_item_is_not_disturbed_by_its_company() -> None:
    matrix, b = spd(), randn(2, 12, seed=2) * torch.tensor([[1.0], [1e6]], dtype=torch.float64)
    together = conjugate_gradient(lambda v: torch.stack([matrix @ row for row in v]), b, rtol=1e-10, max_iter=200)
    for i in range(2):
        alone = conjugate_gradient(
            lambda v: torch.stack([matrix @ row for row in v]), b[i : i + 1], rtol=1e-10, max_iter=200
        )
        assert same(together[i], alone[0])


def test_a_singular_map_gives_the_least_norm_solution() -> None:
    factor = randn(12, 5, seed=3)
    matrix = factor @ factor.T
    b = randn(1, 12, seed=4) @ matrix
    x = conjugate_gradient(lambda v: v @ matrix, b, rtol=1e-13, max_iter=200)
    torch.testing.assert_close(x, b @ torch.linalg.pinv(matrix, rtol=1e-10), rtol=0, atol=1e-8)


def test_an_iteration_that_stops_short_says_how_far_it_came() -> None:
    with pytest.raises(ConvergenceError, match=r"relative residual of .* after 2 iterations, not 1.0e-12"):
        conjugate_gradient(lambda v: v @ spd(), randn(1, 12), rtol=1e-12, max_iter=2)


def test_a_nan_does_not_pass_for_a_solution() -> None:
    b = randn(1, 12)
    b[0, 3] = float("nan")
    x = conjugate_gradient(lambda v: v @ spd(), b, rtol=1e-12, max_iter=50)
    assert bool(x.isnan().any())


def test_largest_eigenvalue() -> None:
    matrix = spd(40)
    value = largest_eigenvalue(lambda v: v @ matrix, randn(1, 40, seed=5), rtol=1e-10)
    assert value == pytest.approx(np.linalg.eigvalsh(matrix.numpy())[-1], rel=1e-8)


@pytest.mark.parametrize("kind", ["symmetric", "general", "wide"])
def test_matrix_svd(kind: str) -> None:
    K = {"symmetric": randn(9, 9) + randn(9, 9).T, "general": randn(9, 9), "wide": randn(4, 9)}[kind]
    svd = matrix_svd(K)
    torch.testing.assert_close(svd.matrix(), K, rtol=0, atol=1e-12)
    np.testing.assert_allclose(svd.s.numpy(), np.linalg.svd(K.numpy(), compute_uv=False), atol=1e-12)
    for factor in (svd.U, svd.V):
        torch.testing.assert_close(factor.T @ factor, torch.eye(len(svd.s), dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 64, 1024])
def test_walsh_hadamard_is_scipys(n: int) -> None:
    x = randn(2, 3, n)
    expected = x @ torch.from_numpy(hadamard(n) / np.sqrt(n))
    torch.testing.assert_close(walsh_hadamard(x), expected, rtol=0, atol=1e-11)


def test_walsh_hadamard_refuses_other_lengths() -> None:
    with pytest.raises(ValueError, match="12"):
        walsh_hadamard(randn(1, 12))


@pytest.mark.parametrize("shape", [(3, 3), (5, 2), (9, 11)])
def test_kernel_spectrum_is_the_dft_of_the_wrapped_kernel(shape: tuple[int, int]) -> None:
    kernel, grid = randn(*shape), (7, 8)
    laid = np.zeros(grid)
    for r in range(shape[0]):
        for c in range(shape[1]):
            laid[(r - shape[0] // 2) % 7, (c - shape[1] // 2) % 8] += kernel[r, c].item()
    np.testing.assert_allclose(kernel_spectrum(kernel, grid).numpy(), np.fft.rfft2(laid), atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 33])
def test_cosine_transform_is_scipys(n: int) -> None:
    x = randn(3, n)
    expected = torch.from_numpy(scipy.fft.dct(x.numpy(), type=2, norm="ortho"))
    torch.testing.assert_close(cosine_transform(x), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(inverse_cosine_transform(expected), x, rtol=0, atol=1e-14)


def test_a_kernel_is_laid_with_its_origin_at_zero() -> None:
    """The shift theorem of the DFT."""
    kernel, grid = randn(3, 5), (7, 8)
    centred = kernel_spectrum(kernel, grid).numpy()
    rows, cols = np.exp(2j * np.pi * np.arange(7) / 7), np.exp(2j * np.pi * np.arange(5) / 8)
    moved = kernel_spectrum(kernel, grid, (2, 0)).numpy()  # one row up, two columns to the right
    np.testing.assert_allclose(moved, centred * rows[:, None] * cols[None, :] ** -2, atol=1e-12)


def test_a_length_for_ffts_is_the_next_product_of_2_3_and_5() -> None:
    products = sorted(2**a * 3**b * 5**c for a in range(10) for b in range(7) for c in range(5))
    for least in range(1, 500):
        assert fast_length(least) == next(n for n in products if n >= least)


def test_shifted_is_the_sum() -> None:
    matrix, v = spd(), randn(2, 12)
    torch.testing.assert_close(shifted(lambda v: v @ matrix, v, 0.3, 1.7), 0.3 * v + 1.7 * v @ matrix)


def test_products_along_both_axes() -> None:
    left, x, right = randn(4, 5), randn(2, 3, 5, 6, seed=1), randn(6, 7, seed=2)
    torch.testing.assert_close(along_both_axes(left, x, right), torch.einsum("mh,bchw,wn->bcmn", left, x, right))
