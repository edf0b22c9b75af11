"""NCSN++ (Song et al. 2021, appendix H) as rectified flow trained it (Liu et al. 2023), for inference.

Parameter names are those of the published checkpoints (gnobitab/RectifiedFlow, `models/ncsnpp.py`): one flat list
`all_modules`, numbered in the order in which the reference builds them, which is the order of evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmps_cli.errors import OptionsError
from dmps_cli.nets.layers import Activation, GroupNorm, at_least_float32
from dmps_cli.nets.options import MAX_BLOCKS, NetworkOptions

GROUP_EPS = 1e-6
UNUSED_BUFFERS = frozenset({"sigmas"})
"""Entries of the published files that the network never reads (noise levels of another embedding, in float64)."""

_BUILT: dict[str, object] = {
    "attention_type": "ddpm",
    "conditional": True,
    "conv_size": 3,
    "embedding_type": "fourier",
    "fir": True,
    "fir_kernel": [1, 3, 3, 1],
    "nonlinearity": "swish",
    "normalization": "GroupNorm",
    "progressive": "output_skip",
    "progressive_combine": "sum",
    "progressive_input": "input_skip",
    "resamp_with_conv": True,
    "resblock_type": "biggan",
    "scale_by_sigma": True,
    "skip_rescale": True,
    "centered": True,
    "name": "ncsnpp",
}
"""The one value of each option that is built here: that of the published rectified-flow models."""

_REQUIRED = frozenset({"image_size", "nf", "ch_mult", "num_res_blocks", "attn_resolutions"})

_NO_EFFECT = frozenset(  # at inference
    {
        *("beta_max", "beta_min", "continuous", "dropout", "ema_rate", "fourier_scale", "init_scale", "num_scales"),
        *("sde", "sigma_max", "sigma_min"),
    }
)


@dataclass(frozen=True, kw_only=True)
class NCSNppConfig:
    """Architecture of an NCSN++ for rectified flow."""

    channels: int = 3
    base_width: int
    multipliers: tuple[int, ...]  # width of each resolution, times base_width
    num_res_blocks: int
    attention_at: frozenset[int]  # down-sampling factors with self-attention

    @classmethod
    def from_reference(cls, options: Mapping[str, object], where: str) -> Self:
        """Returns the architecture of a configuration of the reference, its sections (data, model, ..) merged or not.

        Options that change nothing at inference are accepted. where: what the options were read from. Raises
        OptionsError for names that the reference does not know, missing ones, and values that are not built here.
        """
        flat: dict[str, object] = {}
        for name, value in options.items():
            flat.update(value if isinstance(value, Mapping) else {name: value})
        known = _BUILT.keys() | _REQUIRED | _NO_EFFECT | {"num_channels"}
        if unknown := flat.keys() - known:
            raise OptionsError(f"{where}: unknown NCSN++ option {min(unknown)}; known are {', '.join(sorted(known))}")
        for name, value in flat.items():
            if name in _BUILT and value != _BUILT[name]:
                raise OptionsError(f"{where}: NCSN++ with {name} {value!r} is not supported, only {_BUILT[name]!r}")
        read = NetworkOptions(flat, "NCSN++", where)
        size = read.integer("image_size")
        return cls(
            channels=read.integer("num_channels", 3),
            base_width=read.integer("nf"),
            multipliers=tuple(read.integers("ch_mult")),
            num_res_blocks=read.integer("num_res_blocks", most=MAX_BLOCKS),
            attention_at=frozenset(size // resolution for resolution in read.integers("attn_resolutions")),
        )


class FourierFeatures(nn.Module):
    """[sin, cos](2 pi W log(label)), always in float32: the phases reach thousands. W is drawn once, never trained."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.zeros(width), requires_grad=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves W, but keeps its float32."""
        device = fn(self.W).device
        if device != self.W.device:
            empty = device.type == "meta" or self.W.is_meta
            W = torch.empty_like(self.W, device=device) if empty else self.W.to(device)
            self.W = nn.Parameter(W, requires_grad=False)
        return self

    def forward(self, label: Tensor) -> Tensor:
        """Takes label: (B,), positive; result: (B, 2 width), float32."""
        phase = label.float().log()[:, None] * self.W * 2.0 * math.pi
        return torch.cat([phase.sin(), phase.cos()], dim=1)


