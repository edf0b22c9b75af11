"""DMPS for few evaluations: the likelihood at x0, and the measurement's own noise counted into the step's.

`CountedDmps` for operators with modes, `ReflectedDmps` for the others (methods/table.py chooses).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dmps_cli.levels import Level
from dmps_cli.methods.posterior import ModewisePosterior, OwnStep
from dmps_cli.operators.measurement import Measurement
from dmps_cli.priors import Prior
from dmps_cli.sampling import Fresh

Solve = Callable[[Tensor, float, float], Tensor]

ENDING = 0.5
"""Mean squared error of x0 at the last level over q^2, the noise there: of photographs 0.3 at q = 0.05, 0.8 at 0.01."""


class CountedDmps(ModewisePosterior):
    """The flat-prior likelihood of DMPS taken at x0, mode by mode, with nothing back-propagated.

    In the modes of x / alpha, with q = sigma / alpha, ss = sigma_y / s, c = V^T x0, yh = U^T y / s, primes for the next
    level:

        k = v / (v + ss^2), v = variance_factor q^2;  k <= q' / ss
        c' = c + k (yh - c) + sqrt(q'^2 - k^2 ss^2) (sqrt(1 - eta_y^2) V^T eps + eta_y V^T z)

    and where nothing was measured x0 + q' (sqrt(1 - eta^2) eps + eta z). The mean is that of Appendix A (Meng &
    Kabashima 2024) with the flat prior's variance, times a factor; what of y's noise is in it, k ss, is no longer
    drawn, as in DDRM (Kawar et al. 2022), which has k = 1 where q' > ss. Start: DDRM's.

    At the clean end v = ENDING max(q^2 - ss^2, 0). A mode that is noisier than the last level holds all that y says of
    it: k = 0, the sample is the prior's own x0. Of any other the state has yh with the noise q, and not ss; what y says
    beyond that, 1 / ss^2 - 1 / q^2, is weighed against the error of x0, whose variance is ENDING q^2.
    """

    def __init__(
        self,
        prior: Prior,
        measurement: Measurement,
        *,
        variance_factor: float,
        eta: float,
        eta_y: float,
    ) -> None:
        super().__init__(prior, measurement, eta=eta)
        self.variance_factor, self.eta_y = variance_factor, eta_y

    def start(self, z: Tensor, level: Level) -> Tensor:
        """Returns the state at the first level: the measurement where it is less noisy than the level."""
        return self.informed_start(z, level)

    def moved(self, x0: Tensor, eps: Tensor, fresh: Fresh, cur: Level, nxt: Level) -> Tensor:
        """Returns the formula above; k (yh - c) as k / s (U^T y - s c), so that a small s divides nothing."""
        z = fresh(x0)
        q0, q = cur.sigma / cur.alpha, nxt.sigma / nxt.alpha
        variance: Tensor | float = self.variance_factor * q0**2
        if q == 0.0:
            variance = ENDING * (q0**2 - self.spread**2).clamp_min(0.0)
        share = variance / (variance + self.spread**2)
        if q > 0.0:
            share = torch.minimum(share, q / self.spread)  # infinite where the spread is 0
        left = (q**2 - (share * self.spread) ** 2).clamp_min(0.0).sqrt()
        c = self.modes.Vt(x0)
        pull = share * self.inverse * (self.yh - self.modes.singulars * c)
        drawn = math.sqrt(1.0 - self.eta_y**2) * self.modes.Vt(eps) + self.eta_y * self.modes.Vt(z)
        unknown = x0 + q * (math.sqrt(1.0 - self.eta**2) * eps + self.eta * z)
        return nxt.alpha * self.replaced(unknown, c + pull + left * drawn)


class ReflectedDmps(OwnStep):
    """The same account of the noise for any A, with solves alone: no singular values, no square root of a matrix.

    x / alpha in units of q = sigma / alpha, primes for the next level; K = v A^T (s2 I + v A A^T)^-1:

        x' = x0 + q' m + K (y - A x0 - q' A (m - m_y) + d n'),    n' fresh, like y
        m = sqrt(1 - eta^2) w + eta z,    m_y = +- sqrt(1 - eta_y^2) eps - eta_y z,    w = eps - K_q (y - A x0) / q
        v = min(variance_factor q^2, D q'^2),    d^2 = D q'^2 s2 / v - sigma_y^2
        D = (eta + eta_y)^2 + (sqrt(1 - eta^2) -+ sqrt(1 - eta_y^2))^2

    A mode of singular value s has k = s K = v s^2 / (s2 + v s^2). It is pulled towards the data by k and given the
    noise q' ((1 - k) m + k m_y): m where nothing is measured, m_y where all is. In between that point cuts across the
    circle of unit variance, along a chord whose square is D (so z has opposite signs in m and m_y, and eps the sign
    that gives D >= 2), and has the variance 1 - k (1 - k) D. What is missing there is K^2 (sigma_y^2 + d^2), the noise
    of y and n': x' is as noisy as its level in every mode, whatever s2 > 0. So s2 is sigma_y^2, or more where the
    solver resolves no less (TruncatedSolver.noise_var). v <= D q'^2 keeps d real, and y's share of the noise below q',
    smoothly in s, where `CountedDmps` clips k. At the clean end v is that of `CountedDmps` for the largest s.

    w is eps less the noise of y that the last step brought in, K_q being that step's K, with v = D q^2. It returns in
    every eps, and counted twice it ruins deblurring (measured: 15 dB from 25). Where eta = 1 no w is used, and a step
    is one solve, else two. Start: pure noise.
    """

    def __init__(
        self, prior: Prior, measurement: Measurement, *, variance_factor: float, eta: float, eta_y: float
    ) -> None:
        super().__init__(prior, measurement)
        self.variance_factor, self.eta, self.eta_y = variance_factor, eta, eta_y
        drift, drift_y = math.sqrt(1.0 - eta**2), math.sqrt(1.0 - eta_y**2)
        self.drift, self.drift_y = drift, drift_y if drift * drift_y <= eta * eta_y else -drift_y
        self.room = (self.eta + self.eta_y) ** 2 + (self.drift - self.drift_y) ** 2  # D

    def moved(self, x0: Tensor, eps: Tensor, fresh: Fresh, cur: Level, nxt: Level) -> Tensor:
        """Returns the formula above."""
        q0, q = cur.sigma / cur.alpha, nxt.sigma / nxt.alpha
        residual, z = self.y - self.op.A(x0), fresh(x0)
        m = self.eta * z
        if self.drift > 0.0:
            m = m + self.drift * (eps - self._pull(self.solver, residual, self.room * q0**2) / q0)
        moved, v = x0 + q * m, min(self.variance_factor * q0**2, self.room * q**2)
        if q == 0.0:
            v = ENDING * max(q0**2 - (self.sigma_y / self.op.norm) ** 2, 0.0) if self.op.norm > 0.0 else 0.0
        if v > 0.0:
            s2 = self.solver.noise_var(self.sigma_y**2, v)
            d = math.sqrt(max(self.room * q**2 * s2 / v - self.sigma_y**2, 0.0))
            m_y = self.drift_y * eps - self.eta_y * z
            wanted = residual - q * self.op.A(m - m_y) + (d * fresh(self.y) if d > 0.0 else 0.0)
            moved = moved + self._pull(self.solver.anew, wanted, v)
        return nxt.alpha * moved

    def _pull(self, solve: Solve, residual: Tensor, v: float) -> Tensor:
        """Returns K residual."""
        return v * self.op.At(solve(residual, self.sigma_y**2, v))
