"""The noise of a picture, from the picture alone.

In the flattest patches of a picture the high frequencies hold noise and hardly anything else (Ponomarenko et al. 2007,
"An automatic approach to lossy compression of AVIRIS images"; Colom, Buades and Morel 2014, "Nonparametric noise
estimation method for raw images"). Which patches are flat is asked of the low frequencies alone: where the noise is
white they are independent of the high ones, and the choice biases nothing. In colour the differences between the
channels are asked, where photographs have the least texture. All noise below is in grey levels of 255.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from torch import Tensor

from dmps_cli.units import GREY_LEVELS

FLOOR = 1.0 / math.sqrt(12.0)
"""Levels: the rounding to whole levels alone."""

NEAR_FLOOR = 1.5 * FLOOR
"""Levels up to which an estimate is the floor: noise of 0.3 levels beside the rounding; small samples err by it."""

SIDES = (8, 6, 4, 3, 2)  # px; of a patch
ENOUGH = 2000  # high coefficients that a side must give, or a smaller one is tried
MAX_PATCHES = 40_000
FLATTEST = {1: 0.005, 3: 0.02}  # share of the patches that is asked, by channels: grey has more texture
FEWEST = 1500  # high coefficients that are asked at least
ROUNDS = 8  # of the clipping's own fixed point
CLIPPED_SHARE = 1e-3  # of values at the ends of the scale, from which clipping is counted
SURE_RATIO = 0.5  # patches are asked first where clipping leaves that share of the variance
SEEN = 1.5  # levels; below, nothing is said of what kind the noise is
EVEN = 0.4  # largest relative spread over patches that noise has; texture has more
COLOURED = 1.5  # ratio of middle to high frequencies beyond which noise is not white; white: at most 1.3
SHARED = 1.5  # ratio of brightness to colour beyond which they do not hold the same noise
GROWN = 1.4  # ratio of the brightest fifth to the darkest, of noise that grows with brightness
TREND = 0.8  # correlation of the fifths' noise with their order, of noise that grows with brightness
_OPPONENT = np.array([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]) / np.sqrt([[3.0], [2.0], [6.0]])


class Estimate(NamedTuple):
    """sigma_y: on [-1, 1], at least the floor; is_white: whether nothing speaks against white noise; notes: what."""

    sigma_y: float
    is_white: bool
    notes: tuple[str, ...]

    @property
    def is_floor(self) -> bool:
        """Whether nothing was found but the rounding to whole levels."""
        return self.sigma_y <= FLOOR / GREY_LEVELS


def estimate_sigma(y: Tensor, keep: Tensor | None = None) -> Estimate:
    """Returns the standard deviation of the noise in a picture y (1 or 3, h, w) on [-1, 1].

    keep: (h, w) of bool, the pixels that count; all by default. The noise is taken for white and independent of the
    picture; clipping at -1 and 1 is counted in. Of noise that grows with brightness or is not white the root of its
    mean square is given, and the notes say what it is. The floor is the rounding to 8 bits, 1 / sqrt(12) of a level.
    """
    pixels = (y.detach().cpu().double().numpy() + 1.0) * GREY_LEVELS
    kept = np.ones(pixels.shape[1:], dtype=bool) if keep is None else keep.cpu().numpy()
    patches = _Patches.of(pixels, kept)
    if patches is None:
        return _estimate(0.0, "it shows too little in one piece to tell its noise; give --sigma if there is some")
    clips = _is_clipped(pixels[:, kept])
    asked = patches.asked(clips=clips)
    return _estimate(0.0) if asked is None else _judged(patches, asked)


def _estimate(levels: float, *notes: str) -> Estimate:
    return Estimate(sigma_y=(levels if levels > NEAR_FLOOR else FLOOR) / GREY_LEVELS, is_white=not notes, notes=notes)


def _is_clipped(values: np.ndarray) -> bool:
    """Returns whether values end at the ends of the scale, and more than a few lie there."""
    if not values.size or values.min() < 0.0 or values.max() > 255.0:
        return False
    return bool(((values == 0.0) | (values == 255.0)).mean() > CLIPPED_SHARE)


@dataclass(frozen=True, kw_only=True)
class _Patches:
    """Patches as coefficients of the discrete cosine transform, each channel (colours: brightness, two differences).

    coefficients: (C, n, d^2); order: (d^2,), the sum of the two frequencies; means: (n, C) levels; is_flat: (n,),
    whether all values of a patch are equal, which noise never is: frames, drawings, what is saturated.
    """

    side: int
    coefficients: np.ndarray
    order: np.ndarray
    means: np.ndarray
    is_flat: np.ndarray

    @classmethod
    def of(cls, pixels: np.ndarray, kept: np.ndarray) -> _Patches | None:
        """Returns those that are kept whole, a sample of them; None without any. pixels: (C, h, w); kept: (h, w)."""
        side, places = _places(kept)
        if not len(places):
            return None
        if len(places) > MAX_PATCHES:
            places = np.sort(np.random.default_rng(0).choice(places, MAX_PATCHES, replace=False))
        rows, cols = np.divmod(places, kept.shape[1] - side + 1)
        views = np.lib.stride_tricks.sliding_window_view(pixels, (side, side), axis=(1, 2))
        values = views[:, rows, cols].reshape(len(pixels), len(places), side * side).astype(np.float32)
        coefficients = values @ np.kron(_cosines(side), _cosines(side)).T.astype(np.float32)
        if len(pixels) == 3:
            coefficients = np.tensordot(_OPPONENT.astype(np.float32), coefficients, axes=1)
        return cls(
            side=side,
            coefficients=coefficients,
            order=np.add.outer(np.arange(side), np.arange(side)).ravel(),
            means=values.mean(2, dtype=np.float64).T,
            is_flat=(np.ptp(values, axis=2) == 0.0).all(0),
        )

    @property
    def is_colour(self) -> bool:
        return len(self.coefficients) == 3

    @cached_property
    def bands(self) -> dict[str, np.ndarray]:
        """Which coefficients are low (they rank the patches), high, of middle frequency, and all but the lowest."""
        low = (self.order > 0) & (self.order < self.side)
        middle = (self.order >= 3) & (self.order < self.side - 1) if self.side >= 6 else low
        return {"low": low, "high": self.order >= self.side, "middle": middle, "whole": self.order >= 2}

    @cached_property
    def _energies(self) -> dict[str, np.ndarray]:
        """(C, n) of each band: the mean squares of its coefficients."""
        weights = np.stack([band / band.sum() for band in self.bands.values()], axis=1).astype(np.float32)
        energies = (np.square(self.coefficients) @ weights).astype(np.float64)
        return {name: energies[:, :, k] for k, name in enumerate(self.bands)}

    def energy(self, planes: slice, band: str) -> np.ndarray:
        """Returns (n,): the mean square of a band's coefficients of each patch."""
        mean: np.ndarray = self._energies[band][planes].mean(0)
        return mean

    @property
    def differences(self) -> slice:
        """The planes of least texture."""
        return slice(1, 3) if self.is_colour else slice(0, 1)

    def asked(self, *, clips: bool) -> _Asked | None:
        """Returns the flattest, and the share of the noise's variance that clipping leaves of them.

        None if all are constant.

        Clipping takes the more the stronger the noise is: sigma is a fixed point.
        """
        if self.is_flat.all():
            return None
        low, high = self.energy(slice(None), "low"), self.energy(self.differences, "high")
        ratio = np.ones(len(low))
        for _ in range(ROUNDS if clips else 1):
            asked = self.flattest(low, high, ratio, ~self.is_flat)
            if clips and asked.sigma > 0.0:
                ratio = _clipped_ratio(self.means, asked.sigma)
        return asked

    def flattest(self, rank: np.ndarray, energy: np.ndarray, ratio: np.ndarray, among: np.ndarray) -> _Asked:
        """Returns the patches of least rank of those that clipping leaves most of, and their energy."""
        sure = among & (ratio >= SURE_RATIO)
        if sure.sum() < 0.05 * among.sum():
            sure = among & (ratio >= np.quantile(ratio[among], 0.95))
        places = np.flatnonzero(sure)
        per_patch = int(self.bands["high"].sum()) * (2 if self.is_colour else 1)
        count = max(int(FLATTEST[len(self.coefficients)] * len(places)), -(-FEWEST // per_patch))
        ratio = np.maximum(ratio, 1e-6)
        chosen = places[np.argsort(rank[places] / ratio[places], kind="stable")[:count]]
        return _Asked(places=chosen, energy=energy[chosen] / ratio[chosen], ratio=ratio)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """Patches by their places, their mean squares with clipping undone, and every patch's share left by it."""

    places: np.ndarray
    energy: np.ndarray
    ratio: np.ndarray

    @property
    def sigma(self) -> float:
        """The root of the mean square."""
        weights = self.ratio[self.places]
        return math.sqrt(float((self.energy * weights).sum() / weights.sum()))

    @property
    def spread(self) -> float:
        """The relative standard deviation of the mean squares over the patches."""
        return float(self.energy.std() / max(self.energy.mean(), 1e-12))


def _judged(patches: _Patches, asked: _Asked) -> Estimate:
    """Returns what the flattest patches say of the noise's size and kind."""
    white, low = asked.sigma, patches.energy(slice(None), "low")
    colour = _Bands.of(patches, asked, patches.differences)
    brightness = colour
    if patches.is_colour:
        plane = slice(0, 1)
        rank, high = patches.energy(plane, "low"), patches.energy(plane, "high")
        chosen = patches.flattest(rank, high, asked.ratio, ~patches.is_flat)
        brightness = _Bands.of(patches, chosen, plane)
    is_coloured = any(bands.is_coloured for bands in (colour, brightness))
    is_shared = patches.is_colour and brightness.is_even and brightness.middle > max(SEEN, SHARED * white)
    if is_coloured or is_shared:
        whole = math.sqrt((brightness.whole**2 + 2.0 * colour.whole**2) / 3.0)
        if is_coloured or colour.middle > SEEN or not brightness.is_fine:
            return _estimate(
                whole,
                "its noise is not white, as after compression, enlarging or demosaicing; give a larger --sigma if too "
                "much of it stays",
            )
        return _estimate(whole, "its channels share their noise, as the grain of film does")
    grown = _by_brightness(patches, asked, low)
    if grown is not None and max(grown) > SEEN:
        mean = math.sqrt(sum(sigma**2 for sigma in grown) / len(grown))
        return _estimate(mean, f"its noise grows with brightness, from {grown[0]:.3g} to {grown[-1]:.3g} levels of 255")
    return _estimate(white)


@dataclass(frozen=True, kw_only=True)
class _Bands:
    """Noise of some planes at high, middle and all frequencies.

    is_even, is_fine: whether the patches agree, as they do of noise, on its middle and on its high frequencies.
    """

    high: float
    middle: float
    whole: float
    is_even: bool
    is_fine: bool

    @classmethod
    def of(cls, patches: _Patches, asked: _Asked, planes: slice) -> _Bands:
        """Returns those of the patches asked."""
        high, middle, whole = (_restricted(asked, patches.energy(planes, band)) for band in ("high", "middle", "whole"))
        return cls(
            high=high.sigma,
            middle=middle.sigma,
            whole=whole.sigma,
            is_even=middle.spread < EVEN,
            is_fine=high.spread < EVEN,
        )

    @property
    def is_coloured(self) -> bool:
        """Whether middle frequencies stand out."""
        return self.is_even and self.middle > max(SEEN, COLOURED * self.high)


def _restricted(asked: _Asked, energy: np.ndarray) -> _Asked:
    """Returns another energy of the same patches."""
    return _Asked(places=asked.places, energy=energy[asked.places] / asked.ratio[asked.places], ratio=asked.ratio)


def _by_brightness(patches: _Patches, asked: _Asked, low: np.ndarray) -> list[float] | None:
    """Returns the noise of each fifth of the patches, dark to bright, if it grows all the way, by more than GROWN."""
    brightness, high = patches.means.mean(1), patches.energy(patches.differences, "high")
    live = ~patches.is_flat & (asked.ratio >= SURE_RATIO)
    if live.sum() < ENOUGH:
        return None
    edges = np.quantile(brightness[live], np.linspace(0.0, 1.0, 6))
    bins = []
    for start, end in pairwise(edges):
        among = live & (brightness >= start) & (brightness <= end)
        bins.append(patches.flattest(low, high, asked.ratio, among).sigma if among.any() else 0.0)
    is_growing = bins[-1] > GROWN * bins[0] and float(np.corrcoef(bins, np.arange(len(bins)))[0, 1]) > TREND
    return bins if is_growing else None


def _places(kept: np.ndarray) -> tuple[int, np.ndarray]:
    """Returns (the largest side that gives enough, or the one that gives most; corners of its patches kept whole).

    Corners as indices into the grid of (h - side + 1, w - side + 1).
    """
    best, found = (0, np.zeros(0, dtype=np.int64)), -1
    for side in SIDES:
        places = _whole(kept, side)
        given = len(places) * sum(row + col >= side for row in range(side) for col in range(side))
        if given > found:
            best, found = (side, places), given
        if given >= ENOUGH:
            return side, places
    return best


def _whole(kept: np.ndarray, side: int) -> np.ndarray:
    """Returns the corners of the squares without a removed pixel, by a summed table."""
    if min(kept.shape) < side:
        return np.zeros(0, dtype=np.int64)
    table = np.pad(np.cumsum(np.cumsum(~kept, axis=0), axis=1), ((1, 0), (1, 0)))
    removed = table[side:, side:] - table[:-side, side:] - table[side:, :-side] + table[:-side, :-side]
    return np.flatnonzero(removed == 0)


def _cosines(side: int) -> np.ndarray:
    """Returns the orthonormal discrete cosine transform (DCT-II), (side, side): frequency by pixel."""
    place = np.arange(side)
    basis = np.cos(np.pi * place[:, None] * (place + 0.5) / side) * math.sqrt(2.0 / side)
    basis[0] /= math.sqrt(2.0)
    return basis


def _clipped_ratio(means: np.ndarray, sigma: float) -> np.ndarray:
    """Returns the share of its variance that noise keeps if clipped to 0..255, where its clipped mean is `means`.

    means: (n, C); result: (n,), the mean over the channels. For z ~ N(m, sigma^2) clipped, with a = -m / sigma,
    b = (255 - m) / sigma, P and p the normal distribution and density (Foi 2009, "Clipped noisy images"):

        E z   = 255 P(-b) + m (P(b) - P(a)) + sigma (p(a) - p(b))
        E z^2 = 255^2 P(-b) + (m^2 + sigma^2) (P(b) - P(a)) + sigma (m p(a) - (m + 255) p(b))
    """
    m = np.linspace(-4.0 * sigma, 255.0 + 4.0 * sigma, 2048)
    a, b = -m / sigma, (255.0 - m) / sigma
    (below_a, at_a), (below_b, at_b) = _normal(a), _normal(b)
    inside, above = below_b - below_a, 1.0 - below_b
    first = 255.0 * above + m * inside + sigma * (at_a - at_b)
    second = 255.0**2 * above + (m**2 + sigma**2) * inside + sigma * (m * at_a - (m + 255.0) * at_b)
    ratio = np.maximum(second - first**2, 0.0) / sigma**2
    shares: np.ndarray = np.interp(means, first, ratio).mean(1)
    return shares


def _normal(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the normal distribution and its density."""
    distribution = np.array([0.5 * math.erfc(-value / math.sqrt(2.0)) for value in t])
    return distribution, np.exp(-0.5 * t**2) / math.sqrt(2.0 * math.pi)
