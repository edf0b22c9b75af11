"""What can be said about an operator, and what a value may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dmps_cli.checks import MAX_SEED, flag, option, real_number, real_numbers, whole_number
from dmps_cli.errors import UsageError
from dmps_cli.tasks import kernels

PATTERNS = ("mask", "box", "fraction")
"""Ways to say which pixels are missing."""

BOUNDARIES = ("valid", "zero", "reflect", "replicate", "circular")


@dataclass(frozen=True, kw_only=True)
class OperatorOptions:
    """What can be said about an operator; None leaves it to the task. Values may come from flags or from JSON."""

    scale: int | None = option("Down-sampling factor, px of the restoration per px of the input.", "N")
    width: int | None = option("Width of the uniform blur, px, odd.", "PX")
    blur_std: float | None = option("Standard deviation of the Gaussian blur, px.", "PX")
    blur_std_x: float | None = option("Horizontal standard deviation of the blur, px.", "PX")
    blur_std_y: float | None = option("Vertical standard deviation of the blur, px.", "PX")
    taps: int | None = option("Width of the sampled Gaussian, px, odd.", "PX")
    length: float | None = option("Length of the motion, px.", "PX")
    angle: float | None = option("Direction of the motion, degrees counter-clockwise from horizontal.", "DEG")
    kernel: str | None = option(  # once read, its value (kernels.read)
        "What the picture was blurred by: a file (PNG, NPY, MAT; FILE:NAME for one array of several), or gauss:3, "
        "uniform:9, aniso:20,1, motion:15,30, defocus:4.5 (px, degrees).",
        "KERNEL",
        complete="kernel",
    )
    kernel_as_is: bool | None = option("Take the kernel's values as they are: they are not made to sum to 1.")
    boundary: str | None = option(
        "What lies beyond the border of a blurred picture: more of the scene, of which nothing is known (valid), "
        "nothing (zero, mid-grey), the picture mirrored (reflect), its edge on and on (replicate), its other side "
        "(circular). Default: valid for a picture without a sidecar, else the task's.",
        "|".join(BOUNDARIES),
        complete="boundary",
    )
    svd_cutoff: float | None = option(
        "Singular values of the 1-D factors below this are set to zero in A itself; the authors' code has 0.03. "
        "Default: 0, the true A.",
        "X",
    )
    weights: str | None = option("Weights of red, green and blue in the grey value.", "R,G,B")
    mask: str | None = option(
        "Mask picture of the same size: white pixels are kept; of strokes painted on transparent ground the unpainted "
        "ones. alpha: what is transparent in the picture itself is removed.",
        "FILE|alpha",
    )
    invert_mask: bool | None = option("Take the mask the other way round: white pixels are removed.")
    box: str | None = option("Box of removed pixels: left, top, width, height, px.", "X,Y,W,H")
    fraction: float | None = option("Share of pixels removed at random, 0 to 1.", "SHARE")
    ratio: int | None = option("Compression: pixels per measured value.", "N")
    operator_seed: int | None = option("Seed of the random mask or of the choice of rows.", "N")

    def given(self) -> dict[str, Any]:
        """Returns the options that are not left open."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def files(self) -> list[Path]:
        """Returns those that are read: a mask, a kernel."""
        kernel = None if self.kernel is None else kernels.file_of(self.kernel)
        return [*([] if self.mask is None else [Path(self.mask)]), *([] if kernel is None else [kernel])]

    def with_kernel_read(self) -> OperatorOptions:
        """Returns the options with the numbers of a kernel's file in its name's place: read once for many pictures.

        Raises UsageError, InputError.
        """
        if self.kernel is None:
            return self
        return replace(self, kernel=kernels.read(self.kernel))  # type: ignore[arg-type] # a value, as JSON has it


def _box(option: str, value: Any) -> list[int]:
    what = "left,top,width,height in px: whole numbers, width and height at least 1"
    check = real_numbers(4, what, lambda n: all(v == int(v) and v >= 0 for v in n) and min(n[2:]) >= 1)
    return [int(number) for number in check(option, value)]


def _flag(option: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{flag(option)} is {value}; it must be true or false")
    return value


def _boundary(option: str, value: Any) -> str:
    if value not in BOUNDARIES:
        raise UsageError(f"{flag(option)} is '{value}'; choose one of {', '.join(BOUNDARIES)}")
    return str(value)


_odd = whole_number(
    f"an odd number of px from 1 to {kernels.MAX_SIDE}", lambda n: 1 <= n <= kernels.MAX_SIDE and n % 2 == 1
)

_std = real_number("a number of px from 0.05 to 900", lambda n: 0.05 <= n <= 900.0)
_seed = whole_number("a whole number from 0 to 2^63 - 1", lambda n: 0 <= n <= MAX_SEED)

CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "scale": whole_number("a whole number from 2 to 64", lambda n: 2 <= n <= 64),
    "width": _odd,
    "blur_std": _std,
    "blur_std_x": _std,
    "blur_std_y": _std,
    "taps": _odd,
    "length": real_number(f"a number of px from 1 to {kernels.MAX_LENGTH:g}", lambda n: 1 <= n <= kernels.MAX_LENGTH),
    "angle": real_number("a number of degrees from -360 to 360", lambda n: abs(n) <= 360),
    "kernel": lambda option, value: kernels.read(value),
    "kernel_as_is": _flag,
    "boundary": _boundary,
    "svd_cutoff": real_number("a number from 0 up to 1", lambda n: 0 <= n < 1),
    "weights": real_numbers(
        3,
        "three numbers r,g,b from -100 to 100, one of them at least 0.001 in size",
        lambda n: 0.001 <= max(map(abs, n)) <= 100,
    ),
    "mask": lambda option, value: str(value),
    "invert_mask": _flag,
    "box": _box,
    "fraction": real_number("a share of pixels from 0 up to 1", lambda n: 0 <= n < 1),
    "ratio": whole_number("a whole number, at least 1", lambda n: n >= 1),
    "operator_seed": _seed,
}
