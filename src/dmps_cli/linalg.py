"""Linear algebra on batches of vectors of any shape; knows no images.

The first axis is the batch. Items of a batch never meet: norms and stopping tests are per item.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dmps_cli.errors import ConvergenceError

LinearMap = Callable[[Tensor], Tensor]


def item_dot(u: Tensor, v: Tensor) -> Tensor:
    """Inner product of each batch item, shaped (B, 1, ..) so that it broadcasts against u."""
    return (u * v).flatten(1).sum(1).reshape(-1, *[1] * (u.ndim - 1))


def conjugate_gradient(apply: LinearMap, b: Tensor, *, rtol: float, max_iter: int) -> Tensor:
    """Solves apply(x) = b for a symmetric positive semi-definite map (Hestenes and Stiefel 1952).

    b: (B, ..). Each item stops at ||residual|| <= rtol ||b|| and is then left as it is. A singular
    map is fine for b in its range (the minimum-norm solution results). Raises ConvergenceError
    with the relative residual reached if an item needs more than max_iter iterations.
    """
    x, residual = torch.zeros_like(b), b
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
            f"conjugate gradients reached a relative residual of {reached:.1e} after {max_iter} iterations, not {rtol:.1e}"
        )
    return x


def largest_eigenvalue(apply: LinearMap, start: Tensor, *, rtol: float = 1e-6, max_iter: int = 500) -> float:
    """Largest eigenvalue of a symmetric positive semi-definite map by power iteration; start: (1, ..).

    Raises ConvergenceError if successive estimates still differ by more than rtol after max_iter.
    """
    vector, value = start / item_dot(start, start).sqrt(), 0.0
    for _ in range(max_iter):
        image = apply(vector)
        estimate = float(item_dot(image, image).sqrt())
        if abs(estimate - value) <= rtol * estimate:
            return estimate
        vector, value = image / estimate, estimate
    raise ConvergenceError(f"power iteration did not settle to {rtol:.0e} in {max_iter} iterations (at {value:.6g})")