class NIN(nn.Module):
    """A linear map of the channels, W stored as (in, out)."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.zeros(width, out_width))
        self.b = nn.Parameter(torch.zeros(out_width))

    def forward(self, x: Tensor) -> Tensor:
        """Takes x: (..., in); result: (..., out)."""
        return functional.linear(x, self.W.T, self.b)


class ResBlock(nn.Module):
    """(skip(x) + conv(silu(norm(conv(resample(silu(norm(x)))) + dense(emb))))) / sqrt(2).

    resample: None, `fir_up` or `fir_down`, applied to x as well.
    """

    def __init__(
        self, emb_width: int, width: int, out_width: int, resample: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.resample = resample
        self.act = Activation()
        self.GroupNorm_0 = _group_norm(width)
        self.Conv_0 = nn.Conv2d(width, out_width, 3, padding=1)
        self.Dense_0 = nn.Linear(emb_width, out_width)
        self.GroupNorm_1 = _group_norm(out_width)
        self.Conv_1 = nn.Conv2d(out_width, out_width, 3, padding=1)
        if width != out_width or resample is not None:
            self.Conv_2: nn.Conv2d | None = nn.Conv2d(width, out_width, 1)
        else:
            self.Conv_2 = None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Takes x: (B, C, H, W); emb: (B, emb_width), activated. x is left as it was."""
        h = self.act(self.GroupNorm_0(x))
        h = self.Conv_0(h if self.resample is None else self.resample(h))
        h = h.add_(self.Dense_0(emb)[:, :, None, None])
        h = self.Conv_1(self.act(self.GroupNorm_1(h)))
        return _mean_power(self._skip(x), h)

    def _skip(self, x: Tensor) -> Tensor:
        """Returns Conv_2(resample(x)).

        Both are linear: the 1 x 1 convolution comes before enlarging, on a quarter of it.
        """
        if self.Conv_2 is None:
            return x
        if self.resample is fir_up:
            return fir_up(functional.conv2d(x, self.Conv_2.weight)).add_(self.Conv_2.bias[:, None, None])  # type: ignore[index]
        y: Tensor = self.Conv_2(x if self.resample is None else self.resample(x))
        return y


class Attention(nn.Module):
    """(x + NIN_3(softmax(q k^T / sqrt(width)) v)) / sqrt(2) over all pixels, one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.GroupNorm_0 = _group_norm(width)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (NIN(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Takes x: (B, C, H, W); result: the same shape."""
        pixels = self.GroupNorm_0(x).permute(0, 2, 3, 1).flatten(1, 2)[:, None]  # (B, 1, H W, C)
        mixed = functional.scaled_dot_product_attention(self.NIN_0(pixels), self.NIN_1(pixels), self.NIN_2(pixels))
        out = self.NIN_3(mixed)[:, 0].unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        return _mean_power(x, out)


