"""The bundled denoiser "natural": a small fully convolutional U-Net for photographs of any size.

D(z; s) = E[x0 | x0 + s eps = z] on [-1, 1], with the preconditioning of Karras et al. 2022 (EDM, Table 1).
Architecture, training and limits: docs/natural.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmps_cli.errors import WeightsError
from dmps_cli.nets.layers import at_least_float32

ARCHITECTURE = "natural"

UNSHUFFLED = 4
"""Channels that each channel of a picture becomes as 2 x 2 px are put into one."""

RMS_EPS = 1e-4
"""Added to the mean square that a block divides by."""

SIGMA_DATA = 0.5
"""Standard deviation of pixels on [-1, 1], as the preconditioning takes it."""

PEAK_BYTES_PER_PIXEL = {"float32": 900.0, "bfloat16": 700.0, "float16": 700.0}
"""Memory that a restoration with the bundled sizes takes, the operator included (docs/speed.md)."""

HEAD_WIDTH = 64
"""Channels of a head of the attention, where the width is a multiple of it; else there is one head."""


@dataclass(frozen=True, kw_only=True)
class NaturalConfig:
    """Sizes of the network. The numbers of a file are read off its shapes by `from_state`. channels: of a picture.

    num_blocks: of each level of `widths` on the way down, and as many on the way up, or in the middle of the coarsest
    one; one number is that of every level. has_attention: whether the coarsest level sees all of itself once, before
    its middle.
    """

    channels: int = 3
    widths: tuple[int, ...] = (64, 96, 128, 192)
    num_blocks: int | tuple[int, ...] = 2
    has_attention: bool = False
    emb_width: int = 128
    num_frequencies: int = 32

    @property
    def blocks(self) -> tuple[int, ...]:
        """Of each level. Raises ValueError if they are not of as many levels as the widths."""
        found = (self.num_blocks,) * len(self.widths) if isinstance(self.num_blocks, int) else self.num_blocks
        if len(found) != len(self.widths):
            raise ValueError(f"num_blocks {found} and widths {self.widths} should be of as many levels")
        return found

    @property
    def facts(self) -> dict[str, str]:
        """What the metadata of a file say of the sizes."""
        numbers = (self.num_blocks,) if isinstance(self.num_blocks, int) else self.num_blocks
        return {
            "channels": str(self.channels),
            "widths": ",".join(map(str, self.widths)),
            "num_blocks": ",".join(map(str, numbers)),
            "has_attention": str(self.has_attention).lower(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], where: str) -> Self:
        """Returns the sizes that the tensors' shapes imply.

        Raises WeightsError if it is another architecture's state.
        """
        try:
            num_levels = 1 + sum(name.startswith("down.") and name.endswith(".weight") for name in state)
            deeper = [state[f"down.{i}.weight"].shape[0] for i in range(num_levels - 1)]
            found = [name.split(".")[1] for name in state if name.startswith("enc.") and name.endswith(".c1.weight")]
            num_blocks = tuple(found.count(str(i)) for i in range(num_levels))
            channels, rest = divmod(state["inp.weight"].shape[1], UNSHUFFLED)
            if channels not in (1, 3) or rest:
                raise WeightsError(f"{where}: its 'inp.weight' takes neither grey nor colour pictures")
            return cls(
                channels=channels,
                widths=(state["inp.weight"].shape[0], *deeper),
                num_blocks=num_blocks[0] if len({*num_blocks}) == 1 else num_blocks,
                has_attention="attention.qkv.weight" in state,
                emb_width=state["emb.0.weight"].shape[0],
                num_frequencies=state["fr"].shape[0],
            )
        except IndexError as exc:
            raise WeightsError(f"{where}: the shapes of its tensors are not those of 'natural'") from exc
        except KeyError as exc:
            raise WeightsError(
                f"{where}: no tensor {exc}, so these are not weights of 'natural'; choose the matching architecture"
            ) from exc


SIZES = {
    "small": NaturalConfig(widths=(32, 48, 64, 96)),
    "base": NaturalConfig(),
    "large": NaturalConfig(widths=(96, 128, 160, 256)),
}
"""Sizes by name: a quarter of the cost of the bundled prior (1.6 M values), that of the bundled prior (5.7 M), and
twice its cost (9.7 M; docs/training_gpu.md)."""


def peak_bytes_per_pixel(state: Mapping[str, Tensor], dtype: str) -> float:
    """Returns the memory that a restoration with these weights takes.

    That of the bundled sizes by the width of the first level.
    """
    return PEAK_BYTES_PER_PIXEL[dtype] * len(state["inp.weight"]) / NaturalConfig().widths[0]


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
        """Takes x: (B, C, H, W); p1 = 1 + p and q: (B or 1, C, 1, 1). x is left as it was."""
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


class Attention(nn.Module):
    """x + proj(softmax(q k^T / sqrt(d)) v) over all places, d = 64; (q, k, v) = qkv(n(x)), n as in `Block`.

    q and k are divided by their root mean square over the channels of their head, so that no logit exceeds sqrt(d).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_heads = 1 if width % HEAD_WIDTH else width // HEAD_WIDTH
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Takes x: (B, C, H, W); result: the same shape."""
        places = self.qkv(_normalised(x, 1)).flatten(2).mT.contiguous()  # (B, H W, 3 C); a view in channels_last
        heads = places.reshape(*places.shape[:2], 3, self.num_heads, -1).transpose(1, 3)
        q, k, v = heads.unbind(2)  # (B, heads, H W, d)
        seen = functional.scaled_dot_product_attention(_normalised(q, -1), _normalised(k, -1), v)
        y: Tensor = self.proj(seen.transpose(-1, -2).reshape(x.shape))
        return x + y


def _normalised(x: Tensor, dim: int) -> Tensor:
    """Returns x / sqrt(mean of x^2 over that dimension + 1e-4)."""
    mean = x.to(at_least_float32(x.dtype)).square().mean(dim, keepdim=True)
    return x * torch.rsqrt(mean + RMS_EPS).to(x.dtype)


class NaturalNet(nn.Module):
    """F(u, c), the network inside the preconditioning. Parameter names as published.

    A U-Net on the image pixel-unshuffled by 2, residual blocks at each level, skips added.
    """

    fr: Tensor

    def __init__(self, config: NaturalConfig) -> None:
        super().__init__()
        widths, emb_width = config.widths, config.emb_width
        self.channels = config.channels
        self.multiple = 2 ** len(widths)  # 2 for the unshuffling, 2 for each step down

        def blocks(level: int) -> nn.ModuleList:
            return nn.ModuleList(Block(widths[level], emb_width) for _ in range(config.blocks[level]))

        deepest = len(widths) - 1

        self.register_buffer("fr", torch.tensor(_frequencies(config.num_frequencies)))
        self.emb = nn.Sequential(
            nn.Linear(2 * config.num_frequencies, emb_width), nn.SiLU(), nn.Linear(emb_width, emb_width)
        )
        self.inp = nn.Conv2d(UNSHUFFLED * config.channels, widths[0], 3, padding=1)
        self.enc = nn.ModuleList(map(blocks, range(len(widths))))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.attention = Attention(widths[-1]) if config.has_attention else nn.Identity()
        self.mid = blocks(deepest)
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairwise(widths[::-1]))
        self.dec = nn.ModuleList(map(blocks, reversed(range(deepest))))
        self.out = nn.Conv2d(widths[0], UNSHUFFLED * config.channels, 3, padding=1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves and converts everything, but `fr` stays float32: the phases c fr need more than 8 bits."""
        fr = self.fr
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.fr = fr.to(self.fr.device) if self.fr.device != fr.device else fr
        return self

    def forward(self, u: Tensor, c: Tensor) -> Tensor:
        """Returns F(u, c). u: (B, C, H, W), H and W >= 1, in the weights' dtype.

        c = ln(s) / 4: (B,) or (1,), float32.
        """
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
        x = run(self.mid, self.attention(run(self.enc[-1], x)))
        for up, dec in zip(self.up, self.dec, strict=True):
            x = up(x)
            skip = skips.pop()
            x = run(dec, x + skip if torch.is_grad_enabled() else x.add_(skip))
        return functional.pixel_shuffle(self.out(x), 2)[..., :height, :width]

    def _modulation(self, c: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """Returns (p, q) stacked, (B, 2 C, 1, 1), for each block in the order of evaluation.

        e = silu(emb([sin(c fr), cos(c fr)])), then every block's `aff`, as one matrix product.
        """
        phase = c[:, None] * self.fr.to(at_least_float32(dtype))
        e = functional.silu(self.emb(torch.cat([phase.sin(), phase.cos()], dim=1).to(dtype)))
        affs = [block.aff for stage in (*self.enc, self.mid, *self.dec) for block in stage.children()]
        pq = functional.linear(e, torch.cat([aff.weight for aff in affs]), torch.cat([aff.bias for aff in affs]))
        return list(torch.split(pq[:, :, None, None], [aff.out_features for aff in affs], dim=1))


def _frequencies(number: int) -> list[float]:
    """Returns 2 pi times 0.05 to 4, equally spaced in their logarithm.

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
        """Returns D(z; s), unclipped. z: (B, C, H, W), any H and W; result: like z, in its dtype.

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
