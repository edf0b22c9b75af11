"""What can be said about an operator, and what a value may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from dmps_cli.checks import SEED, TRUTH, Rule, choice, option, real, reals, whole
from dmps_cli.errors import UsageError
from dmps_cli.tasks import kernels, own

PATTERNS = ("mask", "box", "fraction")
"""Ways to say which pixels are missing."""

VALID = "valid"
"""The boundary of a scene that goes on beyond the frame: x is larger than the picture."""

BOUNDARIES = (VALID, "zero", "reflect", "replicate", "circular")


_SCALE, _ANGLE = whole(2, 64), real(-360, 360, unit="degrees")
_SIDE = whole(1, kernels.MAX_SIDE, unit="px", odd=True)
_STD = real(0.05, 900.0, unit="px")
_WEIGHTS = reals(
    [3],
    "three numbers r,g,b from -100 to 100, one of them at least 0.001 in size",
    lambda n: 0.001 <= max(map(abs, n)) <= 100,
)
_SIDES = reals(
    [4],
    "left,top,width,height in px: whole numbers, width and height at least 1",
    lambda n: all(v == int(v) and v >= 0 for v in n) and min(n[2:]) >= 1,
)
_BOX = Rule(what=_SIDES.what, read=lambda value: [int(number) for number in _SIDES.read(value)])
MAX_SIDE = 2**15
"""px of a picture that --image-shape may claim."""

_THREE = reals(
    [3],
    f"channels,height,width: 1 or 3, and whole numbers from 1 to {MAX_SIDE}",
    lambda n: all(v == int(v) and 1 <= v <= MAX_SIDE for v in n) and n[0] in (1, 3),
)
_SHAPE = Rule(what=_THREE.what, read=lambda value: [int(number) for number in _THREE.read(value)])


@dataclass(frozen=True, kw_only=True)
class OperatorOptions:
    """What can be said about an operator; None leaves it to the task. Values may come from flags or from JSON."""

    scale: int | None = option("Down-sampling factor, px of the restoration per px of the input.", "N", rule=_SCALE)
    width: int | None = option("Width of the uniform blur, px, odd.", "PX", rule=_SIDE)
    blur_std: float | None = option("Standard deviation of the Gaussian blur, px.", "PX", rule=_STD)
    blur_std_x: float | None = option("Horizontal standard deviation of the blur, px.", "PX", rule=_STD)
    blur_std_y: float | None = option("Vertical standard deviation of the blur, px.", "PX", rule=_STD)
    taps: int | None = option("Width of the sampled Gaussian, px, odd.", "PX", rule=_SIDE)
    length: float | None = option("Length of the motion, px.", "PX", rule=real(1.0, kernels.MAX_LENGTH, unit="px"))
    angle: float | None = option(
        "Direction of the motion, degrees counter-clockwise from horizontal.",
        "DEG",
        rule=_ANGLE,
    )
    kernel: str | None = option(  # once read, its value (kernels.read)
        "What the picture was blurred by: a file (PNG, NPY, MAT; FILE:NAME for one array of several), or gauss:3, "
        "uniform:9, aniso:20,1, motion:15,30, defocus:4.5 (px, degrees).",
        "KERNEL",
        complete="kernel",
    )
    kernel_as_is: bool | None = option(
        "Take the kernel's values as they are: they are not made to sum to 1.", rule=TRUTH
    )
    boundary: str | None = option(
        "What lies beyond the border of a blurred picture: more of the scene, of which nothing is known (valid), "
        "nothing (zero, mid-grey), the picture mirrored (reflect), its edge on and on (replicate), its other side "
        "(circular). Default: valid for a picture without a sidecar, else the task's.",
        "|".join(BOUNDARIES),
        complete="boundary",
        rule=choice(BOUNDARIES),
    )
    svd_cutoff: float | None = option(
        "Singular values of the 1-D factors below this are set to zero in A itself; the authors' code has 0.03. "
        "Default: 0, the true A.",
        "X",
        rule=real(0, 1, below=True),
    )
    weights: str | None = option("Weights of red, green and blue in the grey value.", "R,G,B", rule=_WEIGHTS)
    mask: str | None = option(
        "Mask picture of the same size: white pixels are kept; of strokes painted on transparent ground the unpainted "
        "ones. alpha: what is transparent in the picture itself is removed.",
        "FILE|alpha",
    )
    invert_mask: bool | None = option("Take the mask the other way round: white pixels are removed.", rule=TRUTH)
    box: str | None = option("Box of removed pixels: left, top, width, height, px.", "X,Y,W,H", rule=_BOX)
    fraction: float | None = option("Share of pixels removed at random, 0 to 1.", "SHARE", rule=real(0, 1, below=True))
    ratio: int | None = option("Compression: pixels per measured value.", "N", rule=whole(1))
    operator_seed: int | None = option("Seed of the random mask or of the choice of rows.", "N", rule=SEED)

    matrix: str | None = option(
        "A matrix in place of --task: .npz (sparse, as SciPy saves it) or .npy, a column for each number of "
        "x.flatten(), or for each pixel of a channel.",
        "FILE",
    )
    operator: str | None = option(
        "Python code in place of --task, which is run: called with image shape, dtype and device it gives a "
        "LinearOperator, or functions (A, At) of tensors; without At, A is differentiated.",
        "FILE.py:NAME|MODULE:NAME",
    )
    image_shape: str | None = option(
        "Channels, height and width of x for --matrix and --operator, where the input is no picture of that size.",
        "C,H,W",
        rule=_SHAPE,
    )

    @property
    def own(self) -> str | None:
        """The file or the code of an operator of one's own. Raises UsageError where both are given."""
        if self.matrix is not None and self.operator is not None:
            raise UsageError("--matrix and --operator exclude each other")
        return self.matrix or self.operator

    def given(self) -> dict[str, Any]:
        """Returns the options that are not left open."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def files(self) -> list[Path]:
        """Returns those that are read: a mask, a kernel, a matrix, code."""
        kernel = None if self.kernel is None else kernels.file_of(self.kernel)
        named = [self.mask, self.matrix, self.operator and own.code_file(self.operator), kernel]
        return [Path(file) for file in named if file is not None]

    def with_kernel_read(self) -> OperatorOptions:
        """Returns the options with the numbers of a kernel's file in its name's place: read once for many pictures.

        Raises UsageError, InputError.
        """
        if self.kernel is None:
            return self
        return replace(self, kernel=kernels.read(self.kernel))  # type: ignore[arg-type] # a value, as JSON has it


RULES: dict[str, Callable[[str, Any], Any]] = {
    **{described.name: described.metadata["rule"] for described in fields(OperatorOptions)},
    "kernel": lambda option, value: kernels.read(value),
    "mask": lambda option, value: str(value),
    "matrix": lambda option, value: own.named_matrix(value),
    "operator": lambda option, value: own.named_code(value),
}
"""Option -> its rule; of those that name files what is read of them."""
