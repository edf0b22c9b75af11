"""Which pixels a mask picture keeps: white ones, unless it is painted on transparent ground or has holes itself."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dmps_cli.errors import InputError
from dmps_cli.files.images import load, opacity

SURE, SOFT_SHARE = 0.8, 0.2
"""A mask's pixels beyond +-0.8 are black or white; scaled or compressed masks have some between, photographs most."""

ONE_COLOUR = 0.1
"""Standard deviation on [-1, 1] up to which what is painted is of one colour."""


def load_mask(path: Path, *, invert: bool = False) -> tuple[Tensor, tuple[str, ...]]:
    """Returns ((H, W) of bool, True = kept; notes on how it was read) from a mask picture.

    Kept is what is at least half white in every channel; of a picture that holds two values alone, 0 and 1 say, the
    higher. One that is transparent in places is read by its opacity where its colours say nothing: strokes of one
    colour are holes, holes in a picture are holes; black and white are read as they are, on white ground. invert: the
    other way round. Raises InputError for a picture that is no mask, and for one that removes nothing or everything.
    """
    opaque = opacity(path)
    notes: tuple[str, ...] = ()
    if opaque is None:
        keep = _by_colour(load(path).pixels, path)
    else:
        keep, notes = _by_opacity(path, opaque >= 0.5)
    return checked_mask(~keep if invert else keep, path), notes


def load_opaque(path: Path, *, invert: bool = False) -> Tensor:
    """Returns (H, W) of bool, True where a picture is at least half opaque.

    invert: where it is not. Raises InputError.
    """
    opaque = opacity(path)
    if opaque is None:
        raise InputError(f"{path} is opaque everywhere: --mask alpha needs transparent parts; name a mask's file")
    keep = opaque >= 0.5
    return checked_mask(~keep if invert else keep, path)


def checked_mask(keep: Tensor, path: Path) -> Tensor:
    """Returns the mask. Raises InputError if it removes nothing or everything."""
    if keep.all() or not keep.any():
        what = "nothing" if keep.all() else "every pixel"
        raise InputError(f"the mask in {path} removes {what}; white is kept (--invert-mask: white is removed)")
    return keep


def _by_colour(pixels: Tensor, path: Path) -> Tensor:
    """Returns (H, W) of bool from colours (C, H, W) on [-1, 1]."""
    grey = pixels.amin(0)
    low, high = grey.min(), grey.max()
    if low == -1.0 and high > low and bool(((grey == low) | (grey == high)).all()):
        return grey == high
    between = float((grey.abs() < SURE).double().mean())
    if between > SOFT_SHARE:
        raise InputError(
            f"{path} is no mask: {between:.0%} of it is neither black nor white; give a black-and-white one"
        )
    return grey >= 0.0


def _by_opacity(path: Path, opaque: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    pixels = load(path, with_alpha=True).pixels
    painted = pixels[:, opaque]
    if not painted.shape[1] or float(painted.std(1, correction=0).max()) <= ONE_COLOUR:
        return ~opaque, (f"{path} is painted on transparent ground: what is painted is removed",)
    if bool((painted.amin(0).abs() >= SURE).double().mean() >= 1.0 - SOFT_SHARE) and _is_grey(painted):
        return _by_colour(torch.where(opaque, pixels, 1.0), path), ()
    return opaque, (f"{path} has transparent parts: they are removed",)


def _is_grey(colours: Tensor) -> bool:
    """Returns whether colours (C, N) are grey, give or take what a lossy file does to them."""
    return float((colours.amax(0) - colours.amin(0)).mean()) < ONE_COLOUR
