"""The optimizer of the training: Muon for the kernels inside the network, AdamW for everything else.

[Muon] Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; its step sizes as AdamW's: Liu et al. 2025,
arXiv:2502.16982, eq. (4). What it gained over AdamW alone: docs/training_trials.md.

torch.optim.Muon iterates in bfloat16 everywhere; on a CPU without instructions for it that is nearly the whole step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW

BETAS, MOMENTUM, WEIGHT_DECAY = (0.9, 0.99), 0.95, 0.01
ENDS = ("inp.weight", "out.weight")
"""Kernels whose one side is the picture: AdamW's, as [Muon] has it for first and last layers."""

MOMENTS, MOMENTUM_BUFFER = ("exp_avg", "exp_avg_sq"), "momentum_buffer"
NEWTON_SCHULZ, NUM_ITERATIONS = (3.4445, -4.775, 2.0315), 5
"""Coefficients of t, t^3 and t^5, and how often, [Muon]: they move singular values from above 0.001 to 0.68 .. 1.14."""

SMALLEST_NORM = 1e-7  # that a gradient is divided by
MATCH_ADAMW = 0.2  # root mean square of a step of AdamW at learning rate 1


def is_orthogonalised(name: str, parameter: Tensor) -> bool:
    """Returns whether Muon has it: a kernel, but not of the first or last convolution."""
    return parameter.ndim == 4 and name not in ENDS


def moments_of(name: str, parameter: Tensor) -> tuple[str, ...]:
    """Returns the names of what is remembered of a parameter's gradients."""
    return (MOMENTUM_BUFFER,) if is_orthogonalised(name, parameter) else MOMENTS


def as_matrix(kernel: Tensor) -> Tensor:
    """Returns (A, B, h, w) -> (A, h w B), a view of a kernel in channels_last.

    All that one input or output sees as one row.
    """
    return kernel.permute(0, 2, 3, 1).view(kernel.shape[0], -1)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Returns about U V^T of the singular value decomposition U S V^T: its five Newton-Schulz iterations, [Muon].

        X <- p(X X^T) X,  p(R) = a + b R + c R^2,  from matrix / |matrix|,  (a, b, c) = NEWTON_SCHULZ

    R = X X^T moves by R <- p(R) R p(R), for these commute; so only products of the smaller side are iterated, and that
    of all p(R) is applied to X at the end. matrix, result: (B, M, N), each for itself, float32; 0 stays 0.
    """
    wide = matrix if matrix.shape[1] <= matrix.shape[2] else matrix.mT
    x = wide / torch.linalg.vector_norm(wide, dim=(1, 2), keepdim=True).clamp_min(SMALLEST_NORM)
    gram = x @ x.mT
    product = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device).expand_as(gram)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NUM_ITERATIONS):
        p = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        p.diagonal(dim1=1, dim2=2).add_(a)
        product = p @ product
        gram = p @ gram @ p
    found: Tensor = product @ x
    return found if wide is matrix else found.mT


class Muon:
    """Steps along the nearest semi-orthogonal matrix of each averaged gradient, times 0.2 sqrt(max(rows, columns)).

    matrices: by name, (M, N) each, changed in place; momentum: like them, the averages.
    """

    def __init__(self, matrices: Mapping[str, Tensor]) -> None:
        self.matrices = dict(matrices)
        self.momentum = {name: torch.zeros_like(matrix) for name, matrix in matrices.items()}

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], lr: float) -> None:
        """Moves the matrices that have a gradient; Nesterov's momentum, decoupled weight decay.

        Those of one shape at once: a GPU would wait for the next of so many small products longer than it computes.
        """
        alike: dict[torch.Size, list[str]] = {}
        for name in gradients:
            alike.setdefault(self.matrices[name].shape, []).append(name)
        for shape, names in alike.items():
            of_names = [gradients[name] for name in names]
            averages, matrices = ([kept[name] for name in names] for kept in (self.momentum, self.matrices))
            torch._foreach_lerp_(averages, of_names, 1.0 - MOMENTUM)
            directions = orthogonalised(torch.stack(of_names).lerp_(torch.stack(averages), MOMENTUM))
            size = MATCH_ADAMW * math.sqrt(max(shape))
            torch._foreach_mul_(matrices, 1.0 - lr * WEIGHT_DECAY)
            torch._foreach_add_(matrices, list(directions.unbind()), alpha=-lr * size)


class MuonAdamW:
    """Steps of both optimizers at one learning rate, given with each.

    net: its parameters in channels_last, not moved afterwards.
    """

    def __init__(self, net: nn.Module, *, fused: bool) -> None:
        named = dict(net.named_parameters())
        self.kernels = {name: p for name, p in named.items() if is_orthogonalised(name, p)}
        self.others = {name: p for name, p in named.items() if name not in self.kernels}
        self.adamw = AdamW(self.others.values(), betas=BETAS, weight_decay=WEIGHT_DECAY, fused=fused)
        self.muon = Muon({name: as_matrix(p.detach()) for name, p in self.kernels.items()})

    def step(self, lr: float) -> None:
        """Moves every parameter that has a gradient."""
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self.adamw.step()
        found = {name: p.grad for name, p in self.kernels.items() if p.grad is not None}
        channels_last = torch.channels_last
        self.muon.step({name: as_matrix(g.contiguous(memory_format=channels_last)) for name, g in found.items()}, lr)

    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """Yields ("exp_avg.NAME", tensor) and so on, those of AdamW like their parameters, of Muon as matrices.

        0 at first.
        """
        for name, parameter in self.others.items():
            state = self.adamw.state.get(parameter) or {part: torch.zeros_like(parameter) for part in MOMENTS}
            yield from ((f"{part}.{name}", state[part]) for part in MOMENTS)
        for name, average in self.muon.momentum.items():
            yield f"{MOMENTUM_BUFFER}.{name}", average

    def restore(self, tensors: Mapping[str, Tensor], count: int) -> None:
        """Takes up `moments` after `count` steps."""
        for name, parameter in self.others.items():
            # as the optimizer makes them, in the parameter's own memory format: its fused kernel relies on that
            state = {part: torch.zeros_like(parameter).copy_(tensors[f"{part}.{name}"]) for part in MOMENTS}
            self.adamw.state[parameter] = {"step": torch.tensor(float(count), device=parameter.device), **state}
        for name, average in self.muon.momentum.items():
            average.copy_(tensors[f"{MOMENTUM_BUFFER}.{name}"])
