"""Convolution with any two-dimensional kernel: periodic (closed form by FFT) or with zeros beyond the edges."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from dmps_cli.linalg import fast_fft_length, kernel_spectrum
from dmps_cli.operators.base import PINV_RCOND, Correction, LinearOperator, Shape

CORRECTION_RCOND = 0.02
"""`ZeroConvolution.correction` damps singular values below this share of the largest instead of resolving them."""


class Convolution(LinearOperator):
    """y = k * x for each channel, y[i] = sum over d of k[d] x[i - d], of the size of x; k's centre is (kh//2, kw//2).

    in_shape: (C, H, W); kernel: (kh, kw), float64. The product of spectra is taken on a periodic grid; where that is
    larger than the picture, x is padded with zeros and the result is cropped.
    """

    def __init__(
        self,
        in_shape: Shape,
        kernel: Tensor,
        grid: tuple[int, int],
        *,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        super().__init__(in_shape, in_shape, dtype, device)
        self.grid = grid
        self.spectrum = kernel_spectrum(kernel, grid).to(device, dtype.to_complex())

    def _forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft2(x, s=self.grid)

    def _back(self, spectrum: Tensor) -> Tensor:
        _, H, W = self.in_shape
        return torch.fft.irfft2(spectrum, s=self.grid)[..., :H, :W]

    def A(self, x: Tensor) -> Tensor:
        """F^-1 (k^ F x)."""
        return self._back(self.spectrum * self._forward(x))

    def At(self, y: Tensor) -> Tensor:
        """F^-1 (conj(k^) F y)."""
        return self._back(self.spectrum.conj() * self._forward(y))


class CircularConvolution(Convolution):
    """Periodic convolution: the Fourier transform diagonalises it, and every solve is a division."""

    def __init__(self, in_shape: Shape, kernel: Tensor, *, dtype: torch.dtype, device: torch.device | str) -> None:
        _, H, W = in_shape
        super().__init__(in_shape, kernel, (H, W), dtype=dtype, device=device)
        self.power = self.spectrum.real**2 + self.spectrum.imag**2

    @cached_property
    def norm(self) -> float:
        """The largest |k^|."""
        return float(self.power.max()) ** 0.5

    def _weight(self, noise_var: float, scale: float) -> Tensor:
        """1 / (noise_var + scale |k^|^2); at noise_var = 0, frequencies below PINV_RCOND give 0."""
        weight = 1.0 / (noise_var + scale * self.power)
        if noise_var == 0.0:
            weight = torch.where(self.power > (PINV_RCOND * self.norm) ** 2, weight, 0.0)
        return weight

    def solve(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """F^-1 (F r / (noise_var + scale |k^|^2))."""
        return self._back(self._weight(noise_var, scale) * self._forward(r))

    def pinv(self, y: Tensor) -> Tensor:
        """F^-1 (conj(k^) F y / |k^|^2), frequencies below PINV_RCOND norm cut."""
        return self._back(self._weight(0.0, 1.0) * self.spectrum.conj() * self._forward(y))

    def correction(self, y: Tensor) -> Correction:
        """F^-1 (conj(k^) (F y - k^ F x) / (noise_var + scale |k^|^2)), with F y computed once."""
        transformed = self._forward(y)

        def residual_to_image(x: Tensor, noise_var: float, scale: float) -> Tensor:
            residual = transformed - self.spectrum * self._forward(x)
            return self._back(self._weight(noise_var, scale) * self.spectrum.conj() * residual)

        return residual_to_image


class ZeroConvolution(Convolution):
    """Convolution with zeros beyond the edges. No closed form: solves are by conjugate gradients."""

    def __init__(self, in_shape: Shape, kernel: Tensor, *, dtype: torch.dtype, device: torch.device | str) -> None:
        _, H, W = in_shape
        kh, kw = kernel.shape
        # kh // 2 zeros, shared by the top and the bottom edge, keep them apart on the periodic grid
        grid = (fast_fft_length(H + kh // 2), fast_fft_length(W + kw // 2))
        super().__init__(in_shape, kernel, grid, dtype=dtype, device=device)

    def correction(self, y: Tensor) -> Correction:
        """A^T (noise_var' I + scale A A^T)^-1 (y - A x), noise_var' = max(noise_var, scale (CORRECTION_RCOND norm)^2).

        At the noisiest levels scale / noise_var reaches 1e9, where conjugate gradients would not end in a thousand
        iterations. There, singular values too small to matter yet are damped; `solve` itself takes noise_var as it is.
        """
        exact = super().correction(y)

        def residual_to_image(x: Tensor, noise_var: float, scale: float) -> Tensor:
            return exact(x, max(noise_var, scale * (CORRECTION_RCOND * self.norm) ** 2), scale)

        return residual_to_image


def motion_kernel(length: float, angle: float) -> Tensor:
    """A straight line of `length` pixels, sum 1, centred, anti-aliased: max(0, 1 - distance from the line's axis).

    The axis is length - 1 pixels long, so that an odd length along an axis is as many equal taps. angle: degrees
    counter-clockwise from the horizontal, as seen. Result: (k, k), k odd, float64. length >= 1.
    """
    half, radians = (length - 1.0) / 2.0, math.radians(angle)
    reach = math.ceil(half) + 1
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    x, y = offsets[None, :], -offsets[:, None]  # rows run downwards, y upwards
    along = (x * math.cos(radians) + y * math.sin(radians)).clamp(-half, half)
    distance = torch.hypot(x - along * math.cos(radians), y - along * math.sin(radians))
    kernel = (1.0 - distance).clamp(min=0.0)
    return kernel / kernel.sum()
