"""Noise levels of the reverse process: Python floats in float64, no torch.

A level says x_t = alpha x + sigma eps. Schedules run from the noisiest level to the clean one,
`Level(1, 0)`, so `nfe` network evaluations are `nfe + 1` levels.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

DDPM_STEPS = 1000
BETA_FIRST, BETA_LAST = 1e-4, 0.02
SPACINGS = ("uniform", "quadratic")  # of the steps that a shorter chain keeps
FLOW_EPS = 1e-3  # Rectified Flow is never asked nearer than this to pure noise
FLOW_LABEL = 999.0  # its network is fed 999 s, s = share of data


class Level(NamedTuple):
    """One noise level: x_t = alpha x + sigma eps.

    time: what the network was trained on (the original step number on DDPM levels, the label
    999 s on flow levels); only a prior reads it.
    """

    alpha: float
    sigma: float
    time: float


CLEAN = Level(1.0, 0.0, 0.0)


@lru_cache
def alpha_bars(num_steps: int = DDPM_STEPS) -> tuple[float, ...]:
    """Returns alpha_bar_t, t = 0 .. num_steps - 1, of the linear schedule (Ho et al. 2020, section 4).

    beta runs linearly from 1e-4 to 0.02. In float32, 1 - alpha_bar would be 2e-4 off at the clean end.
    """
    bars, product = [], 1.0
    for t in range(num_steps):
        beta = BETA_FIRST + (BETA_LAST - BETA_FIRST) * t / (num_steps - 1)
        product *= 1.0 - beta
        bars.append(product)
    return tuple(bars)


def kept_steps(nfe: int, spacing: str = "uniform", num_steps: int = DDPM_STEPS) -> list[int]:
    """Returns the `nfe` original steps that a shorter chain keeps, ascending; nfe = 1 keeps the noisiest.

    uniform: round(k (num_steps - 1) / (nfe - 1)), the stride accumulated and rounded half to even as guided-diffusion's
    `space_timesteps` does. quadratic (Song et al. 2021, DDIM, appendix D.2): round((num_steps - 1) (k / (nfe - 1))^2),
    moved up where a step would come twice; it spends its evaluations at the clean end. Both keep all steps at
    nfe = num_steps. Raises ValueError outside 1 .. num_steps.
    """
    if not 1 <= nfe <= num_steps:
        raise ValueError(f"nfe is {nfe}; a chain of {num_steps} steps allows 1 .. {num_steps}")
    if spacing not in SPACINGS:
        raise ValueError(f"spacing is {spacing}; it must be one of {', '.join(SPACINGS)}")
    if nfe == 1:
        return [num_steps - 1]
    stride, position, steps = (num_steps - 1) / (nfe - 1), 0.0, []
    for k in range(nfe):
        if spacing == "uniform":
            steps.append(round(position))
            position += stride
        else:
            steps.append(max(round((num_steps - 1) * (k / (nfe - 1)) ** 2), steps[-1] + 1 if steps else 0))
    return steps


def ddpm_levels(nfe: int, spacing: str = "uniform", start: float | None = None) -> list[Level]:
    """Returns `nfe` + 1 variance-preserving levels, alpha^2 = alpha_bar, noisiest first, clean last.

    time = step number.

    They begin in pure noise: raises ValueError for any `start`.
    """
    if start is not None:
        raise ValueError(f"start is {start}; DDPM levels begin in pure noise")
    bars = alpha_bars()
    steps = reversed(kept_steps(nfe, spacing))
    return [*(Level(math.sqrt(bars[t]), math.sqrt(1.0 - bars[t]), float(t)) for t in steps), CLEAN]


def flow_levels(nfe: int, spacing: str = "uniform", start: float | None = None) -> list[Level]:
    """Returns `nfe` + 1 levels of rectified flow, alpha = s, sigma = 1 - s, noisiest first, clean last; time = 999 s.

    s_k = s_0 + (1 - s_0) k / nfe (Liu et al. 2023; s = share of data, the paper's t is 1 - s), the one spacing there
    is. start: s_0, for a method that does not begin in pure noise; 1e-3 if it is open. Raises ValueError if nfe < 1.
    """
    if nfe < 1:
        raise ValueError(f"nfe is {nfe}; it must be at least 1")
    if spacing != "uniform":
        raise ValueError(f"spacing is {spacing}; flow levels are uniform")
    first = FLOW_EPS if start is None else start
    shares = [first + (1.0 - first) * k / nfe for k in range(nfe)]
    return [*(Level(s, 1.0 - s, FLOW_LABEL * s) for s in shares), CLEAN]


def ddpm_time(ratio: float, bars: Sequence[float] | None = None) -> float:
    """Returns the (fractional) DDPM step whose sigma / alpha is `ratio`, by interpolation of log(sigma / alpha).

    Exact at whole steps; clamped to 0 .. 999 outside the chain. bars: alpha_bar_t of a chain other than the linear
    one, falling.
    """
    logs = [0.5 * math.log((1.0 - bar) / bar) for bar in bars or alpha_bars()]
    target = math.log(ratio)
    right = bisect_left(logs, target)
    if right == 0:
        return 0.0
    if right == len(logs):
        return float(len(logs) - 1)
    if logs[right] == target:
        return float(right)
    return right - (logs[right] - target) / (logs[right] - logs[right - 1])


def flow_label(ratio: float) -> float:
    """Returns the rectified-flow label 999 s of the level whose sigma / alpha is `ratio`: s = 1 / (1 + ratio)."""
    return FLOW_LABEL / (1.0 + ratio)


class Sampler(NamedTuple):
    """A kind of ladder and the stochasticity of its steps (1 = ancestral, 0 = Euler step of the flow ODE)."""

    help: str
    levels: Callable[[int, str, float | None], list[Level]]  # (nfe, spacing, start)
    eta: float
    max_nfe: int  # the chain's own length; of a flow, more than anybody waits for
    spacings: tuple[str, ...]
    few: int  # fewer evaluations than this leave DMPS's pictures noisy (docs/defaults.md)


SAMPLERS = {
    "ddpm": Sampler("ancestral steps on DDPM levels", ddpm_levels, 1.0, DDPM_STEPS, SPACINGS, few=15),
    "flow": Sampler("Euler steps on rectified-flow levels", flow_levels, 0.0, 100_000, ("uniform",), few=5),
}
