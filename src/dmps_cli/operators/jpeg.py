"""JPEG as a linear measurement: colour transform, chroma averaging, block DCT; the noise is what rounding did.

y = diag(w) A x + n, n ~ N(0, s^2 I), w = s / sigma: every coefficient over the standard deviation of its own rounding.
One matrix serves all minimum coded units (ITU-T T.81, A.2): one small singular value decomposition gives the modes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dmps_cli.errors import InputError
from dmps_cli.linalg import MatrixSVD, matrix_svd
from dmps_cli.operators.base import SpectralOperator
from dmps_cli.operators.measurement import Measurement

BLOCK = 8
TIGHTER = 0.6
"""What the deviations of rounding are multiplied by: an error that is bounded by half a step is not a Gaussian's of the
same variance, and under the wider one the prior smoothes too much (docs/jpeg.md)."""

MIN_ZEROS = 0.02
"""A coefficient of which fewer are 0 is as good as uniform within a step."""
HALF_WHITE = 127.5
"""Grey levels in 1 on the scale [-1, 1]."""

LEVEL_SHIFT = 4.0 / HALF_WHITE
"""What is added to luma's constant coefficient: T.81 takes 128 from a sample, [-1, 1] takes 127.5: 8 (0.5 / 127.5)."""

COLOURS = {
    "ycbcr": (
        (0.299, 0.587, 0.114),
        (-0.299 / 1.772, -0.587 / 1.772, 0.886 / 1.772),
        (0.701 / 1.402, -0.587 / 1.402, -0.114 / 1.402),
    ),
    "rgb": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "grey": ((1.0,),),
}
"""What components a file makes of R, G, B: Y, Cb, Cr of JFIF (ITU-T T.871, 7), the channels, or one grey value."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a file holds its picture.

    size: (height, width) px; colours: of COLOURS; factors: (vertical, horizontal) sampling of each component. steps:
    (components, 8, 8), float64, the quantization step of each coefficient in grey levels, rows by vertical frequency.
    """

    size: tuple[int, int]
    colours: str
    factors: tuple[tuple[int, int], ...]
    steps: Tensor

    def describe(self) -> str:
        """Says how the picture is held: JPEG 4:2:0, as the field writes it."""
        if self.colours != "ycbcr":
            return f"JPEG in {'grey' if self.colours == 'grey' else 'RGB'}"
        (v, h), (v_chroma, h_chroma) = self.factors[0], self.factors[1]
        forms = {(1, 1): "4:4:4", (1, 2): "4:2:2", (2, 2): "4:2:0", (2, 1): "4:4:0", (1, 4): "4:1:1"}
        shares = v // v_chroma, h // h_chroma
        return f"JPEG {forms.get(shares, f'chroma 1 of {shares[1]} x {shares[0]}')}"

    @property
    def shift(self) -> Tensor:
        """(n,): what is added to the coefficients of a unit, so that they measure x on [-1, 1] without an offset."""
        constant = torch.zeros_like(self.steps)
        for component, weights in enumerate(COLOURS[self.colours]):
            constant[component, 0, 0] = LEVEL_SHIFT * round(sum(weights))  # chroma has no offset
        return self.in_unit(constant)

    def in_unit(self, values: Tensor) -> Tensor:
        """Returns (n,): the values (components, 8, 8) for every coefficient of a unit."""
        parts = zip(values, self.factors, strict=True)
        return torch.cat([part.reshape(-1).repeat(v * h) for part, (v, h) in parts])

    def in_units(self, planes: Sequence[Tensor]) -> Tensor:
        """Returns (n, rows, columns), as `Jpeg` has them, of each component's (block rows, block columns, 8, 8)."""
        rows, columns = self.grid
        parts = []
        for plane, (v, h) in zip(planes, self.factors, strict=True):
            blocks = plane.reshape(rows, v, columns, h, BLOCK, BLOCK)
            parts.append(blocks.permute(1, 3, 4, 5, 0, 2).reshape(-1, rows, columns))
        return torch.cat(parts)

    @property
    def unit(self) -> tuple[int, int]:
        """(height, width) px of a minimum coded unit."""
        return BLOCK * max(v for v, _ in self.factors), BLOCK * max(h for _, h in self.factors)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of units."""
        return -(-self.size[0] // self.unit[0]), -(-self.size[1] // self.unit[1])


def dct_matrix() -> Tensor:
    """Returns the orthonormal DCT-II of 8 samples, (8, 8), float64: T.81, A.3.3, along one axis."""
    k, n = torch.arange(BLOCK, dtype=torch.float64)[:, None], torch.arange(BLOCK, dtype=torch.float64)[None]
    D = torch.cos(math.pi * (2 * n + 1) * k / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    D[0] /= math.sqrt(2.0)
    return D


def unit_matrix(layout: Layout) -> Tensor:
    """Returns (coefficients, samples) of one unit, float64: what the coefficients measure of x on [-1, 1].

    Columns in the order of (C, height, width); rows component by component, its blocks row by row, its coefficients row
    by row.
    """
    height, width = layout.unit
    D = dct_matrix()
    parts = []
    for (v, h), weights in zip(layout.factors, COLOURS[layout.colours], strict=True):
        down, across = (_block_dct(D, side, n) for side, n in ((height, BLOCK * v), (width, BLOCK * h)))
        plane = torch.einsum("aiy,bjx->abijyx", down, across).reshape(v * h * BLOCK**2, height * width)
        parts.append(torch.cat([weight * plane for weight in weights], dim=1))
    return torch.cat(parts)


def _block_dct(D: Tensor, side: int, samples: int) -> Tensor:
    """Returns (blocks, 8, side): means of side / samples px, then the DCT of each block, along one axis."""
    average = torch.eye(samples, dtype=D.dtype).repeat_interleave(side // samples, dim=1) * (samples / side)
    return torch.einsum("ki,bis->bks", D, average.reshape(-1, BLOCK, side))


class Jpeg(SpectralOperator):
    """The coefficients of a file, each with a weight.

    x: (C, H, W), whole units, of which `frame` is the picture; C = 3, or 1 for a file of one component. y: (n, rows,
    columns), n coefficients in each unit in the order of `unit_matrix`. weights: (n,), positive.
    """

    def __init__(self, layout: Layout, weights: Tensor, *, dtype: torch.dtype, device: torch.device | str) -> None:
        (height, width), (rows, columns) = layout.unit, layout.grid
        in_shape = len(layout.factors), height * rows, width * columns
        super().__init__(in_shape, (len(weights), rows, columns), dtype, device)
        self.layout, self.weights = layout, weights
        self.frame = (0, 0, layout.size[1], layout.size[0])
        self._matrix = weights.double()[:, None] * unit_matrix(layout)

    @cached_property
    def _svd(self) -> MatrixSVD:
        svd = matrix_svd(self._matrix)
        return MatrixSVD(*(t.to(self.device, self.dtype) for t in svd))

    @cached_property
    def singulars(self) -> Tensor:  # type: ignore[override]
        """Those of a unit, for each unit."""
        return self._svd.s[:, None, None].expand(self.out_shape)

    def units(self, x: Tensor) -> Tensor:
        """Returns (B, samples of a unit, rows, columns). x: (B, *in_shape)."""
        (height, width), (rows, columns) = self.layout.unit, self.layout.grid
        parts = x.reshape(len(x), self.in_shape[0], rows, height, columns, width)
        return parts.permute(0, 1, 3, 5, 2, 4).reshape(len(x), -1, rows, columns)

    def whole(self, units: Tensor) -> Tensor:
        """Returns the picture of its units, the transpose of `units`."""
        (height, width), (rows, columns) = self.layout.unit, self.layout.grid
        parts = units.reshape(len(units), self.in_shape[0], height, width, rows, columns)
        return parts.permute(0, 1, 4, 2, 5, 3).reshape(len(units), *self.in_shape)

    def Vt(self, x: Tensor) -> Tensor:
        """Returns V^T of each unit."""
        return _times(self._svd.V.T, self.units(x))

    def V(self, c: Tensor) -> Tensor:
        """Returns V of each unit's coefficients."""
        return self.whole(_times(self._svd.V, c))

    def Ut(self, y: Tensor) -> Tensor:
        """Returns U^T of each unit."""
        return _times(self._svd.U.T, y)

    def U(self, c: Tensor) -> Tensor:
        """Returns U of each unit."""
        return _times(self._svd.U, c)

    def to_image(self, y: Tensor) -> Tensor:
        """Returns the decoded picture, chroma repeated: the least-squares picture of least norm."""
        return self.picture(self.pinv(y))

    def from_image(self, image: Tensor) -> Tensor:
        """Raises InputError: decoding has clipped and rounded what the file holds."""
        raise InputError("a decoded picture does not hold the coefficients of its file; name the .jpg itself")


