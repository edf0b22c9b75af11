"""Plain subsampling: every n-th pixel, alone and after a convolution of a periodic picture."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from dmps_cli.errors import InputError
from dmps_cli.operators.base import PINV_RCOND, LinearOperator, Modes, Shape
from dmps_cli.operators.circular import CircularConvolution
from dmps_cli.operators.pointwise import FlatOperator


class Decimation(FlatOperator):
    """y = x[.., ::scale, ::scale], nothing averaged before. in_shape: (C, H, W), H and W multiples of the scale.

    Raises InputError for another size.
    """

    is_selection = True

    def __init__(self, in_shape: Shape, scale: int, *, dtype: torch.dtype, device: torch.device | str) -> None:
        channels, H, W = in_shape
        if H % scale or W % scale:
            raise InputError(f"the picture is {W} x {H} px, not a multiple of the scale {scale}; crop it first")
        super().__init__(in_shape, (channels, H // scale, W // scale), 1.0, dtype, device)
        self.scale = scale

    def Vt(self, x: Tensor) -> Tensor:
        """Returns the kept pixels, (B, C, H / scale, W / scale)."""
        return x[..., :: self.scale, :: self.scale].contiguous()

    def V(self, c: Tensor) -> Tensor:
        """Returns the picture with zeros between them."""
        n = self.scale
        return pad(c[..., :, None, :, None], (0, n - 1, 0, 0, 0, n - 1)).reshape(-1, *self.in_shape)


class DecimatedConvolution(LinearOperator):
    """y = (k * x)[.., ::scale, ::scale] per channel, the picture periodic: Fourier modes of the small picture.

    A A^T is D F^-1 |K|^2 F D^T, a convolution of the small periodic picture with every scale-th value of k's
    autocorrelation c: with P the small spectrum of c[::scale, ::scale], A A^T = F_s^-1 P F_s (what the large spectrum's
    aliases add up to; Zhao et al. 2016, FSR). s = sqrt(P), U^T = F_s, V^T = F_s A / s.
    """

    def __init__(self, blur: CircularConvolution, scale: int) -> None:
        super().__init__(blur.in_shape, blur.in_shape, blur.dtype, blur.device)
        self.blur = blur
        self.decimation = Decimation(blur.out_shape, scale, dtype=blur.dtype, device=blur.device)
        self.out_shape = self.decimation.out_shape
        exact = blur.exact_spectrum.abs() ** 2
        correlation = torch.fft.irfft2(exact, s=blur.grid)[::scale, ::scale]
        self.power = torch.fft.rfft2(correlation).real.clamp_min(0.0).to(blur.device, blur.dtype)

    @cached_property
    def norm(self) -> float:
        """The root of the largest P."""
        return math.sqrt(float(self.power.max()))

    @property
    def modes(self) -> Modes:
        """Fourier modes of the small picture, half of each as `rfft2` has it."""
        s = self.power.sqrt()
        inverse = torch.where(s > PINV_RCOND * self.norm, 1.0 / s, 0.0)
        return Modes(
            singulars=s,
            Vt=lambda x: inverse * torch.fft.rfft2(self.A(x)),
            V=lambda c: self.At(self._back(inverse * c)),
            Ut=torch.fft.rfft2,
        )

    def _back(self, spectrum: Tensor) -> Tensor:
        image: Tensor = torch.fft.irfft2(spectrum, s=self.out_shape[1:])
        return image

    def A(self, x: Tensor) -> Tensor:
        """Returns every scale-th pixel of k * x."""
        return self.decimation.A(self.blur.A(x))

    def At(self, y: Tensor) -> Tensor:
        """Returns the correlation with k of y, zeros between its pixels."""
        return self.blur.At(self.decimation.At(y))

    def gram(self, r: Tensor) -> Tensor:
        """Returns F_s^-1 P F_s r."""
        return self._back(self.power * torch.fft.rfft2(r))

    def solve(self, r: Tensor, noise_var: float, scale: float) -> Tensor:
        """Returns F_s^-1 (noise_var + scale P)^-1 F_s r; at noise_var = 0, modes below PINV_RCOND norm give 0."""
        weight = 1.0 / (noise_var + scale * self.power)
        if noise_var == 0.0:
            weight = torch.where(self.power > (PINV_RCOND * self.norm) ** 2, weight, 0.0)
        return self._back(weight * torch.fft.rfft2(r))

    def pinv(self, y: Tensor) -> Tensor:
        """Returns A^T F_s^-1 P^+ F_s y."""
        return self.At(self.solve(y, 0.0, 1.0))
