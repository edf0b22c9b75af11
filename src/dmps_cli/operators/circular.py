"""Convolution with any 2-D kernel on a periodic picture, where the FFT diagonalises it."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from dmps_cli.linalg import kernel_spectrum
from dmps_cli.operators.base import PINV_RCOND, Correction, LinearOperator, Modes, Shape


def line_kernel(length: float, angle: float) -> Tensor:
    """(n, n), float64, n odd, summing to 1: the path of a point that moves `length` px in direction `angle`.

    angle: degrees, counter-clockwise from horizontal. Anti-aliased: the path is sampled finely, each sample shared
    bilinearly among its four pixels.
    """
    half = (length - 1.0) / 2.0
    reach = math.ceil(half) + 1
    steps = torch.linspace(-half, half, max(2, 64 * math.ceil(length)) + 1, dtype=torch.float64)
    x, y = steps * math.cos(math.radians(angle)), -steps * math.sin(math.radians(angle))  # rows count downwards
    kernel = torch.zeros(2 * reach + 1, 2 * reach + 1, dtype=torch.float64)
    for row in (0, 1):
        for col in (0, 1):
            share = (1.0 - (y - y.floor() - row).abs()) * (1.0 - (x - x.floor() - col).abs())
            index = (y.floor().long() + row + reach, x.floor().long() + col + reach)
            kernel.index_put_(index, share, accumulate=True)
    return kernel / kernel.sum()


class CircularConvolution(LinearOperator):
    """y = k * x per channel, the picture periodic: A = F^-1 diag(K) F, K the kernel's spectrum.

    kernel: (kh, kw), its centre (kh // 2, kw // 2); in_shape: (C, H, W).
    """

    def __init__(self, in_shape: Shape, kernel: Tensor, *, dtype: torch.dtype, device: torch.device | str) -> None:
        super().__init__(in_shape, in_shape, dtype, device)
        self.grid = (in_shape[1], in_shape[2])
        spectrum = kernel_spectrum(kernel.double(), self.grid)
        self.spectrum = spectrum.to(device, torch.complex128 if dtype == torch.float64 else torch.complex64)
        self.power = (spectrum.abs() ** 2).to(device, dtype)

    @property
    def modes(self) -> Modes:
        """Fourier modes: s = |K|, V^T = F, U^T = conj(K) / |K| F, half of each as `rfft2` has it."""
        phase = torch.sgn(self.spectrum).conj()
        return Modes(
            singulars=self.power.sqrt(), Vt=torch.fft.rfft2, V=self._back, Ut=lambda y: phase * torch.fft.rfft2(y)
        )

    def _filtered(self, x: Tensor, factor: Tensor) -> Tensor:
        return self._back(factor * torch.fft.rfft2(x))

    def _back(self, spectrum: Tensor) -> Tensor:
        image: Tensor = torch.fft.irfft2(spectrum, s=self.grid)
        return image

    @cached_property
    def norm(self) -> float:
        """The largest |K|."""
        return math.sqrt(float(self.power.max()))

    def A(self, x: Tensor) -> Tensor:
        """F^-1 K F x."""
        return self._filtered(x, self.spectrum)

    def At(self, y: Tensor) -> Tensor:
        """F^-1 conj(K) F y."""
        return self._filtered(y, self.spectrum.conj())

    def _inverse(self, noise_var: float, scale: float) -> Tensor:
        """1 / (noise_var + scale |K|^2); at noise_var = 0, frequencies below PINV_RCOND norm give 0."""
        inverse = 1.0 / (noise_var + scale * self.power)
        if noise_var == 0.0:
            inverse = torch.where(self.power > (PINV_RCOND * self.norm) ** 2, inverse, 0.0)
        return inverse

    def solve(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """F^-1 (noise_var + scale |K|^2)^-1 F r."""
        return self._filtered(r, self._inverse(noise_var, scale))

    def pinv(self, y: Tensor) -> Tensor:
        """F^-1 conj(K) / |K|^2 F y, frequencies below PINV_RCOND norm cut."""
        return self._filtered(y, self.spectrum.conj() * self._inverse(0.0, 1.0))

    def correction(self, y: Tensor) -> Correction:
        """F^-1 (noise_var + scale |K|^2)^-1 (conj(K) F y - |K|^2 F x), with conj(K) F y computed once."""
        target = self.spectrum.conj() * torch.fft.rfft2(y)

        def residual_to_image(x: Tensor, noise_var: float, scale: float) -> Tensor:
            residual = target - self.power * torch.fft.rfft2(x)
            return self._back(residual * self._inverse(noise_var, scale))

        return residual_to_image
