"""Convolution with any 2-D kernel on a periodic picture, where the FFT diagonalises it."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from dmps_cli.linalg import kernel_spectrum
from dmps_cli.operators.base import PINV_RCOND, Correction, LinearOperator, Modes, Shape


class CircularConvolution(LinearOperator):
    """y = k * x per channel, the picture periodic: A = F^-1 diag(K) F, K the kernel's spectrum.

    kernel: (kh, kw), its centre (kh // 2, kw // 2); in_shape: (C, H, W).
    """

    def __init__(self, in_shape: Shape, kernel: Tensor, *, dtype: torch.dtype, device: torch.device | str) -> None:
        super().__init__(in_shape, in_shape, dtype, device)
        self.grid = (in_shape[1], in_shape[2])
        self.kernel = kernel.double()
        spectrum = self.exact_spectrum
        self.spectrum = spectrum.to(device, torch.complex128 if dtype == torch.float64 else torch.complex64)
        self.power = (spectrum.abs() ** 2).to(device, dtype)

    @property
    def exact_spectrum(self) -> Tensor:
        """K in complex128, where the kernel lies."""
        return kernel_spectrum(self.kernel, self.grid)

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
        """Returns F^-1 K F x."""
        return self._filtered(x, self.spectrum)

    def At(self, y: Tensor) -> Tensor:
        """Returns F^-1 conj(K) F y."""
        return self._filtered(y, self.spectrum.conj())

    def _inverse(self, noise_var: float, scale: float) -> Tensor:
        """Returns 1 / (noise_var + scale |K|^2); at noise_var = 0, frequencies below PINV_RCOND norm give 0."""
        inverse = 1.0 / (noise_var + scale * self.power)
        if noise_var == 0.0:
            inverse = torch.where(self.power > (PINV_RCOND * self.norm) ** 2, inverse, 0.0)
        return inverse

    def solve(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """Returns F^-1 (noise_var + scale |K|^2)^-1 F r."""
        return self._filtered(r, self._inverse(noise_var, scale))

    def pinv(self, y: Tensor) -> Tensor:
        """Returns F^-1 conj(K) / |K|^2 F y, frequencies below PINV_RCOND norm cut."""
        return self._filtered(y, self.spectrum.conj() * self._inverse(0.0, 1.0))

    def correction(self, y: Tensor) -> Correction:
        """Returns F^-1 (noise_var + scale |K|^2)^-1 (conj(K) F y - |K|^2 F x), with conj(K) F y computed once."""
        target = self.spectrum.conj() * torch.fft.rfft2(y)

        def residual_to_image(x: Tensor, noise_var: float, scale: float) -> Tensor:
            residual = target - self.power * torch.fft.rfft2(x)
            return self._back(residual * self._inverse(noise_var, scale))

        return residual_to_image
