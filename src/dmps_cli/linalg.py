"""Linear algebra on batches of vectors of any shape; knows no images.

The first axis is the batch. Items of a batch never meet: norms and stopping tests are per item, and products with a
matrix are taken slice by slice, so that on a CPU an item's bits do not depend on its company.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from dmps_cli.errors import ConvergenceError

LinearMap = Callable[[Tensor], Tensor]


def item_dot(u: Tensor, v: Tensor) -> Tensor:
    """Returns the inner product of each batch item, shaped (B, 1, ..) so that it broadcasts against u."""
    return (u * v).flatten(1).sum(1).reshape(-1, *[1] * (u.ndim - 1))


def shifted(apply: LinearMap, v: Tensor, noise_var: float, scale: float) -> Tensor:
    """Returns noise_var v + scale apply(v), scale > 0, with one temporary."""
    return torch.add(apply(v), v, alpha=noise_var / scale).mul_(scale)


def conjugate_gradient(apply: LinearMap, b: Tensor, *, rtol: float, max_iter: int) -> Tensor:
    """Solves apply(x) = b for a symmetric positive semi-definite map (Hestenes and Stiefel 1952).

    b: (B, ..). Each item stops at ||residual|| <= rtol ||b|| and is then left as it is. A singular
    map is fine for b in its range (the minimum-norm solution results). Raises ConvergenceError
    with the relative residual reached if an item needs more than max_iter iterations.
    """
    x, residual = 0.0 * b, b  # 0 b rather than zeros: a NaN in b shows in x
    direction, rho = residual, item_dot(residual, residual)
    target = rtol**2 * rho
    for _ in range(max_iter):
        active = rho > target
        if not bool(active.any()):
            return x
        image = apply(direction)
        curvature = item_dot(direction, image)
        step = torch.where(active & (curvature > 0), rho / curvature, 0.0)
        x, residual = x + step * direction, residual - step * image
        rho_next = item_dot(residual, residual)
        direction = residual + torch.where(active, rho_next / rho, 0.0) * direction
        rho = torch.where(active, rho_next, rho)
    if bool((rho > target).any()):
        reached = float((rho / item_dot(b, b)).nan_to_num().max().sqrt())
        raise ConvergenceError(
            f"conjugate gradients reached a relative residual of {reached:.1e} after {max_iter} iterations, "
            f"not {rtol:.1e}"
        )
    return x


DIVERGED = 1e3
"""An iteration whose residual has grown by this factor diverges: rounding and the square root of a condition that
float32 resolves (PINV_DAMPING) explain a tenth of it."""


class Refined(NamedTuple):
    """What `refine` came to. x, residual: (B, ..); iterations: (B,), of each item."""

    x: Tensor
    residual: Tensor
    iterations: Tensor


def refine(
    apply: LinearMap, x: Tensor, residual: Tensor, *, precondition: LinearMap, error: float, max_iter: int
) -> Refined:
    """Brings x, whose residual is b - apply(x), nearer to the solution of apply(x) = b: for whoever needs no digits.

    Preconditioned conjugate gradients, truncated without complaint. apply, precondition: symmetric and positive
    definite. A step lowers the squared error in the energy norm, (x - x*)^T apply(x - x*), by exactly step rho; an item
    stops when the last quarter of its steps, two at least, together lowered it by no more than error^2 (Strakos and
    Tichy 2002: that is the error before them, short of what is left; slow convergence needs a longer look back), and is
    then left as it is. A residual that is not finite stays what it is.

    Raises ConvergenceError if an item diverges: by a negative curvature, by NaN, or by a residual DIVERGED times the
    first.
    """
    first = item_dot(residual, residual)
    x, residual = x.clone(), residual.clone()  # written over: fresh memory costs more than an iteration's arithmetic
    direction = precondition(residual).clone()
    rho = item_dot(residual, direction)
    active, is_broken, gains = rho > 0.0, rho < 0.0, [torch.full_like(rho, math.inf)]
    iterations = torch.zeros(len(x), dtype=torch.long, device=x.device)
    for _ in range(max_iter):
        if not bool(active.any()):
            break
        image = apply(direction)
        curvature = item_dot(direction, image)
        is_broken |= active & (curvature <= 0.0)
        step = torch.where(active & (curvature > 0.0), rho / curvature, 0.0)
        x.addcmul_(step, direction)
        residual.addcmul_(-step, image)
        preconditioned = precondition(residual)
        rho_next = item_dot(residual, preconditioned)
        direction.mul_(torch.where(active, rho_next / rho, 0.0)).add_(preconditioned)
        iterations += active.flatten()
        gains.append(step * rho)
        recent = torch.stack(gains[-max(2, len(gains) // 4) :]).sum(0)
        active = active & (recent > error**2) & (rho_next > 0.0)
        rho = torch.where(active, rho_next, rho)
    last = item_dot(residual, residual)
    is_broken |= ~(last <= DIVERGED**2 * first) & first.isfinite()
    if bool(is_broken.any()):
        grown = float((last / first).sqrt().nan_to_num(math.inf).max())
        raise ConvergenceError(
            f"conjugate gradients diverged in {int(iterations.max())} iterations, to {grown:.1e} times the first "
            "residual; the operator's At may not be the transpose of its A"
        )
    return Refined(x, residual, iterations)


def largest_eigenvalue(apply: LinearMap, start: Tensor, *, rtol: float = 1e-6, max_iter: int = 500) -> float:
    """Returns the largest eigenvalue of a symmetric positive semi-definite map, by Lanczos; start: (1, ..).

    The largest Ritz value of the three-term recurrence: it needs no stored basis, as lost orthogonality only
    repeats values that have converged, and it is far ahead of power iteration where eigenvalues crowd near the
    largest, as a blur's do. Stops when two successive estimates differ by at most rtol; raises ConvergenceError
    if they still differ by more after max_iter.
    """
    before, vector, beta = torch.zeros_like(start), start / item_dot(start, start).sqrt(), 0.0
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    value = 0.0
    for _ in range(max_iter):
        image = apply(vector) - beta * before
        diagonal.append(float(item_dot(image, vector)))
        image = image - diagonal[-1] * vector
        estimate = _largest_of_tridiagonal(diagonal, off_diagonal)
        beta = float(item_dot(image, image).sqrt())
        if abs(estimate - value) <= rtol * estimate or beta <= torch.finfo(start.dtype).eps * estimate:
            return estimate
        value = estimate
        off_diagonal.append(beta)
        before, vector = vector, image / beta
    raise ConvergenceError(f"Lanczos iteration did not settle to {rtol:.0e} in {max_iter} iterations (at {value:.6g})")


def _largest_of_tridiagonal(diagonal: list[float], off_diagonal: list[float]) -> float:
    main = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if off_diagonal:
        side = torch.tensor(off_diagonal, dtype=torch.float64)
        main = main + torch.diag(side, 1) + torch.diag(side, -1)
    return float(torch.linalg.eigvalsh(main)[-1])


class MatrixSVD(NamedTuple):
    """K = U diag(s) V^T. K: (m, n), k = min(m, n); U: (m, k); s: (k,), descending; V: (n, k)."""

    U: Tensor
    s: Tensor
    V: Tensor

    def matrix(self) -> Tensor:
        """Returns U diag(s) V^T."""
        return (self.U * self.s) @ self.V.T


def matrix_svd(K: Tensor) -> MatrixSVD:
    """Returns the thin singular value decomposition of a matrix, in its own precision (float64 for operators).

    A symmetric K is decomposed as Q diag(w) Q^T, which is three times as fast: s = |w|, V = Q, U = Q diag(sign w).
    """
    if K.shape[0] != K.shape[1] or not torch.allclose(K, K.T, rtol=0.0, atol=1e-15 * float(K.abs().max())):
        U, s, Vt = torch.linalg.svd(K, full_matrices=False)
        return MatrixSVD(U, s, Vt.T.contiguous())
    w, Q = torch.linalg.eigh(K)
    order = w.abs().argsort(descending=True)
    w, Q = w[order], Q[:, order]
    return MatrixSVD(Q * torch.where(w < 0.0, -1.0, 1.0), w.abs(), Q)


def along_both_axes(left: Tensor, x: Tensor, right: Tensor) -> Tensor:
    """Returns left X right for each matrix X of a stack.

    left: (m, H); x: (.., H, W); right: (W, n); result: (.., m, n).

    One plain product after another: broadcasting `matmul` would copy x first and is several times slower on a CPU.
    """
    products = [left @ matrix @ right for matrix in x.reshape(-1, *x.shape[-2:])]
    return torch.stack(products).reshape(*x.shape[:-2], left.shape[0], right.shape[1])


_BITS_PER_PASS = 6  # measured: fewer passes cost more arithmetic than they save


@lru_cache
def hadamard_matrix(order: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns the orthonormal Hadamard matrix of size 2^order in Sylvester's order, H_2n = H_2 (x) H_n."""
    block = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    matrix = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(order):
        matrix = torch.kron(block, matrix)
    return (matrix / math.sqrt(1 << order)).to(device, dtype)


