"""PSNR, SSIM and LPIPS of restored pictures, one number per image; METRICS is the table of them.

Pictures are float32 (B, C, H, W) on [-1, 1], C = 1 or 3, and are clipped to that range before anything is measured. An
image is scored alone, whatever batch it comes in, so that it gets the same bits in any company.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dmps_cli.metrics.lpips import LPIPS_NETS, lpips

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Value = Callable[[Tensor, Tensor], float]


SSIM_WINDOW, SSIM_STD = 11, 1.5  # px
PSNR_CEILING = 80.0  # dB; piq adds 1e-8 to the mean squared error


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A row of METRICS: build(lpips_net, device) gives value(x, reference) of one image (1, C, H, W) each.

    build loads what the metric needs and may raise WeightsError. min_px(lpips_net): the least side of a picture that
    has a value. about: how it is measured, for the line under a table.
    """

    label: str
    unit: str
    digits: int
    higher_is_better: bool
    about: str
    min_px: Callable[[str], int]
    build: Callable[[str, torch.device], Value]

    def text(self, value: float) -> str:
        """Returns the value as tables show it."""
        return f"{value:.{self.digits}f}"


def psnr(x: Tensor, reference: Tensor) -> float:
    """Returns -10 log10(mean((x - reference)^2) + 1e-8) in dB, pictures mapped to [0, 1].

    x, reference: (1, C, H, W) on [-1, 1]. piq's 1e-8 makes 80 dB of identical pictures, so no value is infinite; it
    costs 0.0004 dB at 40 dB, 0.004 dB at 50 dB and 0.04 dB at 60 dB.
    """
    import piq

    return float(piq.psnr(_unit_range(x), _unit_range(reference), data_range=1.0, reduction="none"))


def ssim(x: Tensor, reference: Tensor) -> float:
    """Returns the SSIM (Wang et al. 2004), Gaussian window 11 px, std 1.5 px, K1 = 0.01, K2 = 0.03, L = 1.

    Mean over the places where the window lies inside, then over channels, at full size: piq would by default halve a
    picture from 385 px on. x, reference: (1, C, H, W) on [-1, 1], at least 11 px.
    """
    import piq

    values = piq.ssim(
        _unit_range(x),
        _unit_range(reference),
        kernel_size=SSIM_WINDOW,
        kernel_sigma=SSIM_STD,
        data_range=1.0,
        downsample=False,
        reduction="none",
    )
    return float(values)


def _unit_range(x: Tensor) -> Tensor:
    # float64: on smooth bright pictures E[x^2] - E[x]^2 in float32 costs SSIM 2e-6. On the CPU: MPS has no float64.
    return ((x.cpu().double() + 1) / 2).clamp(0, 1)


METRICS = {
    "psnr": Metric(
        label="PSNR",
        unit="dB",
        digits=2,
        higher_is_better=True,
        about=f"PSNR in dB (at most {PSNR_CEILING:g})",
        min_px=lambda lpips_net: 1,
        build=lambda lpips_net, device: psnr,
    ),
    "ssim": Metric(
        label="SSIM",
        unit="",
        digits=4,
        higher_is_better=True,
        about=f"SSIM with Gaussian window {SSIM_WINDOW}, std {SSIM_STD}, at full size",
        min_px=lambda lpips_net: SSIM_WINDOW,
        build=lambda lpips_net, device: ssim,
    ),
    "lpips": Metric(
        label="LPIPS",
        unit="",
        digits=4,
        higher_is_better=False,
        about="LPIPS v0.1 ({lpips_net})",
        min_px=lambda lpips_net: LPIPS_NETS[lpips_net].min_px,
        build=lpips,
    ),
}

HOTTEST = 0.25  # standard deviation on [-1, 1] that is white in a map of it