class Combine(nn.Module):
    """h + conv(pyramid): the image at this resolution, given to the encoder."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.Conv_0 = nn.Conv2d(channels, width, 1)

    def forward(self, pyramid: Tensor, h: Tensor) -> Tensor:
        """Takes pyramid: (B, channels, H, W); h: (B, C, H, W)."""
        y: Tensor = self.Conv_0(pyramid)
        return y.add_(h)


class NCSNpp(nn.Module):
    """The velocity u = x0 - eps of x = s x0 + (1 - s) eps at the label 999 s."""

    def __init__(self, config: NCSNppConfig) -> None:
        super().__init__()
        self.config = config
        self.multiple = 2 ** (len(config.multipliers) - 1)  # H and W must be divisible by it
        self.all_modules = nn.ModuleList(_modules(config))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Returns the velocity, (B, channels, H, W), in x's dtype.

        x: (B, channels, H, W), H and W divisible by `multiple`; label: (B,), 999 s, s >= 1e-3 (the features are of
        its logarithm, the output is divided by it). Raises ValueError for other sizes.
        """
        if x.shape[2] % self.multiple or x.shape[3] % self.multiple:
            raise ValueError(f"an image of {x.shape[2]} x {x.shape[3]} is not divisible by {self.multiple}")
        modules = iter(self.all_modules)
        features, first, second, conv_in = (next(modules) for _ in range(4))
        dtype = next(conv_in.parameters()).dtype
        emb = functional.silu(second(functional.silu(first(features(label).to(dtype)))))
        image = x.to(dtype)
        h, skips = self._encode(modules, image, conv_in(image), emb)
        for kind in (ResBlock, Attention, ResBlock):  # the middle
            h = _run(_next(modules, kind), h, emb)
        pyramid = self._decode(modules, h, skips, emb)
        exact = at_least_float32(dtype)
        return (pyramid.to(exact) / label.to(exact)[:, None, None, None]).to(x.dtype)

    def _encode(
        self, modules: Iterator[nn.Module], pyramid: Tensor, h: Tensor, emb: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns (the coarsest features, all skips).

        Residual blocks, then a smaller image of h with the smaller input.
        """
        skips, last = [h], len(self.config.multipliers) - 1
        for level in range(last + 1):
            for _ in range(self.config.num_res_blocks):
                h = _run(_next(modules, ResBlock), h, emb)
                if 2**level in self.config.attention_at:
                    h = _run(_next(modules, Attention), h, emb)
                skips.append(h)
            if level < last:
                h = _run(_next(modules, ResBlock), h, emb)
                pyramid = fir_down(pyramid)
                h = _next(modules, Combine)(pyramid, h)
                skips.append(h)
        return h, skips

    def _decode(self, modules: Iterator[nn.Module], h: Tensor, skips: list[Tensor], emb: Tensor) -> Tensor:
        """Returns the sum over resolutions of conv(silu(norm(h))), each enlarged to the next."""
        pyramid: Tensor | None = None
        for level in reversed(range(len(self.config.multipliers))):
            for _ in range(self.config.num_res_blocks + 1):
                h = _run(_next(modules, ResBlock), torch.cat([h, skips.pop()], dim=1), emb)
            if 2**level in self.config.attention_at:
                h = _run(_next(modules, Attention), h, emb)
            norm, conv = next(modules), next(modules)
            part: Tensor = conv(functional.silu(norm(h)))
            pyramid = part if pyramid is None else part.add_(fir_up(pyramid))
            if level > 0:
                h = _run(_next(modules, ResBlock), h, emb)
        assert pyramid is not None
        assert next(modules, None) is None
        return pyramid


def _modules(config: NCSNppConfig) -> Iterator[nn.Module]:
    """Yields the network's layers in the order of their published numbers."""
    width, emb = config.base_width, 4 * config.base_width
    widths = [width * m for m in config.multipliers]
    yield FourierFeatures(width)
    yield nn.Linear(2 * width, emb)
    yield nn.Linear(emb, emb)
    yield nn.Conv2d(config.channels, width, 3, padding=1)
    skips = [width]
    for level, (before, out) in enumerate(pairwise([width, *widths])):
        for block in range(config.num_res_blocks):
            yield ResBlock(emb, out if block else before, out)
            if 2**level in config.attention_at:
                yield Attention(out)
            skips.append(out)
        if level < len(widths) - 1:
            yield ResBlock(emb, out, out, fir_down)
            yield Combine(config.channels, out)
            skips.append(out)
    middle = before = widths[-1]
    yield from (ResBlock(emb, middle, middle), Attention(middle), ResBlock(emb, middle, middle))
    for level, out in reversed(list(enumerate(widths))):
        for _ in range(config.num_res_blocks + 1):
            yield ResBlock(emb, before + skips.pop(), out)
            before = out
        if 2**level in config.attention_at:
            yield Attention(out)
        yield _group_norm(out)
        yield nn.Conv2d(out, config.channels, 3, padding=1)
        if level > 0:
            yield ResBlock(emb, out, out, fir_up)


def _next(modules: Iterator[nn.Module], kind: type[nn.Module]) -> nn.Module:
    """Returns the next layer, which the constructor made of this kind."""
    module = next(modules)
    assert isinstance(module, kind)
    return module


def _run(module: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
    """Returns a residual block with the time embedding, or an attention without."""
    y: Tensor = module(h, emb) if isinstance(module, ResBlock) else module(h)
    return y


def _group_norm(width: int) -> GroupNorm:
    return GroupNorm(min(width // 4, 32), width, eps=GROUP_EPS)


def _mean_power(x: Tensor, h: Tensor) -> Tensor:
    """Returns (x + h) / sqrt(2): the sum of two with the power of one. Overwrites h unless gradients are recorded."""
    if torch.is_grad_enabled():
        return (x + h) * math.sqrt(0.5)
    return h.add_(x).mul_(math.sqrt(0.5))


def fir_down(x: Tensor) -> Tensor:
    """Returns x filtered with [1, 3, 3, 1] / 8 both ways, zeros outside, every other pixel.

    (B, C, H, W) -> (.., H/2, W/2).
    """
    return functional.conv2d(x, _fir_kernel(x, 8.0), stride=2, padding=1, groups=x.shape[1])


def fir_up(x: Tensor) -> Tensor:
    """Returns x twice as large, zeros between the pixels and outside, filtered with [1, 3, 3, 1] / 4 both ways."""
    return functional.conv_transpose2d(x, _fir_kernel(x, 4.0), stride=2, padding=1, groups=x.shape[1])


def _fir_kernel(x: Tensor, divisor: float) -> Tensor:
    """Returns the filter for each channel of x, (C, 1, 4, 4); exact in every floating-point type.

    Made where it is used (a buffer would be in the way of the meta device, a constant copied from the host of a GPU).
    """
    taps = x.new_full((4,), 3.0 / divisor)
    taps[::3] = 1.0 / divisor
    return torch.outer(taps, taps).repeat(x.shape[1], 1, 1, 1)
