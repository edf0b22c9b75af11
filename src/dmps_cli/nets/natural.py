"""The bundled denoiser "natural": a small fully convolutional U-Net for photographs of any size.

D(z; s) = E[x0 | x0 + s eps = z] on [-1, 1], with the preconditioning of Karras et al. 2022 (EDM, Table 1).
Architecture, training and limits: docs/natural.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Self

import torch
from msgspec import UNSET, Meta, Struct, UnsetType
from torch import Tensor, nn
from torch.nn import functional

from dmps_cli.errors import WeightsError
from dmps_cli.nets.layers import at_least_float32
from dmps_cli.nets.loading import load_state
from dmps_cli.records import RecordError, as_builtins, as_record

UNSHUFFLED = 4
"""Channels that each channel of a picture becomes as 2 x 2 px are put into one."""

RMS_EPS = 1e-4
"""Added to the mean square that a block divides by."""

SIGMA_DATA = 0.5
"""Standard deviation of pixels on [-1, 1], as the preconditioning takes it."""

PEAK_BYTES_PER_PIXEL = {"float32": 900.0, "bfloat16": 700.0, "float16": 700.0}
"""Memory that a restoration with the bundled sizes takes, the operator included (docs/speed.md)."""


@dataclass(frozen=True, kw_only=True)
class NaturalConfig:
    """Sizes of the network. The numbers of a file are read off its shapes by `from_state`. channels: of a picture."""

    channels: int = 3
    widths: tuple[int, ...] = (64, 96, 128, 192)
    num_blocks: int = 2
    emb_width: int = 128
    num_frequencies: int = 32

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], where: str) -> Self:
        """The sizes that the tensors' shapes imply. Raises WeightsError if it is another architecture's state."""
        try:
            num_levels = 1 + sum(name.startswith("down.") and name.endswith(".weight") for name in state)
            deeper = [state[f"down.{i}.weight"].shape[0] for i in range(num_levels - 1)]
            channels, rest = divmod(state["inp.weight"].shape[1], UNSHUFFLED)
            if channels not in (1, 3) or rest:
                raise WeightsError(f"{where}: its 'inp.weight' takes neither grey nor colour pictures")
            return cls(
                channels=channels,
                widths=(state["inp.weight"].shape[0], *deeper),
                num_blocks=sum(name.startswith("mid.") and name.endswith(".c1.weight") for name in state),
                emb_width=state["emb.0.weight"].shape[0],
                num_frequencies=state["fr"].shape[0],
            )
        except IndexError as exc:
            raise WeightsError(f"{where}: the shapes of its tensors are not those of 'natural'") from exc
        except KeyError as exc:
            raise WeightsError(
                f"{where}: no tensor {exc}, so these are not weights of 'natural'; choose the matching architecture"
            ) from exc


class Block(nn.Module):
    """x + c2(silu(n(c1(x)) (1 + p) + q)), n(h) = h / sqrt(mean over channels of h^2 + 1e-4).

    (p, q) come from the noise level by `aff`, which the network evaluates for all blocks at once.
    """

    def __init__(self, width: int, emb_width: int) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(width, width, 3, padding=1)
        self.aff = nn.Linear(emb_width, 2 * width)
        self.c2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, p1: Tensor, q: Tensor) -> Tensor:
        """x: (B, C, H, W); p1 = 1 + p and q: (B or 1, C, 1, 1). x is left as it was."""
        h: Tensor = self.c1(x)
        if torch.is_grad_enabled():
            h = h * torch.rsqrt(h.square().mean(1, keepdim=True) + RMS_EPS)
            y: Tensor = self.c2(functional.silu(torch.addcmul(q, h, p1)))
            return x + y
        # the same in place: for large images these passes cost memory traffic, and new buffers page faults
        norm = torch.linalg.vector_norm(h, dim=1, keepdim=True, dtype=at_least_float32(h.dtype))
        h.mul_(torch.rsqrt(norm.square_().div_(h.shape[1]).add_(RMS_EPS)).to(h.dtype))
        y = self.c2(functional.silu(torch.addcmul(q, h, p1, out=h), inplace=True))
        return y.add_(x)


class NaturalNet(nn.Module):
    """F(u, c), the network inside the preconditioning. Parameter names as published.

    A U-Net on the image pixel-unshuffled by 2, two residual blocks a level, skips added.
    """

    fr: Tensor

    def __init__(self, config: NaturalConfig) -> None:
        super().__init__()
        widths, emb_width = config.widths, config.emb_width
        self.channels = config.channels
        self.multiple = 2 ** len(widths)  # 2 for the unshuffling, 2 for each step down

        def blocks(width: int) -> nn.ModuleList:
            return nn.ModuleList(Block(width, emb_width) for _ in range(config.num_blocks))

        self.register_buffer("fr", torch.tensor(_frequencies(config.num_frequencies)))
        self.emb = nn.Sequential(
            nn.Linear(2 * config.num_frequencies, emb_width), nn.SiLU(), nn.Linear(emb_width, emb_width)
        )
        self.inp = nn.Conv2d(UNSHUFFLED * config.channels, widths[0], 3, padding=1)
        self.enc = nn.ModuleList(blocks(width) for width in widths)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.mid = blocks(widths[-1])
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairwise(widths[::-1]))
        self.dec = nn.ModuleList(blocks(width) for width in widths[-2::-1])
        self.out = nn.Conv2d(widths[0], UNSHUFFLED * config.channels, 3, padding=1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves and converts everything, but `fr` stays float32: the phases c fr need more than 8 bits."""
        fr = self.fr
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.fr = fr.to(self.fr.device) if self.fr.device != fr.device else fr
        return self

    def forward(self, u: Tensor, c: Tensor) -> Tensor:
        """F(u, c). u: (B, C, H, W), H and W >= 1, in the weights' dtype; c = ln(s) / 4: (B,) or (1,), float32."""
        height, width = u.shape[-2:]
        pad = (0, -width % self.multiple, 0, -height % self.multiple)
        x = self.inp(functional.pixel_unshuffle(functional.pad(u, pad, mode="replicate") if any(pad) else u, 2))
        modulation = iter(self._modulation(c, u.dtype))

        def run(blocks: nn.Module, x: Tensor) -> Tensor:
            for block in blocks.children():
                p, q = next(modulation).chunk(2, dim=1)
                x = block(x, 1.0 + p, q)
            return x

        skips = []
        for enc, down in zip(self.enc, self.down, strict=False):
            skips.append(run(enc, x))
            x = down(skips[-1])
        x = run(self.mid, run(self.enc[-1], x))
        for up, dec in zip(self.up, self.dec, strict=True):
            x = up(x)
            skip = skips.pop()
            x = run(dec, x + skip if torch.is_grad_enabled() else x.add_(skip))
        return functional.pixel_shuffle(self.out(x), 2)[..., :height, :width]

    def _modulation(self, c: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """(p, q) stacked, (B, 2 C, 1, 1), for each block in the order of evaluation.

        e = silu(emb([sin(c fr), cos(c fr)])), then every block's `aff`, as one matrix product.
        """
        phase = c[:, None] * self.fr.to(at_least_float32(dtype))
        e = functional.silu(self.emb(torch.cat([phase.sin(), phase.cos()], dim=1).to(dtype)))
        affs = [block.aff for stage in (*self.enc, self.mid, *self.dec) for block in stage.children()]
        pq = functional.linear(e, torch.cat([aff.weight for aff in affs]), torch.cat([aff.bias for aff in affs]))
        return list(torch.split(pq[:, :, None, None], [aff.out_features for aff in affs], dim=1))


def _frequencies(number: int) -> list[float]:
    """2 pi times 0.05 to 4, equally spaced in their logarithm.

    Python's numbers: `exp` of a tensor on the meta device imports torch._dynamo, which takes seconds.
    """
    first, last = math.log(0.05), math.log(4.0)
    return [2.0 * math.pi * math.exp(first + (last - first) * k / max(number - 1, 1)) for k in range(number)]


class Natural(nn.Module):
    """The denoiser D(z; s) around a network F (EDM, eq. (7) and Table 1).

        D = (sigma_data^2 / v) z + (sigma_data s / sqrt(v)) F(z / sqrt(v), ln(s) / 4),  v = s^2 + sigma_data^2

    Outside the trained range sigma_min .. sigma_max the network is told the nearest s; the coefficients
    keep the true one, so that D(z; 0) = z.
    """

    def __init__(
        self, net: nn.Module, sigma_data: float = SIGMA_DATA, sigma_min: float = 0.005, sigma_max: float = 200.0
    ) -> None:
        super().__init__()
        self.net = net
        self.sigma_data, self.sigma_min, self.sigma_max = sigma_data, sigma_min, sigma_max

    def denoise(self, z: Tensor, s: float) -> Tensor:
        """D(z; s), unclipped. z: (B, C, H, W), any H and W; result: like z, in its dtype.

        Only the network runs in the weights' dtype. Raises ValueError if s is negative.
        """
        if s < 0.0:
            raise ValueError(f"s is {s}; a noise level is not negative")
        root = math.sqrt(s**2 + self.sigma_data**2)
        told = min(max(s, self.sigma_min), self.sigma_max)
        dtype = next(self.net.parameters()).dtype
        c = z.new_full((1,), math.log(told) / 4.0, dtype=at_least_float32(dtype))  # on a GPU nothing waits for it
        f = self.net((z / root).to(dtype), c).to(z.dtype)
        return torch.add((self.sigma_data / root) ** 2 * z, f, alpha=self.sigma_data * s / root)

    forward = denoise


def natural_from_state(state: Mapping[str, Tensor], where: str, metadata: Mapping[str, str] | None = None) -> Natural:
    """The denoiser of a weights file, ready to run, in float32 and channels_last.

    state: the file's tensors, whatever their precision; where: the file, for messages; metadata: its strings, of
    which `sigma_data`, `sigma_min`, `sigma_max` count (absent: the defaults of Natural). Raises WeightsError.
    """
    with torch.device("meta"):
        net = NaturalNet(NaturalConfig.from_state(state, where))
    load_state(net, state, where)
    return Natural(net, **sigmas_of(metadata or {}, where)).to(memory_format=torch.channels_last)


Sigma = Annotated[float, Meta(gt=0.0, le=1e4)]


class Sigmas(Struct, frozen=True, kw_only=True):
    """What a file's metadata say of the noise levels; absent: the defaults of Natural."""

    sigma_data: Sigma | UnsetType = UNSET
    sigma_min: Sigma | UnsetType = UNSET
    sigma_max: Sigma | UnsetType = UNSET


def sigmas_of(metadata: Mapping[str, str], where: str) -> dict[str, float]:
    """Those of `sigma_data`, `sigma_min`, `sigma_max` that a file names. Raises WeightsError for what is none."""
    try:
        sigmas = as_record(dict(metadata), Sigmas, strict=False)
    except RecordError as exc:
        raise WeightsError(f"{where}: its metadata are damaged ({exc}); fetch the file again") from exc
    return as_builtins(sigmas)