def _times(matrix: Tensor, units: Tensor) -> Tensor:
    return torch.einsum("ij,bjrc->birc", matrix, units)


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """What a file holds, in whole units.

    planes: of each component (block rows, block columns, 8, 8), in grey levels.
    """

    layout: Layout
    planes: Sequence[Tensor]

    @property
    def sigmas(self) -> Tensor:
        """(n,): of the coefficients of a unit, what they are taken to be off by, on [-1, 1]."""
        found = torch.stack([*map(rounding_sigma, self.planes, self.layout.steps)])
        return TIGHTER * self.layout.in_unit(found)

    def measurement(self, *, dtype: torch.dtype, device: torch.device | str) -> Measurement:
        """Returns y = w (coefficients), its operator, and the s of all: 1 / s^2 = mean of 1 / sigma^2."""
        sigmas = self.sigmas
        common = float((1.0 / sigmas**2).mean()) ** -0.5
        weights = common / sigmas
        y = self.layout.in_units(self.planes) / HALF_WHITE + self.layout.shift[:, None, None]
        op = Jpeg(self.layout, weights, dtype=dtype, device=device)
        return Measurement((weights[:, None, None] * y)[None].to(device, dtype), op, common)


def rounding_sigma(plane: Tensor, steps: Tensor) -> Tensor:
    """Returns the standard deviation of what rounding took from each coefficient, (8, 8), on [-1, 1].

    plane: (.., 8, 8), multiples of steps (8, 8), in grey levels. A coefficient is taken for Laplacian (Lam & Goodman
    2000), of the scale b at which as many are rounded to 0 as there are: 1 - exp(-step / 2 b). Uniform within a step,
    it would have step^2 / 12; of those that became 0, the many of a coarse table, it has less. The constant coefficient
    is uniform. 1 / 12 is added: the encoder rounds Y, Cb and Cr to whole grey levels first.
    """
    blocks = plane.reshape(-1, BLOCK, BLOCK)
    zeros = (blocks == 0).double().mean(0).clamp(MIN_ZEROS, 1.0 - 0.5 / len(blocks))
    t = -2.0 * torch.log1p(-zeros)  # step / b
    b, e = steps / t, torch.exp(-t)
    half = torch.exp(-t / 2)
    of_zeros = 2.0 * b**2 - (steps**2 / 4 + b * steps) * half / (1.0 - half)
    off_centre = b - steps * e / (1.0 - e) - steps / 2.0
    of_others = b**2 - steps**2 * e / (1.0 - e) ** 2 + off_centre**2
    variance = zeros * of_zeros + (1.0 - zeros) * of_others
    variance[0, 0] = steps[0, 0] ** 2 / 12.0
    return (variance + 1.0 / 12.0).sqrt() / HALF_WHITE
