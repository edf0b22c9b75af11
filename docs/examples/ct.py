"""Computed tomography: sums along parallel rays at a list of angles. Its transpose is left to torch."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

ANGLES = [180.0 * k / 24 for k in range(24)]  # degrees


def scan(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Returns A: x (B, 1, H, W) to (B, angles, W), the mean along each ray of the picture turned by each angle."""
    turns = [
        torch.tensor([[[math.cos(a), -math.sin(a), 0.0], [math.sin(a), math.cos(a), 0.0]]], dtype=dtype, device=device)
        for a in map(math.radians, ANGLES)
    ]
    grids = [affine_grid(turn, [1, *shape], align_corners=False) for turn in turns]

    def A(x: Tensor) -> Tensor:
        turned = [grid_sample(x, grid.expand(len(x), -1, -1, -1), align_corners=False) for grid in grids]
        return torch.stack([picture.mean((1, 2)) for picture in turned], dim=1)

    return A
