"""Solves with A A^T that serve a sampler: as exact as a step needs, each from where the last one ended."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dmps_cli.linalg import Refined, item_dot, refine, shifted
from dmps_cli.operators.base import PINV_DAMPING, LinearOperator

TOLERANCE = 0.03
"""Error that a solve may leave in x, root mean square, as a share of sqrt(scale)."""

MAX_ITER = 100
"""Reached without a preconditioner alone (box of 9 px, zeros around it): 30 lose 1.7 dB there, 300 gain 0.04."""


class TruncatedSolver:
    """u = (noise_var I + scale A A^T)^-1 r by preconditioned conjugate gradients, for one run of a sampler.

    What a step takes from it is scale A^T u, a shift of x towards the data; the step knows x to about sqrt(scale),
    which is q, the noise of its level, or at most twice that of the next (`ReflectedDmps`). With e the error of u and M
    the matrix, ||scale A^T e||^2 <= scale e^T M e, so a solve ends when sqrt(e^T M e) is below tolerance sqrt(pixels):
    then the error moves x by less than that share of sqrt(scale). It ends at max_iter in any case: what is missing then
    lies in modes that A hardly measures, and the next step goes on with them.

    noise_var is raised to PINV_DAMPING^2 scale ||A||^2: float32 resolves no less, and sigma_y = 0 needs no case of its
    own. Start: the last solution u', times r^T u' / u'^T M u', which makes its error least: from step to step residuals
    resemble each other, scales do not. That costs no product with A.

    total: iterations so far of each of the batch's items, (B,).
    """

    def __init__(
        self, op: LinearOperator, batch: int, *, tolerance: float = TOLERANCE, max_iter: int = MAX_ITER
    ) -> None:
        self.op, self.tolerance, self.max_iter = op, tolerance, max_iter
        self.total = torch.zeros(batch, dtype=torch.long, device=op.device)
        self._last: tuple[Tensor, Tensor] | None = None  # u', A A^T u'

    def noise_var(self, noise_var: float, scale: float) -> float:
        """Returns the noise_var that is solved with."""
        return max(noise_var, (PINV_DAMPING[self.op.dtype] * self.op.norm) ** 2 * scale)

    def __call__(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """Returns u for r (B, *out_shape), from where the last call ended. Raises ConvergenceError if it diverges."""
        noise_var = self.noise_var(noise_var, scale)
        solved = self._refined(*self._start(r, noise_var, scale), noise_var, scale)
        if scale > 0.0:
            self._last = solved.x, (r - solved.residual - noise_var * solved.x) / scale
        return solved.x

    def anew(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """Solves as a call does, from 0, and no start for a later one: for an r that is drawn afresh in every step."""
        return self._refined(0.0 * r, r, self.noise_var(noise_var, scale), scale).x

    def _refined(self, u: Tensor, residual: Tensor, noise_var: float, scale: float) -> Refined:
        solved = refine(
            lambda v: shifted(self.op.gram, v, noise_var, scale) if scale > 0.0 else noise_var * v,
            u,
            residual,
            precondition=lambda v: self.op.precondition(v, noise_var, scale),
            error=self.tolerance * math.sqrt(math.prod(self.op.in_shape)),
            max_iter=self.max_iter,
        )
        self.total = self.total + solved.iterations
        return solved

    def _start(self, r: Tensor, noise_var: float, scale: float) -> tuple[Tensor, Tensor]:
        """Returns (c u', r - c M u')."""
        if self._last is None:
            return 0.0 * r, r
        u, gram_u = self._last
        image = noise_var * u + scale * gram_u
        energy = item_dot(u, image)
        share = (item_dot(u, r) / energy).where(energy > 0.0, 0.0)
        return share * u, r - share * image