def walsh_hadamard(x: Tensor) -> Tensor:
    """Returns the orthonormal Walsh-Hadamard transform of the last axis, in Sylvester's order; its own inverse.

    x: (.., n), n a power of two, else ValueError. H_n is a Kronecker product, so it is applied block by block: each
    pass multiplies by a small Hadamard matrix along the lowest bits of the index and rotates those bits to the top;
    when all bits have had their turn they are in order again. Four passes of matrix products at n = 2^20, not twenty
    of butterflies.
    """
    n = x.shape[-1]
    bits = n.bit_length() - 1
    if n != 1 << bits:
        raise ValueError(f"the last axis has length {n}; a Walsh-Hadamard transform needs a power of two")
    passes = -(-bits // _BITS_PER_PASS)
    orders = [bits // passes + (k < bits % passes) for k in range(passes)]
    blocks = [hadamard_matrix(order, x.dtype, x.device) for order in orders]
    return torch.stack([_hadamard_passes(row, blocks) for row in x.reshape(-1, n)]).reshape(x.shape)


def _hadamard_passes(row: Tensor, blocks: list[Tensor]) -> Tensor:
    for block in blocks:
        row = (row.reshape(-1, len(block)) @ block).T.reshape(-1)
    return row


def fast_length(least: int) -> int:
    """Returns the smallest length, not below `least`, without a prime factor above 5.

    Other FFTs take several times as long.
    """
    length = least
    while _without_factors(length) > 1:
        length += 1
    return length


def _without_factors(length: int) -> int:
    """Returns what is left of a number when it is divided by 2, 3 and 5 as often as that goes."""
    for factor in (2, 3, 5):
        while length % factor == 0:
            length //= factor
    return length


def kernel_spectrum(kernel: Tensor, grid: tuple[int, int], origin: tuple[int, int] | None = None) -> Tensor:
    """Returns `rfft2` of a kernel on a periodic grid with its pixel `origin`, by default (kh // 2, kw // 2), at (0, 0).

    kernel: (kh, kw), real; result: (H, W // 2 + 1), complex. Where the kernel is larger than the grid it wraps.
    """
    kh, kw = kernel.shape
    rows, cols = (
        (torch.arange(length, device=kernel.device) - first) % size
        for length, first, size in zip(kernel.shape, origin or (kh // 2, kw // 2), grid, strict=True)
    )
    laid = kernel.new_zeros(grid).index_put((rows[:, None], cols[None, :]), kernel, accumulate=True)
    spectrum: Tensor = torch.fft.rfft2(laid)
    return spectrum


def cosine_transform(x: Tensor) -> Tensor:
    """Returns the orthonormal discrete cosine transform (DCT-II) of the last axis, by one FFT (Makhoul 1980).

    X_k = c_k sum over j of x_j cos(pi k (j + 1/2) / n),  c_0 = sqrt(1 / n), else sqrt(2 / n).
    """
    n = x.shape[-1]
    spectrum = torch.fft.fft(torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], dim=-1))
    transformed: Tensor = (spectrum * _cosine_phases(n, x)).real
    return transformed


def inverse_cosine_transform(c: Tensor) -> Tensor:
    """Returns the inverse of `cosine_transform`, its transpose."""
    n = c.shape[-1]
    mirrored = torch.cat([torch.zeros_like(c[..., :1]), c[..., 1:].flip(-1)], dim=-1)  # the imaginary part: X_n-k
    v = torch.fft.ifft(torch.complex(c, -mirrored) / _cosine_phases(n, c)).real
    x = torch.empty_like(v)
    x[..., ::2], x[..., 1::2] = v[..., : (n + 1) // 2], v[..., (n + 1) // 2 :].flip(-1)
    return x


@lru_cache(maxsize=8)
def _phases(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns c_k exp(-i pi k / (2 n)), (n,)."""
    angle = -math.pi / (2 * n) * torch.arange(n, dtype=torch.float64)
    scale = torch.full((n,), math.sqrt(2.0 / n), dtype=torch.float64)
    scale[0] = math.sqrt(1.0 / n)
    return torch.polar(scale, angle).to(device, torch.complex128 if dtype == torch.float64 else torch.complex64)


def _cosine_phases(n: int, like: Tensor) -> Tensor:
    return _phases(n, like.dtype, like.device)
