"""A larger sigma for a blur whose kernel does not fit: the picture stays softer, and is not ruined.

What a wrong kernel leaves unexplained acts like noise, and a sigma that covers it turns ripples into softness. A wrong
boundary is worse than most kernels; where the scene goes on beyond the frame, as it does for a camera, it is taken so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from dmps_cli.errors import InputError
from dmps_cli.jobs.fit import FLOOR, Fit, Usual, fits_of, judged, usual
from dmps_cli.methods.choice import Sampling, resolve_sampling
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.measurement import Measurement
from dmps_cli.pipeline import FILE_KEY, restore
from dmps_cli.priors import Prior
from dmps_cli.units import both_scales

STEP = 1.6  # from one sigma to the next that is tried
LARGEST = 0.2
"""25.5 grey levels. Taken where nothing fits: of 28 photographs (a box for the disc, a Gaussian of 3 for 2.5) none is
worse than it came by more than 0.04 dB; with a box at 0.14 one loses 0.3 dB to ripples, at 0.07 six lose 0.7 to 1.4."""
TRIAL_NFE = 6  # ripples show in a coarse sample already
TRIAL_SIDE = 256  # px; a part of a larger picture is tried, where the operator allows it
DOUBT = 0.015
"""Excess of a coarse sample over that of a soft one: 2 of 36 with the right kernel have more, 15 of 16 with a box for
the disc, 9 of 11 with a Gaussian of 3 for one of 2.5. Less than `fit.OVER`: what is missed is ruined, what is called
wrong and is not only softened."""
RUIN = 0.03
"""Excess of the soft sample itself, where no sigma fits. Of twelve with the right kernel none has more than 0.006; a
box of 5 px taken for one of 9 has 0.04 and loses 6 dB, taken for a motion of 15 px 0.07 and 13 dB."""
MARGIN = 3.0  # over the smallest sigma whose trial fits: the ripples that are left are small, but there

Model = tuple[Tensor, LinearOperator]
"""y (1, *op.out_shape) and op."""


@dataclass(frozen=True, kw_only=True)
class Raised:
    """sigma_y that a blur is restored with; fits: whether a sigma was found; evaluations: of the network, by trials.

    is_beyond: whether the scene has to go on beyond the frame, other than was said.
    """

    before: float
    sigma_y: float
    fits: bool
    evaluations: int
    is_beyond: bool = False

    @property
    def text(self) -> str | None:
        """What to say of it; None where nothing had to be changed."""
        noise, larger = both_scales(self.before), both_scales(self.sigma_y)
        if not self.fits:
            text = f"this kernel does not fit: it gives ripples at any sigma up to {LARGEST}; {larger} is taken"
        elif self.sigma_y > self.before:
            text = (
                f"with this kernel sigma {noise} gives ripples: raised to {larger}, for a softer picture without them"
            )
        else:
            text = "with this kernel the boundary gives ripples" if self.is_beyond else ""
        if not text:
            return None
        return f"{text}; the boundary valid gives less, and is taken" if self.is_beyond else text

    def as_dict(self) -> dict[str, Any]:
        """Returns what the sidecar says of it."""
        return asdict(self)


def fitting_sigma(
    given: Model,
    beyond: Model | None,
    prior: Prior,
    sigma_y: float,
    task: str,
    model: str,
    *,
    seed: int,
    on_search: Callable[[int], None] = lambda trials: None,
) -> Raised:
    """Returns the least sigma_y on a ladder at which a coarse sample fits, with a margin; sigma_y itself where it fits.

    given: what was said of the picture. beyond: the same in a scene that goes on beyond the frame, where that was not
    said: it is taken where it leaves the scale by less than half. What a sample at LARGEST leaves, the picture itself
    has, white walls and lamps: only what goes beyond that counts. The ladder is searched by halves, for a larger sigma
    fits better: 1 or 2 trials of TRIAL_NFE evaluations where the model is right, at most 7 where it is not. on_search
    is told before the ladder how many trials that takes at most. Raises InputError where no sigma fits, and even
    the soft sample is in ruins.
    """
    coarse = _coarse(task)
    known = usual(coarse, task, model)
    ladder = rungs(max(sigma_y, FLOOR))
    kept, count = given, 0

    def tried(sigma: float) -> Fit:
        nonlocal count
        count += 1
        return _tried(kept, prior, coarse, sigma, seed)

    def found(sigma: float, *, fits: bool = True) -> Raised:
        return Raised(
            before=sigma_y,
            sigma_y=sigma,
            fits=fits,
            evaluations=count * coarse.nfe,
            is_beyond=beyond is not None and kept is beyond,
        )

    if known is None or sigma_y >= LARGEST or _is_fine(first := tried(sigma_y), known, sigma_y, DOUBT):
        return found(sigma_y)
    if beyond is not None:
        kept = beyond
        other = tried(sigma_y)
        first, kept = (other, beyond) if _excess(other) < _excess(first) / 2.0 else (first, given)
    own = _excess(tried(LARGEST))
    if _is_fine(first, known, sigma_y, own + DOUBT):
        return found(sigma_y)
    on_search(math.ceil(math.log2(len(ladder) - 1)))
    low, high = 1, len(ladder) - 1  # the first rung is off; rungs from `high` on fit
    while low < high:
        middle = (low + high) // 2
        is_fine = _is_fine(tried(ladder[middle]), known, ladder[middle], own + known.excess[0])
        low, high = (low, middle) if is_fine else (middle + 1, high)
    fits = high < len(ladder) - 1
    if not fits and own > RUIN:
        raise InputError(
            f"this kernel does not fit: it gives ripples at any sigma up to {LARGEST}, and would ruin the picture; "
            f"nothing is written (--sigma {LARGEST} restores with it all the same)"
        )
    return found(min(LARGEST, MARGIN * ladder[high]), fits=fits)


def own_excess(model: Model, prior: Prior, task: str, *, seed: int) -> float:
    """Returns the excess of a coarse sample at LARGEST: what the picture has of its own, with any kernel."""
    return _excess(_tried(model, prior, _coarse(task), LARGEST, seed))


def _coarse(task: str) -> Sampling:
    return resolve_sampling(task=task, preset="fast", nfe=TRIAL_NFE)


def _tried(model: Model, prior: Prior, sampling: Sampling, sigma: float, seed: int) -> Fit:
    y, op = model
    x = restore(Measurement(y, op, sigma), prior, sampling, seed=seed, keys=[FILE_KEY])
    return fits_of(y, op, x, sigma, is_clipped=prior.clips_x0)[0]


def _is_fine(fit: Fit, known: Usual, sigma_y: float, excess: float) -> bool:
    """Returns whether there is no more noise than sigma_y and no more excess than that."""
    return _excess(fit) <= excess and not judged(fit, known, sigma_y).noise_is_more


def _excess(fit: Fit) -> float:
    return fit.excess or 0.0


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
