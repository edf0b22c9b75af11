"""The toy example of the paper's Appendix A (Figure 4): what the flat prior costs where everything is known exactly.

x0 ~ N(0, sigma_0^2 I). First the paper's own figure: mean and variance of p(x0 | x_t), exact and under the flat prior,
sigma_0 = 25, x_t = 5, alpha_bar falling geometrically from 0.99 to 0.01 in 500 steps. Then what DMPS makes of it: the
score of p(y | x_t), exact and flat, on the levels of a default run (y = x0 + n, so that all is scalar as in the paper,
which leaves y open). Tables on stdout, the plot into a file.

    python benchmarks/appendix_a.py --out docs/appendix_a.svg
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dmps_cli.files.atomic import atomic_write
from dmps_cli.levels import Level, ddpm_levels
from dmps_cli.methods.dmps import flat_prior_score
from dmps_cli.operators.base import Correction, LinearOperator
from dmps_cli.operators.pointwise import Identity
from dmps_cli.report.drawing import svg
from dmps_cli.report.plots import Chart, Series

SIGMA_0, X_T, STEPS, BAR_MAX, BAR_MIN = 25.0, 5.0, 500, 0.99, 0.01  # the paper's
SHOWN = (1, 100, 200, 300, 400, 500)  # t of the table
PRIORS = (SIGMA_0, 1.0, 0.1)  # sigma_0: the paper's; the most that a pixel on [-1, 1] can have; that of fine detail
SIGMA_Y = 0.05  # the paper's tasks
NFE, SPACING = 30, "quadratic"  # the default run
RUNS = ((10, "uniform"), (10, "quadratic"), (NFE, SPACING), (1000, "uniform"))  # the last: the paper's


class Gaussian(NamedTuple):
    """Mean and variance of p(x0 | x_t), the same for all pixels."""

    mean: float
    variance: float


def annealed(t: int) -> Level:
    """Level t = 1 .. STEPS of the paper's figure: alpha_bar = BAR_MAX (BAR_MIN / BAR_MAX)^((t - 1) / (STEPS - 1))."""
    bar = BAR_MAX * (BAR_MIN / BAR_MAX) ** ((t - 1) / (STEPS - 1))
    return Level(math.sqrt(bar), math.sqrt(1.0 - bar), float(t))


def exact_posterior(x_t: float, level: Level, sigma_0: float) -> Gaussian:
    """Of x0 ~ N(0, sigma_0^2) (eq. (36))."""
    marginal = level.sigma**2 + level.alpha**2 * sigma_0**2
    return Gaussian(level.alpha * sigma_0**2 / marginal * x_t, level.sigma**2 * sigma_0**2 / marginal)


def flat_posterior(x_t: float, level: Level) -> Gaussian:
    """Under Assumption 1 (eq. (38), with the variance of eq. (15))."""
    return Gaussian(x_t / level.alpha, (level.sigma / level.alpha) ** 2)


def exact_score(correction: Correction, x_t: Tensor, sigma_y: float, level: Level, sigma_0: float) -> Tensor:
    """Score of p(y | x_t) = N(A m, sigma_y^2 I + v A A^T) where x0 | x_t ~ N(m = k x_t, v I).

        k A^T (sigma_y^2 I + v A A^T)^-1 (y - k A x_t)

    correction: the operator's, made from y. x_t: (B, C, H, W); result: like x_t. At sigma_0 = infinity k = 1 / alpha,
    v = (sigma / alpha)^2 and this is `flat_prior_score`.
    """
    k, variance = exact_posterior(1.0, level, sigma_0)
    return k * correction(k * x_t, sigma_y**2, variance)


class Comparison(NamedTuple):
    """Root mean squares over x0, x_t and y of the two scores and of their difference."""

    exact: float
    flat: float
    difference: float

    @property
    def relative(self) -> float:
        """The difference in units of the exact score."""
        return self.difference / self.exact


def compare(op: LinearOperator, sigma_y: float, level: Level, sigma_0: float) -> Comparison:
    """Both scores where x0 = sigma_0 w, x_t = alpha x0 + sigma w', y = A x0 + sigma_y w'', all w ~ N(0, I).

    The scores are linear in w, so the mean of their squares is the sum over the unit vectors: no random draws.
    """
    num_pixels, num_measured = math.prod(op.in_shape), math.prod(op.out_shape)
    units = torch.eye(2 * num_pixels + num_measured, dtype=op.dtype)
    prior, noise, measured = units.split([num_pixels, num_pixels, num_measured], dim=1)
    x0 = sigma_0 * prior.reshape(-1, *op.in_shape)
    x_t = level.alpha * x0 + level.sigma * noise.reshape(x0.shape)
    correction = op.correction(op.A(x0) + sigma_y * measured.reshape(-1, *op.out_shape))
    exact = exact_score(correction, x_t, sigma_y, level, sigma_0)
    flat = flat_prior_score(correction, x_t, sigma_y, level)
    return Comparison(*(float(s.square().sum() / num_pixels) ** 0.5 for s in (exact, flat, flat - exact)))


