"""Single-coil magnetic resonance: some rows of the Fourier transform of a picture, as real and imaginary parts."""

from __future__ import annotations

import torch
from torch import Tensor

SHARE, CENTRE = 0.3, 0.08
"""Of the rows, those that are measured; of these the lowest frequencies, all of which are."""


def measured_rows(height: int) -> Tensor:
    """Returns the rows of the transform that are measured: the lowest, and others at random, always the same."""
    order = torch.randperm(height, generator=torch.Generator().manual_seed(0))
    frequency = torch.fft.fftfreq(height).abs()
    lowest = frequency.argsort()[: round(CENTRE * height)]
    others = order[~torch.isin(order, lowest)][: round(SHARE * height) - len(lowest)]
    return torch.cat([lowest, others]).sort().values


def scan(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> tuple:  # type: ignore[type-arg]
    """Returns (A, At), x (B, 1, H, W) to (B, 1, rows, W, 2) and back; the transform is orthonormal: At inverts it."""
    rows = measured_rows(shape[1]).to(device)

    def A(x: Tensor) -> Tensor:
        return torch.view_as_real(torch.fft.fft2(x, norm="ortho")[:, :, rows])

    def At(y: Tensor) -> Tensor:
        coefficients = torch.view_as_complex(y.contiguous())
        whole = coefficients.new_zeros(len(y), *shape).index_copy(2, rows, coefficients)
        return torch.fft.ifft2(whole, norm="ortho").real

    return A, At
