"""The scales of pictures and noise, and how they are said."""

from __future__ import annotations

GREY_LEVELS = 127.5  # one unit of [-1, 1] in grey levels of 255
MAX_SIGMA = 10.0  # of measurement noise on [-1, 1]; beyond it a number was meant in grey levels
MIN_SIGMA = 1e-9  # of measurement noise that is not 0: its square must be a number in float32, and times another one


def both_scales(sigma_y: float) -> str:
    """Returns sigma_y on [-1, 1] and in grey levels of 255, for every text that names it."""
    return f"{sigma_y:g} on [-1, 1] = {sigma_y * GREY_LEVELS:.4g} of 255"


LARGE_PIXELS = 2**22
"""Pictures with more are restored in windows and strip by strip (`fields`), on every machine alike."""


def duration(seconds: float) -> str:
    """Returns a time for people: 40 s, 12 min, 3.5 hours."""
    if seconds < 100.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 5400.0 else f"{seconds / 3600.0:.1f} hours"


SEEN_ROUNDING = 3.0  # grey levels of 255, the error of a JPEG file that is worth restoring: of quality 85 and below