def scalar() -> LinearOperator:
    """A = 1."""
    return Identity((1, 1, 1), dtype=torch.float64, device="cpu")


def run_levels() -> list[Level]:
    """The levels at which a default run asks for the score."""
    return ddpm_levels(NFE, SPACING)[:-1]


# --- What is printed and drawn


def figure_table(times: Sequence[int]) -> str:
    """The paper's Figure 4 as Markdown; the last column holds for mean and variance alike."""
    lines = ["| t | alpha_bar | mean: exact | flat | variance: exact | flat | relative difference |", "|---" * 7 + "|"]
    for level in map(annealed, times):
        exact, flat = exact_posterior(X_T, level, SIGMA_0), flat_posterior(X_T, level)
        lines.append(
            f"| {level.time:.0f} | {level.alpha**2:.4f} | {exact.mean:.4f} | {flat.mean:.4f} | {exact.variance:.4f}"
            f" | {flat.variance:.4f} | {flat.variance / exact.variance - 1.0:.2e} |"
        )
    return "\n".join(lines)


def score_table(sigma_0: float, levels: Sequence[Level]) -> str:
    """The scores' root mean squares as Markdown."""
    op = scalar()
    lines = ["| sigma / alpha | exact | flat | relative difference |", "|---" * 4 + "|"]
    for level in levels:
        row = compare(op, SIGMA_Y, level, sigma_0)
        lines.append(f"| {level.sigma / level.alpha:.4g} | {row.exact:.4g} | {row.flat:.4g} | {row.relative:.3g} |")
    return "\n".join(lines)


def runs_table() -> str:
    """At how many levels of a run the scores are near each other and far apart, as Markdown."""
    names = [f"sigma_0 = {sigma_0:g}: below 10 % | above 100 %" for sigma_0 in PRIORS]
    lines = [f"| levels | {' | '.join(names)} |", "|---" * (1 + 2 * len(PRIORS)) + "|"]
    op = scalar()
    for nfe, spacing in RUNS:
        cells = [f"{nfe} {spacing}"]
        for sigma_0 in PRIORS:
            found = [compare(op, SIGMA_Y, level, sigma_0).relative for level in ddpm_levels(nfe, spacing)[:-1]]
            cells += [str(sum(value < 0.1 for value in found)), str(sum(value > 1.0 for value in found))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def tables() -> str:
    """All that is printed: moments, scores per prior, runs."""
    levels = run_levels()[:: -(NFE // 6)]
    scores = [f"sigma_0 = {sigma_0:g}\n\n{score_table(sigma_0, levels)}" for sigma_0 in PRIORS]
    return "\n\n".join([figure_table(SHOWN), *scores, runs_table()])


def charts() -> list[Chart]:
    """Mean and variance as in the paper's figure, and the scores' relative difference."""
    levels = [annealed(round(1 + k * (STEPS - 1) / 25)) for k in range(26)]
    exact = [exact_posterior(X_T, level, SIGMA_0) for level in levels]
    flat = [flat_posterior(X_T, level) for level in levels]
    panels = [
        Chart(
            title=f"{name} of p(x0 | x_t), sigma_0 = {SIGMA_0:g}, x_t = {X_T:g}",
            x_label="t (1 = least noise)",
            y_label=name,
            series=[
                Series(label=label, points=[(level.time, row[k]) for level, row in zip(levels, rows, strict=True)])
                for label, rows in (("exact", exact), ("flat prior", flat))
            ],
        )
        for k, name in enumerate(("mean", "variance"))
    ]
    return [*panels, score_chart()]


def score_chart() -> Chart:
    """log10 of the relative difference over the noise, a line per prior."""
    op = scalar()
    lines = [
        Series(
            label=f"sigma_0 = {sigma_0:g}",
            points=[
                (level.sigma / level.alpha, math.log10(compare(op, SIGMA_Y, level, sigma_0).relative))
                for level in run_levels()
            ],
        )
        for sigma_0 in PRIORS
    ]
    return Chart(
        title=f"score of p(y | x_t), flat prior against exact, sigma_y = {SIGMA_Y:g}",
        x_label="sigma / alpha, logarithmic",
        y_label="log10 of the relative difference",
        series=lines,
        log_x=True,
    )


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/appendix_a.svg"), help="the plot (default: %(default)s)")
    out: Path = parser.parse_args().out
    print(tables())
    atomic_write(out, svg(*charts()).encode(), overwrite=True)
    print(f"\n{out}")


if __name__ == "__main__":
    main()
