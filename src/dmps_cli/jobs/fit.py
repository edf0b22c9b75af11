"""Whether a restoration fits what was measured: numbers that need no truth, and what is usual for them.

A sigma that is too small shows in chi2, for noise that the model does not expect stays in y - A x. A wrong kernel does
not: its ripples fit y as well as the right picture does. But they leave the scale of a picture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmps_cli.fields import STRIP_ROWS, strips
from dmps_cli.methods.choice import Sampling
from dmps_cli.methods.table import family
from dmps_cli.operators.base import LinearOperator
from dmps_cli.tasks.table import task
from dmps_cli.units import GREY_LEVELS, LARGE_PIXELS, both_scales
from dmps_cli.weights.cards import DEFAULT_MODEL

FLOOR = 1.0 / math.sqrt(12.0) / GREY_LEVELS
"""On [-1, 1]: the error of rounding to 8 bits, below which no sigma_y is taken here."""

LEAST_SIGMA = 0.01
"""The noise of the cleanest level: of a smaller sigma_y chi2 shows how the sampler ends, not how the model fits."""

BEYOND = 0.05  # on [-1, 1]; by how much a value must leave the scale to count
CHI2_SLACK = 1.6  # beyond the range recorded: half the sigma is four times the chi2, and other pictures differ
LEAST_EXCESS = 0.01  # of the contrast; less is never said
OVER = 0.02
"""Of blurs, excess over that of a soft sample of the same picture. At x0 and 20 evaluations 3 of 36 restorations with
the right kernel have more, all of 16 with a box for the disc, ten of 11 with a Gaussian of 3 for one of 2.5."""
NEAR_NFE = 1.6  # a range holds for this factor of evaluations around those it was recorded at
RANGES = Path(str(files("dmps_cli"))) / "data" / "fit_ranges.json"


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How one sample fits.

    chi2: ||y - A x||^2 / (M max(sigma_y, FLOOR)^2), M numbers in y. outside: share of the picture's values beyond
    [-1, 1] by more than BEYOND. excess: root mean square of what is beyond [-1, 1], over the standard deviation of y.
    Both are None where the prior clips its x0 to the scale.
    """

    chi2: float
    outside: float | None
    excess: float | None

    def as_dict(self) -> dict[str, Any]:
        """Returns what the sidecar says of it."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Usual:
    """What right input gave: the least and the largest chi2; the excess that half, and 95 of 100, have."""

    chi2: tuple[float, float]
    excess: tuple[float, float]


def fits_of(y: Tensor, op: LinearOperator, x: Tensor, sigma_y: float, *, is_clipped: bool) -> list[Fit]:
    """Returns the numbers of each sample.

    y: (B, *op.out_shape); x: (B, *op.in_shape), not clipped, but that its prior did so (is_clipped).
    """
    noise = max(sigma_y, FLOOR)
    residual, contrast = (part.flatten(1).cpu().double() for part in (y - op.A(x), y))
    chi2 = (residual**2).mean(1) / noise**2  # in float32 the square of 1e20 is infinite
    outside, excess = _beyond(op.picture(x))
    excess = excess.sqrt() / contrast.std(1, correction=0).clamp_min(noise)
    columns = zip(chi2.tolist(), outside.tolist(), excess.tolist(), strict=True)
    return [
        Fit(chi2=one, outside=None if is_clipped else share, excess=None if is_clipped else beyond)
        for one, share, beyond in columns
    ]


def _beyond(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (the share of values beyond [-1, 1] by more than BEYOND, the mean square of what is beyond), each (B,).

    A large picture, of which double precision would take several times the memory, strip by strip.
    """
    height, width = picture.shape[-2:]
    rows = STRIP_ROWS if height * width > LARGE_PIXELS else height
    outside = square = torch.zeros(len(picture), dtype=torch.float64)
    for top, bottom in strips(height, rows):
        over = (picture[..., top:bottom, :].flatten(1).cpu().double().abs() - 1.0).clamp_min(0.0)
        share = (bottom - top) / height
        outside = outside + share * (over > BEYOND).double().mean(1)
        square = square + share * (over**2).mean(1)
    return outside, square


def kind_of(name: str) -> str:
    """Returns what ranges are recorded for: a task, all blurs together."""
    return "blur" if task(name).kernel is not None else name


def form_of(sampling: Sampling) -> str:
    """Returns what ranges are recorded for: a method and the noise levels, DMPS by where its score is taken.

    A mean of samples is another thing than a sample.
    """
    mean = "mean" if (sampling.knobs.get("mean_of") or 1) > 1 else None
    parts = (family(sampling.method), sampling.knobs.get("score_at"), mean, sampling.sampler)
    return " ".join(part for part in parts if part)


