"""Blur: the true convolution of a picture with a kernel, and what lies beyond the picture's border.

y[i] = sum over q of kernel[q] x[i + centre - q], centre = (kh // 2, kw // 2). The boundary says what x is outside:
`zero`, `reflect` (half-sample: the edge pixel twice), `replicate` (the edge pixel on and on), `circular`, or `valid`:
nothing is assumed, and x is the scene as far as y depends on it, a canvas (H + kh - 1) x (W + kw - 1) around the
picture (H, W), which begins at ((kh - 1) // 2, (kw - 1) // 2) of it.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from dmps_cli.linalg import fast_length, kernel_spectrum, largest_eigenvalue
from dmps_cli.operators.base import LinearOperator, Shape
from dmps_cli.operators.circular import CircularConvolution
from dmps_cli.operators.kernels import Kernel
from dmps_cli.operators.separable import Boundary, border_columns, separable_blur

Border = Literal["zero", "reflect", "replicate"]
POWER_FLOOR = 1e-6
"""The preconditioner takes |K|^2 for at least this share of its largest value, so that it stays definite."""


def convolution(
    in_shape: Shape,
    kernel: Kernel,
    boundary: Boundary,
    *,
    svd_cutoff: float = 0.0,
    dtype: torch.dtype,
    device: torch.device | str,
) -> LinearOperator:
    """Builds the blur of x, (C, H, W), in the form that its kernel and boundary allow.

    Separable kernels have the modes of their two factors, any kernel on a periodic picture those of Fourier; the
    others are solved by iteration. Raises InputError for a scene that is smaller than the kernel (`valid`), ValueError
    for a cutoff where there are no factors.
    """
    if boundary == "valid":
        kernel.check_fits(in_shape[1:])
    if kernel.factors is not None and (boundary != "circular" or svd_cutoff > 0.0):
        return separable_blur(
            in_shape, *kernel.factors, boundary=boundary, svd_cutoff=svd_cutoff, dtype=dtype, device=device
        )
    if svd_cutoff > 0.0:
        raise ValueError(f"svd_cutoff is {svd_cutoff}, and the kernel has no 1-D factors")
    if boundary == "circular":
        return CircularConvolution(in_shape, kernel.values, dtype=dtype, device=device)
    if boundary == "valid":
        return ValidConvolution(in_shape, kernel.values, dtype=dtype, device=device)
    return BorderedConvolution(in_shape, kernel.values, boundary, dtype=dtype, device=device)


def _norm_of_channel(op: LinearOperator) -> float:
    """Returns the norm of an operator that does the same to every channel, and takes one alone."""
    start = 1.0 + torch.rand((1, 1, *op.out_shape[1:]), generator=torch.Generator().manual_seed(0))
    rtol = 1e-9 if op.dtype == torch.float64 else 1e-6
    return math.sqrt(largest_eigenvalue(op.gram, start.to(op.device, op.dtype), rtol=rtol))


class ValidConvolution(LinearOperator):
    """y = the part of k * x that depends on x alone, per channel, by FFT on a periodic grid that is large enough.

    in_shape: (C, H + kh - 1, W + kw - 1), the canvas; out_shape: (C, H, W). What wraps around on the grid is not in y.
    A A^T is crop F^-1 |K|^2 F pad: A^T y has no room to wrap, so that nothing is cut between the two.
    """

    def __init__(self, in_shape: Shape, kernel: Tensor, *, dtype: torch.dtype, device: torch.device | str) -> None:
        (channels, H, W), (kh, kw) = in_shape, kernel.shape
        super().__init__(in_shape, (channels, H - kh + 1, W - kw + 1), dtype, device)
        self.frame = ((kw - 1) // 2, (kh - 1) // 2, W - kw + 1, H - kh + 1)
        self.grid = (fast_length(H), fast_length(W))
        spectrum = kernel_spectrum(kernel.double(), self.grid, (kh - 1, kw - 1))
        self.spectrum = spectrum.to(device, torch.complex128 if dtype == torch.float64 else torch.complex64)
        self.power = (spectrum.abs() ** 2).to(device, dtype)

    def _filtered(self, image: Tensor, factor: Tensor, shape: Shape) -> Tensor:
        """Returns F^-1 factor F of an image filled up with zeros to the grid, its first rows and columns."""
        filtered: Tensor = torch.fft.irfft2(factor * torch.fft.rfft2(image, s=self.grid), s=self.grid)
        return filtered[..., : shape[1], : shape[2]]

    @cached_property
    def norm(self) -> float:
        """The largest singular value of A."""
        return _norm_of_channel(self)

    def A(self, x: Tensor) -> Tensor:
        """Returns crop F^-1 K F x."""
        return self._filtered(x, self.spectrum, self.out_shape)

    def At(self, y: Tensor) -> Tensor:
        """Returns F^-1 conj(K) F pad y."""
        return self._filtered(y, self.spectrum.conj(), self.in_shape)

    def gram(self, r: Tensor) -> Tensor:
        """Returns crop F^-1 |K|^2 F pad r."""
        return self._filtered(r, self.power, self.out_shape)

    def precondition(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """Returns crop F^-1 (noise_var + scale |K|^2)^-1 F pad r: the inverse on the grid, as if y were all of it."""
        power = self.power.clamp_min(POWER_FLOOR * float(self.power.max()))
        return self._filtered(r, 1.0 / (noise_var + scale * power), self.out_shape)


class BorderedConvolution(LinearOperator):
    """y = A_valid E x: E lays zeros, or the picture folded outwards, around x up to the canvas of A_valid.

    in_shape = out_shape = (C, H, W).
    """

    def __init__(
        self, in_shape: Shape, kernel: Tensor, border: Border, *, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        super().__init__(in_shape, in_shape, dtype, device)
        (channels, H, W), (kh, kw) = in_shape, kernel.shape
        self.inner = ValidConvolution((channels, H + kh - 1, W + kw - 1), kernel, dtype=dtype, device=device)
        self.rows, self.cols = (_Margin(n, length, border, dtype, device) for n, length in ((H, kh), (W, kw)))

    def _extended(self, x: Tensor) -> Tensor:
        """Returns E x, the canvas."""
        return self.rows.extended(self.cols.extended(x.mT).mT)

    def _folded(self, canvas: Tensor) -> Tensor:
        """Returns E^T of a canvas."""
        return self.cols.folded(self.rows.folded(canvas).mT).mT

    @cached_property
    def norm(self) -> float:
        """The largest singular value of A."""
        return _norm_of_channel(self)

    def A(self, x: Tensor) -> Tensor:
        """Returns A_valid E x."""
        return self.inner.A(self._extended(x))

    def At(self, y: Tensor) -> Tensor:
        """Returns E^T A_valid^T y."""
        return self._folded(self.inner.At(y))

    def precondition(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """Returns that of the valid convolution: they differ near the border alone."""
        return self.inner.precondition(r, noise_var, scale)


class _Margin:
    """E along the rows: `extended` fills (.., n, w) up to (.., n + length - 1, w), `folded` is its transpose.

    Each row of the margin is a row of the picture or zero. A product with a small matrix adds them back in a fixed
    order, on every device.
    """

    def __init__(self, n: int, length: int, border: Border, dtype: torch.dtype, device: torch.device | str) -> None:
        self.n, self.before = n, (length - 1) // 2
        self.after = length - 1 - self.before
        self.source: Tensor | None = None
        if border != "zero":
            beyond = torch.cat([torch.arange(-self.before, 0), torch.arange(n, n + self.after)])
            chosen = torch.zeros(len(beyond), n, dtype=torch.float64)
            chosen[torch.arange(len(beyond)), border_columns(beyond, n, border)] = 1.0
            self.source = chosen.to(device, dtype)

    def extended(self, x: Tensor) -> Tensor:
        """Returns (.., n + length - 1, w)."""
        if self.source is None:
            return pad(x, (0, 0, self.before, self.after))
        margin = self.source @ x
        return torch.cat([margin[..., : self.before, :], x, margin[..., self.before :, :]], dim=-2)

    def folded(self, canvas: Tensor) -> Tensor:
        """Returns (.., n, w)."""
        end = self.before + self.n
        picture = canvas[..., self.before : end, :]
        if self.source is None:
            return picture
        margin = torch.cat([canvas[..., : self.before, :], canvas[..., end:, :]], dim=-2)
        return picture + self.source.T @ margin
