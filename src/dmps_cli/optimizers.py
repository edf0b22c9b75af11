"""The optimizer of the training: Muon for the kernels inside the network, AdamW for everything else.

[Muon] Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; its step sizes as AdamW's: Liu et al. 2025,
arXiv:2502.16982, eq. (4). What it gained over AdamW alone: docs/training.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

BETAS, MOMENTUM, WEIGHT_DECAY = (0.9, 0.99), 0.95, 0.01
ENDS = ("inp.weight", "out.weight")
"""Kernels whose one side is the picture: AdamW's, as [Muon] has it for first and last layers."""

MOMENTS, MUON_MOMENTS = ("exp_avg", "exp_avg_sq"), ("momentum_buffer",)


def is_orthogonalised(name: str, parameter: Tensor) -> bool:
    """Whether Muon has it: a kernel, but not of the first or last convolution."""
    return parameter.ndim == 4 and name not in ENDS


def moments_of(name: str, parameter: Tensor) -> tuple[str, ...]:
    """Names of what is remembered of a parameter's gradients."""
    return MUON_MOMENTS if is_orthogonalised(name, parameter) else MOMENTS


def as_matrix(kernel: Tensor) -> Tensor:
    """(A, B, h, w) -> (A, h w B), a view of a kernel in channels_last: all that one input or output sees as one row."""
    return kernel.permute(0, 2, 3, 1).view(kernel.shape[0], -1)


def _moments(
    parts: tuple[str, ...], name: str, parameter: nn.Parameter, optimizer: Optimizer
) -> Iterator[tuple[str, Tensor]]:
    state = optimizer.state.get(parameter) or {part: torch.zeros_like(parameter) for part in parts}
    yield from ((f"{part}.{name}", state[part]) for part in parts)


class MuonAdamW:
    """Steps of both optimizers at one learning rate, given with each.

    net: its parameters in channels_last, not moved afterwards.

    Muon replaces the averaged gradient of a kernel, as a matrix, by the nearest semi-orthogonal one (nearly: five
    Newton-Schulz iterations in bfloat16), times 0.2 sqrt(max(rows, columns)), the root mean square of AdamW's steps.
    """

    def __init__(self, net: nn.Module, *, fused: bool) -> None:
        named = dict(net.named_parameters())
        self.kernels = {name: p for name, p in named.items() if is_orthogonalised(name, p)}
        self.matrices = {name: nn.Parameter(as_matrix(p.detach())) for name, p in self.kernels.items()}
        self.others = {name: p for name, p in named.items() if name not in self.kernels}
        self.adamw = AdamW(self.others.values(), betas=BETAS, weight_decay=WEIGHT_DECAY, fused=fused)
        self.muon = Muon(
            self.matrices.values(),
            momentum=MOMENTUM,
            weight_decay=WEIGHT_DECAY,
            adjust_lr_fn="match_rms_adamw",
        )

    def step(self, lr: float) -> None:
        """Moves every parameter that has a gradient."""
        for name, kernel in self.kernels.items():
            gradient = kernel.grad
            self.matrices[name].grad = (
                None if gradient is None else as_matrix(gradient.contiguous(memory_format=torch.channels_last))
            )
        for optimizer in (self.adamw, self.muon):
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()

    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """("exp_avg.NAME", tensor) and so on, those of AdamW like their parameters, of Muon as matrices; 0 at first."""
        for name, parameter in self.others.items():
            yield from _moments(MOMENTS, name, parameter, self.adamw)
        for name, matrix in self.matrices.items():
            yield from _moments(MUON_MOMENTS, name, matrix, self.muon)

    def restore(self, tensors: Mapping[str, Tensor], count: int) -> None:
        """Takes up `moments` after `count` steps."""
        for name, parameter in self.others.items():
            # as the optimizer makes them, in the parameter's own memory format: its fused kernel relies on that
            state = {part: torch.zeros_like(parameter).copy_(tensors[f"{part}.{name}"]) for part in MOMENTS}
            self.adamw.state[parameter] = {"step": torch.tensor(float(count), device=parameter.device), **state}
        for name, matrix in self.matrices.items():
            self.muon.state[matrix] = {
                part: torch.zeros_like(matrix).copy_(tensors[f"{part}.{name}"]) for part in MUON_MOMENTS
            }
