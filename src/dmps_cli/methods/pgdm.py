"""PGDM: pseudo-inverse guidance through the network (Song et al., ICLR 2023)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from dmps_cli.levels import Level
from dmps_cli.methods.posterior import Posterior, pulled_back
from dmps_cli.operators.measurement import Measurement
from dmps_cli.priors import Prior
from dmps_cli.sampling import x0_coefficient


def unit_prior_variance(level: Level) -> float:
    """Returns r^2 = sigma^2 / (alpha^2 + sigma^2): the variance of x0 given x_t if x0 ~ N(0, I)."""
    return level.sigma**2 / (level.alpha**2 + level.sigma**2)


class Pgdm(Posterior):
    """The prior's own step, then x += weight m S, S the score of p(y | x_t) (Song et al. 2023, eq. (7)).

        S = (d x0 / d x_t)^T A^T (sigma_y^2 I + r^2 A A^T)^-1 (y - A x0),  r^2 = sigma^2 / (alpha^2 + sigma^2)

    guidance: how far a step moves, primes for the next level. `published`: m = alpha' alpha r^2, whatever the length of
    the step (Algorithm 1; the factors alpha as in the code of RED-diff, by the same group: docs/baselines.md). `bayes`:
    m = c0 sigma^2 / alpha, c0 = `x0_coefficient`, which makes x0 the mean of p(x0 | x_t, y) by Tweedie's formula; exact
    at weight 1 for the prior N(0, I), in the limit of short steps. Photographs are not N(0, I): given x_t at a high
    sigma / alpha the variance of their smooth modes is in the thousands, r^2 below 1, and that shift overshoots as much
    where steps are long.

    Both are written as a shift of x0, by m / c0 S, which the step multiplies by c0. sampler_eta: stochasticity of the
    sampler's steps, on which c0 depends.
    """

    def __init__(
        self,
        prior: Prior,
        measurement: Measurement,
        *,
        weight: float,
        guidance: Literal["published", "bayes"] = "published",
        sampler_eta: float = 1.0,
    ) -> None:
        super().__init__(prior, measurement)
        self.weight, self.guidance, self.sampler_eta = weight, guidance, sampler_eta

    def shift(self, cur: Level, nxt: Level) -> float:
        """Returns weight m / c0, the factor of S in x0."""
        if self.guidance == "bayes":
            return self.weight * cur.sigma**2 / cur.alpha
        move = nxt.alpha * cur.alpha * unit_prior_variance(cur)
        return self.weight * move / x0_coefficient(cur, nxt, self.sampler_eta)

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns (x0 + weight m / c0 S(x_t), the prior's standard deviation)."""
        x0, std, score = pulled_back(
            self.prior, x_t, cur, nxt, lambda x0: self.correction(x0, self.sigma_y**2, unit_prior_variance(cur))
        )
        return x0 + self.shift(cur, nxt) * score, std
