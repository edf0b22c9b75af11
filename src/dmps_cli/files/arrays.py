"""Arrays that other programs saved as pictures: their axes and their scale, asked where they could be either."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dmps_cli.errors import InputError

if TYPE_CHECKING:
    import numpy as np

CHANNELS = (1, 3)
FARTHEST = 2.0
"""Values beyond it are refused where nothing says the scale: they are more likely on 0..255 than very noisy."""


def as_picture(array: np.ndarray, ends: tuple[float, float] | None, path: Path) -> np.ndarray:
    """Returns (C, H, W), C = 1 or 3, on [-1, 1]. ends: what is black and what white, None where nobody said.

    A grey picture may be (H, W), and one picture (1, C, H, W). Raises InputError for other shapes, naming height x
    width x channels, and, without ends, for values that lie on [0, 1] or beyond FARTHEST: those could be of another
    scale.
    """
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 2:
        array = array[None]
    _check_axes(array, path)
    if ends is None:
        _check_scale(array, path)
        return array
    black, white = ends
    return (array.astype("float64") - black) * (2.0 / (white - black)) - 1.0


def _check_axes(array: np.ndarray, path: Path) -> None:
    if array.ndim == 3 and array.shape[0] in CHANNELS:
        return
    if array.ndim == 3 and array.shape[2] in (*CHANNELS, 4):
        more = ", without the opacity: array[..., :3]" if array.shape[2] == 4 else ""
        raise InputError(
            f"{path} holds {array.shape}, (height, width, channels) or HWC; save it with the channels first, "
            f"numpy.moveaxis(array, -1, 0){more}"
        )
    raise InputError(
        f"{path} holds {array.shape}, not (channels, height, width) with 1 or 3 channels; it has no sidecar"
    )


def _check_scale(array: np.ndarray, path: Path) -> None:
    low, high = float(array.min()), float(array.max())
    found = f"{path} holds values from {low:.4g} to {high:.4g}"
    if low >= 0.0 and high <= 1.0:
        raise InputError(f"{found}, on [0, 1] or on [-1, 1]; say which: --range 0,1 or --range -1,1")
    if max(-low, high) > FARTHEST:
        raise InputError(f"{found}, on [0, 255] or, very noisy, on [-1, 1]; say which: --range 0,255 or --range -1,1")