def usual(sampling: Sampling, name: str, model: str) -> Usual | None:
    """Returns what right input of a task gave at the nearest number of evaluations.

    None where nothing near was recorded.

    model: the prior's name; others than the one of the records may differ.
    """
    by_nfe = _ranges().get(form_of(sampling), {}).get(kind_of(name), {}) if model == DEFAULT_MODEL else {}
    distance, nearest = min(((abs(math.log(int(nfe) / sampling.nfe)), nfe) for nfe in by_nfe), default=(math.inf, ""))
    if distance > math.log(NEAR_NFE) + 1e-9:
        return None
    row = by_nfe[nearest]
    return Usual(**{name: (pair[0], pair[1]) for name, pair in row.items()})


@cache
def _ranges() -> dict[str, dict[str, dict[str, Any]]]:
    """Returns {form: {kind: {nfe: a row of `usual_of`}}}, made by benchmarks/fit_ranges.py."""
    content: dict[str, dict[str, dict[str, Any]]] = json.loads(RANGES.read_text(encoding="utf-8"))["ranges"]
    return content


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which numbers are outside what is usual."""

    noise_is_more: bool = False
    noise_is_less: bool = False
    leaves_the_scale: bool = False

    @property
    def is_off(self) -> bool:
        """Whether the model may have ruined the picture; noise that is less than expected only leaves it soft."""
        return self.noise_is_more or self.leaves_the_scale


def judged(fit: Fit, known: Usual | None, sigma_y: float, *, own: float | None = None) -> Verdict:
    """Returns what is unusual of a sample; nothing where no range is known.

    own: excess that the picture has with any kernel, where that was asked of a soft sample.
    """
    if known is None:
        return Verdict()
    least, largest = known.chi2
    counts = sigma_y >= LEAST_SIGMA
    return Verdict(
        noise_is_more=counts and fit.chi2 > CHI2_SLACK * largest,
        noise_is_less=counts and fit.chi2 < least / CHI2_SLACK,
        leaves_the_scale=fit.excess is not None and fit.excess > most_excess(known, own),
    )


def most_excess(known: Usual, own: float | None = None) -> float:
    """Returns the excess up to which nothing is said."""
    most = max(LEAST_EXCESS, known.excess[1])
    return most if own is None else own + min(OVER, most)


_MAY_BE: dict[str, str] = {
    "blur": "the kernel or the boundary is another, or",
    "inpaint": "the mask keeps damaged pixels, or",
}


def remark(
    fit: Fit, known: Usual | None, sigma_y: float, name: str, *, is_bound: bool = False, own: float | None = None
) -> str | None:
    """Returns one line about what is unusual and what may be wrong; None if nothing is.

    is_bound: whether sigma_y covers errors that hardly show in y - A x, as compression's: then less is no surprise.
    own: see `judged`.
    """
    verdict = judged(fit, known, sigma_y, own=own)
    if is_bound:
        verdict = replace(verdict, noise_is_less=False)
    if known is None or verdict == Verdict():
        return None
    facts = []
    if verdict.noise_is_more or verdict.noise_is_less:
        facts.append(f"chi2 is {fit.chi2:.2g}, usual are {known.chi2[0]:.2g} to {known.chi2[1]:.2g}")
    if verdict.leaves_the_scale:
        facts.append(
            f"it leaves the scale of a picture by {fit.excess:.1%} of its contrast, usual is up to "
            f"{most_excess(known, own):.1%}"
        )
    if verdict.is_off:
        reason = f"{_MAY_BE.get(kind_of(name), '')} the noise is more than {both_scales(sigma_y)}".strip()
    else:
        reason = f"the noise is less than {both_scales(sigma_y)}: a smaller --sigma gives more detail"
    return f"may not fit: {reason} ({'; '.join(facts)})"


def usual_of(fits: Sequence[Fit]) -> dict[str, Any]:
    """Returns a row of the ranges, from the fits of right input."""
    chi2, excess = sorted(fit.chi2 for fit in fits), sorted(fit.excess or 0.0 for fit in fits)
    return {"chi2": [round(chi2[0], 4), round(chi2[-1], 4)], "excess": _half_and_nearly_all(excess)}


def _half_and_nearly_all(ordered: Sequence[float]) -> list[float]:
    """Returns what 50 and 95 of 100 numbers are at most."""
    return [round(ordered[int(share * (len(ordered) - 1))], 5) for share in (0.5, 0.95)]
