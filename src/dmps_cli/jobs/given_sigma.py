"""What --sigma says, as it is typed: a number, grey levels, a file, or that the noise is to be estimated."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Final, Literal

from dmps_cli.checks import SIGMA, Rule, typed
from dmps_cli.errors import InputError, UsageError
from dmps_cli.files.reading import check_regular
from dmps_cli.files.suffixes import IMAGE_SUFFIXES
from dmps_cli.units import GREY_LEVELS, MAX_SIGMA

AUTO: Final = "auto"
LARGEST_GREY = 255.0
MAX_BARE_SIGMA = 2.0  # the width of the scale; a larger number was rather meant in grey levels


def checked_sigma(text: str | None) -> float | None:
    """Returns the standard deviation on [-1, 1] that --sigma says, None where it is open.

    a/b is a on a scale from 0 to b: 15/255 is 0.1176. Raises UsageError for what can be none, and for a bare number
    that is more likely meant in grey levels.
    """
    if text is None:
        return None
    if text.strip().lower() == AUTO:
        raise UsageError(f"--sigma {AUTO} estimates the noise of a picture; here it is the noise to add: give a number")
    bare = typed(text)
    if isinstance(bare, int | float) and MAX_BARE_SIGMA < bare <= LARGEST_GREY:
        levels = f"{text} grey levels of 255 are --sigma {text}/255 ({bare / GREY_LEVELS:.4g} on [-1, 1])"
        wide = f"{bare:g} on [-1, 1], {bare * GREY_LEVELS:g} grey levels, is --sigma {bare * GREY_LEVELS:g}/255"
        raise UsageError(f"--sigma is {text}: {levels}{f'; {wide}' if bare <= MAX_SIGMA else ''}")
    return _TYPED_SIGMA("--sigma", bare)


def _typed_sigma(value: Any) -> float:
    number, slash, white = str(value).partition("/")
    scale = 2.0 / float(white) if slash and float(white) > 0.0 else 1.0 if not slash else math.nan
    return SIGMA.read(scale * float(number))


_TYPED_SIGMA = Rule(what=f"{SIGMA.what}, or grey levels as 15/255", read=_typed_sigma)


def checked_sigma_or_file(text: str | None) -> float | Path | None:
    """Returns what `checked_sigma` does, or the file that says it of each value. Raises InputError if it is missing."""
    if text is None or not (os.path.lexists(text) or Path(text).suffix.lower() in (*IMAGE_SUFFIXES, ".npy")):
        return checked_sigma(text)
    try:
        check_regular(Path(text))
    except OSError as exc:
        raise InputError(f"cannot read {text}: {exc.strerror}") from exc
    return Path(text)


def checked_sigma_or_auto(text: str | None) -> float | Literal["auto"] | Path | None:
    """Returns what `checked_sigma_or_file` does, or AUTO: it is to be estimated."""
    return AUTO if text is not None and text.strip().lower() == AUTO else checked_sigma_or_file(text)
