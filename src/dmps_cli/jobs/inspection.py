"""What a picture file shows of how it was degraded: for a person who has not said it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from dmps_cli.files.compression import rounding_of
from dmps_cli.files.images import is_grey, opacity, to_grey
from dmps_cli.files.measurements import Taken, read_measurement
from dmps_cli.files.options import ReadingOptions
from dmps_cli.jobs.noise_estimate import estimate_sigma
from dmps_cli.units import GREY_LEVELS

PICTURE_NDIM = 4
LARGEST_SIDE = 1024  # px; of a larger picture the middle is looked at
EDGE_WINDOW = 17  # px
STRONG_SHARE = 0.1  # of all windows, those with the largest rise: edges
LEAST_RISE = 16.0  # grey levels; less is no edge
SHARP_WIDTH = 2.3  # px; see `edge_width`
HIDING_NOISE = 8.0  # grey levels; beyond, noise makes any edge look sharp
ONE_WAY = 1.6  # how much wider edges are along one axis than along the other where something moved


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a picture shows.

    width, height: px; is_grey: one channel, or three equal ones; transparent: share of pixels that are not opaque;
    noise: estimated, grey levels of 255; rounding: the error of a JPEG file, grey levels, 0 for others; edges: width px
    of its edges along the horizontal and the vertical axis, None where it has none or noise hides them.
    """

    width: int
    height: int
    is_grey: bool
    transparent: float
    noise: float
    rounding: float
    edges: tuple[float | None, float | None]

    @property
    def edge(self) -> float | None:
        """Width of its widest edges, px, if they are wider than those of a sharp photograph."""
        widest = max((width for width in self.edges if width is not None), default=0.0)
        return widest if widest > SHARP_WIDTH else None

    @property
    def moved_along(self) -> str | None:
        """The axis along which alone it is blurred."""
        across, down = self.edges
        if self.edge is None or across is None or down is None or max(across, down) < ONE_WAY * min(across, down):
            return None
        return "horizontally" if across > down else "vertically"


def look(path: Path) -> Look | None:
    """Reads a file and describes the picture in it; None for floats that are none. Raises InputError."""
    pixels = read_measurement(path, None, Taken(is_picture=False, options=ReadingOptions(alpha="white"))).pixels
    if pixels.ndim != PICTURE_NDIM or pixels.shape[1] not in (1, 3):
        return None
    alpha = None if path.suffix.lower() == ".npy" else opacity(path)
    noise = estimate_sigma(middle(pixels)[0]).sigma_y * GREY_LEVELS
    grey = middle(to_grey(pixels)[0] if pixels.shape[1] == 3 else pixels)
    return Look(
        width=pixels.shape[-1],
        height=pixels.shape[-2],
        is_grey=is_grey(pixels),
        transparent=0.0 if alpha is None else float((alpha < 1.0).double().mean()),
        noise=noise,
        rounding=rounding_of(path) or 0.0,
        edges=(None, None) if noise > HIDING_NOISE else (edge_width(grey), edge_width(grey.mT)),
    )


def middle(x: Tensor) -> Tensor:
    """Returns the middle of images (.., H, W), LARGEST_SIDE px at most."""
    height, width = x.shape[-2:]
    top, left = (max(0, side - LARGEST_SIDE) // 2 for side in (height, width))
    return x[..., top : top + LARGEST_SIDE, left : left + LARGEST_SIDE]


def edge_width(grey: Tensor) -> float | None:
    """Returns the width of a picture's horizontal transitions, px.

    A step of height h blurred to width w rises by h / w per pixel.

    In windows along a row, the rise (largest - smallest value) over the largest difference of neighbours; of the tenth
    of windows that rise most, the lower quartile, for much of a sharp photograph is smooth. Sharp photographs have 1.3
    to 2 (90 % of 40 of BSDS500), blurred by a Gaussian of 1 px 2.5 to 3.5, by a box of 9 px 4.9 to 7.2; noise makes
    edges look sharp: 5 grey levels make 2.5 to 4.7 of the last.

    grey: (1, 1, H, W) on [-1, 1]. None where nothing rises by LEAST_RISE, or the picture is smaller than a window.
    """
    if min(grey.shape[-2:]) < EDGE_WINDOW:
        return None
    steepest = max_pool2d(grey.diff(dim=-1).abs(), (1, EDGE_WINDOW - 1), stride=1)
    rise = max_pool2d(grey, (1, EDGE_WINDOW), stride=1) + max_pool2d(-grey, (1, EDGE_WINDOW), stride=1)
    least = max(_quantile(rise, 1.0 - STRONG_SHARE), LEAST_RISE / GREY_LEVELS)
    strong = rise >= least
    if not bool(strong.any()):
        return None
    return 1.0 / _quantile(steepest[strong] / rise[strong], 0.75)


def _quantile(x: Tensor, share: float) -> float:
    """Returns the value below which that share of all elements lies; torch.quantile refuses more than 2^24."""
    ordered = torch.sort(x.flatten()).values
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])
