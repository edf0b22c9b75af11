"""Layers that several networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class GroupNorm(nn.GroupNorm):
    """Group normalisation with float32 statistics and arithmetic, whatever the weights' precision."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns normalised x, in its dtype."""
        if x.dtype not in (torch.float16, torch.bfloat16):
            return super().forward(x)
        return functional.group_norm(x.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps).to(
            x.dtype
        )


class Activation(nn.Module):
    """silu, of a norm's output that nothing else holds: in place unless gradients are recorded."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns silu(x); may overwrite x."""
        return functional.silu(x, inplace=not torch.is_grad_enabled())


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Returns float32 for the half precisions, else dtype."""
    return torch.promote_types(dtype, torch.float32)


def clipped(x0: Tensor, bound: float) -> Tensor:
    """Returns x0 within [-bound, bound].

    Infinities become NaN, for clipping would hide an overflow of half precision.
    """
    return torch.where(x0.isinf(), torch.nan, x0).clamp(-bound, bound)
