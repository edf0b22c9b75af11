"""A larger sigma for a blur whose kernel does not fit: the picture stays softer, and is not ruined.

What a wrong kernel leaves unexplained acts like noise, and a sigma that covers it turns ripples into softness.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from dmps_cli.jobs.fit import FLOOR, fits_of, judged, usual
from dmps_cli.methods.choice import resolve_sampling
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.measurement import Measurement
from dmps_cli.pipeline import FILE_KEY, restore
from dmps_cli.priors import Prior
from dmps_cli.units import both_scales

STEP = 1.6  # from one sigma to the next that is tried
LARGEST = 0.2  # 25.5 grey levels: what needs more is another kernel
TRIAL_NFE = 6  # ripples show in a coarse sample already
TRIAL_SIDE = 256  # px; a part of a larger picture is tried, where the operator allows it
SAFE = 0.14
"""The largest that is taken: of 20 photographs out of focus restored with a box for the disc, none is more than 0.1 dB
worse than it came; at 0.1 one loses 0.6 dB to ripples, at 0.2 two lose 0.4 dB to softness (96 x 96 px)."""
MARGIN = 2.0  # over the smallest sigma whose trial fits: the ripples that are left are small, but there


@dataclass(frozen=True, kw_only=True)
class Raised:
    """sigma_y that a blur is restored with; fits: whether a sigma was found; evaluations: of the network, by trials."""

    before: float
    sigma_y: float
    fits: bool
    evaluations: int

    @property
    def text(self) -> str | None:
        """What to say of it; None where nothing had to be raised."""
        if self.fits and self.sigma_y == self.before:
            return None
        noise, larger = both_scales(self.before), both_scales(self.sigma_y)
        if self.fits:
            return (
                f"with this kernel sigma {noise} gives ripples: raised to {larger}, for a softer picture without them"
            )
        return f"this kernel does not fit: it gives ripples at any sigma up to {LARGEST}; {larger} is taken"

    def as_dict(self) -> dict[str, Any]:
        """Returns what the sidecar says of it."""
        return asdict(self)


def fitting_sigma(
    y: Tensor,
    op: LinearOperator,
    prior: Prior,
    sigma_y: float,
    task: str,
    model: str,
    *,
    seed: int,
    on_trial: Callable[[int, int], None] = lambda trial, most: None,
) -> Raised:
    """Returns the least sigma_y on a ladder at which a coarse sample fits, with a margin; sigma_y itself where it fits.

    The ladder is searched by halves, for a larger sigma fits better: 1 trial of TRIAL_NFE evaluations where the model
    is right, at most 5 where it is not. on_trial is told (which trial comes, how many there are at most). y: (1,
    *op.out_shape).
    """
    coarse = resolve_sampling(task=task, preset="fast", nfe=TRIAL_NFE)
    known = usual(coarse, task, model)
    ladder = rungs(max(sigma_y, FLOOR))
    most = 1 + math.ceil(math.log2(len(ladder)))
    count = 0

    def is_off(sigma: float) -> bool:
        nonlocal count
        count += 1
        on_trial(count, most)
        x = restore(Measurement(y, op, sigma), prior, coarse, seed=seed, keys=[FILE_KEY])
        (fit,) = fits_of(y, op, x, sigma, is_clipped=prior.clips_x0)
        return judged(fit, known, sigma, is_doubted=count > 1).is_off

    if known is None or sigma_y >= LARGEST or not is_off(sigma_y):
        return Raised(before=sigma_y, sigma_y=sigma_y, fits=True, evaluations=count * coarse.nfe)
    low, high = 1, len(ladder)  # the first rung is off; rungs from `high` on fit
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if is_off(ladder[middle]) else (low, middle)
    fits = high < len(ladder)
    sigma = max(sigma_y, min(SAFE, MARGIN * ladder[high] if fits else SAFE))
    return Raised(before=sigma_y, sigma_y=sigma, fits=fits, evaluations=count * coarse.nfe)


def busiest(y: Tensor, side: int = TRIAL_SIDE) -> Tensor:
    """Returns the part (.., side, side) of y (1, C, H, W) with the largest variance, of those half a side apart."""
    height, width = (min(side, have) for have in y.shape[-2:])
    places = [
        (top, left)
        for top in _starts(y.shape[-2], height, side // 2)
        for left in _starts(y.shape[-1], width, side // 2)
    ]
    parts = (y[..., top : top + height, left : left + width] for top, left in places)
    return max(parts, key=lambda part: float(part.var()))


def _starts(whole: int, part: int, step: int) -> list[int]:
    return [*range(0, whole - part, step), whole - part]


def rungs(sigma_y: float) -> list[float]:
    """Returns sigma_y and what is tried above it, up to LARGEST."""
    count = max(0, math.ceil(math.log(LARGEST / sigma_y) / math.log(STEP) - 1e-9))
    return [*(sigma_y * STEP**k for k in range(count)), LARGEST]
