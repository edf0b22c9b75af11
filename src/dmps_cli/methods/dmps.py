"""DMPS: posterior sampling with a closed-form likelihood score (Meng & Kabashima, ACML 2024)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from dmps_cli.levels import Level
from dmps_cli.methods.posterior import Posterior
from dmps_cli.operators.base import Correction
from dmps_cli.operators.measurement import Measurement
from dmps_cli.priors import Prior
from dmps_cli.sampling import Fresh, x0_coefficient


def flat_prior_score(correction: Correction, x_t: Tensor, sigma_y: float, level: Level) -> Tensor:
    """Returns the score of p(y | x_t) if the prior were flat (Theorem 1, eq. (14)).

        (1/alpha) A^T (sigma_y^2 I + (sigma/alpha)^2 A A^T)^-1 (y - A x_t / alpha)

    correction: the operator's, made from y. x_t: (B, C, H, W); result: like x_t. Raises ConvergenceError if an
    iterative solve fails.
    """
    return correction(x_t / level.alpha, sigma_y**2, (level.sigma / level.alpha) ** 2) / level.alpha


def capped_weight(weight: float, cap: float | None, step: float, norm: float, sigma_y: float, level: Level) -> float:
    """Returns the weight, reduced where the likelihood step would overshoot.

    Per singular value s the step x_t += weight `step` S(x_t) moves x_t / alpha towards y_s / s by the factor
    weight step s^2 / (alpha^2 sigma_y^2 + sigma^2 s^2), largest at s = norm. Above 1 it overshoots, above 2 it
    diverges. With a cap, the weight is reduced until that factor is at most `cap`.
    """
    if cap is None or norm == 0.0:
        return weight
    return min(weight, cap * (level.sigma**2 + (level.alpha * sigma_y / norm) ** 2) / step)


class Dmps(Posterior):
    """The posterior denoiser x0 + weight (sigma^2 / alpha) S(x_t), which the prior's own step then uses.

    That is exactly Algorithm 1 (DDPM: x += lambda (1 - alpha_t) / sqrt(alpha_t) S) and Algorithm 2 (flow:
    x += lambda (b / a) dt S): c0 sigma^2 / alpha equals the factor before S in both, c0 being the coefficient of x0
    in the prior's step.

    weight: the paper's lambda. score_at: where the likelihood score is taken: at `x_t`, before the prior's step
    (Algorithms 1 and 2), or at the `sample` after it (the authors' released code). cap: largest factor by which the
    likelihood step may move a measured mode of x_t / alpha towards the data; None: no cap, as in the paper.
    sampler_eta: stochasticity of the sampler's steps, on which c0 depends: 1 on DDPM levels, 0 on flow levels.
    """

    def __init__(
        self,
        prior: Prior,
        measurement: Measurement,
        *,
        weight: float,
        score_at: Literal["x_t", "sample"] = "x_t",
        cap: float | None = 1.0,
        sampler_eta: float = 1.0,
    ) -> None:
        super().__init__(prior, measurement)
        self.weight, self.score_at, self.cap, self.sampler_eta = weight, score_at, cap, sampler_eta
        self.norm = self.op.norm

    def _step(self, cur: Level, nxt: Level) -> float:
        """Returns w = c0 sigma^2 / alpha, the factor before lambda S in the sample."""
        return x0_coefficient(cur, nxt, self.sampler_eta) * cur.sigma**2 / cur.alpha

    def _weight(self, cur: Level, nxt: Level) -> float:
        return capped_weight(self.weight, self.cap, self._step(cur, nxt), self.norm, self.sigma_y, cur)

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns (x0 + lambda (sigma^2 / alpha) S(x_t), the prior's standard deviation)."""
        x0, std = self.prior.predict(x_t, cur, nxt)
        if self.score_at == "x_t":
            score = flat_prior_score(self.correction, x_t, self.sigma_y, cur)
            x0 = x0 + self._weight(cur, nxt) * cur.sigma**2 / cur.alpha * score
        return x0, std

    def step(self, x_t: Tensor, cur: Level, nxt: Level, eta: float, fresh: Fresh) -> Tensor:
        """Returns the prior's own.

        With score_at = sample then + lambda w S(sample), alpha and sigma those before the step.
        """
        sample = super().step(x_t, cur, nxt, eta, fresh)
        if self.score_at == "sample":
            score = flat_prior_score(self.correction, sample, self.sigma_y, cur)
            sample = sample + self._weight(cur, nxt) * self._step(cur, nxt) * score
        return sample
