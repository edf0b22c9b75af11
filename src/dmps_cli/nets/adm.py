"""The U-Net of guided diffusion, "ADM" (Dhariwal & Nichol 2021, section 3 and appendix), for inference.

Parameter names are those of the published checkpoints (openai/guided-diffusion, `script_util.create_model`), whose
layout decides the module names below: `input_blocks.3.1.qkv` and the like.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmps_cli.errors import OptionsError
from dmps_cli.nets.layers import Activation, GroupNorm
from dmps_cli.nets.options import MAX_BLOCKS, NetworkOptions

NUM_GROUPS = 32
MAX_PERIOD = 10_000.0

DEFAULT_MULT: dict[int, tuple[float, ...]] = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
}
"""Channel multipliers that the reference takes for an image size when `channel_mult` is empty."""

_ARGUMENTS = frozenset(
    {
        *("image_size", "num_channels", "num_res_blocks", "channel_mult", "learn_sigma", "class_cond"),
        *("use_checkpoint", "attention_resolutions", "num_heads", "num_head_channels", "num_heads_upsample"),
        *("use_scale_shift_norm", "dropout", "resblock_updown", "use_fp16", "use_new_attention_order"),
    }
)


@dataclass(frozen=True, kw_only=True)
class ADMConfig:
    """Architecture of an ADM U-Net."""

    channels: int = 3
    out_channels: int  # 2 * channels where the variance is learned
    base_width: int
    multipliers: tuple[float, ...]  # width of each resolution, times base_width
    num_res_blocks: int
    attention_at: frozenset[int]  # down-sampling factors with self-attention
    num_heads: int
    num_heads_up: int  # in the decoder
    head_width: int | None  # if given, decides the number of heads instead
    scale_shift_norm: bool  # the time modulates the second norm instead of being added before it
    resblock_updown: bool  # resample inside residual blocks instead of by separate layers
    new_attention_order: bool  # channels of qkv ordered (3, heads, width) instead of (heads, 3, width)

    @classmethod
    def from_reference(cls, arguments: Mapping[str, object], where: str) -> Self:
        """Returns the architecture that the reference's `create_model(**arguments)` builds.

        `dropout`, `use_checkpoint` and `use_fp16` change nothing at inference; absent ones take the reference's
        defaults. where: what the arguments were read from. Raises OptionsError for names that the reference does not
        know, missing ones, and class-conditional models.
        """
        if unknown := arguments.keys() - _ARGUMENTS:
            raise OptionsError(
                f"{where}: unknown ADM argument {min(unknown)}; known are {', '.join(sorted(_ARGUMENTS))}"
            )
        options = NetworkOptions(arguments, "ADM", where)
        if options.boolean("class_cond"):
            raise OptionsError(f"{where}: class-conditional ADM networks are not supported; use an unconditional one")
        size, num_heads = options.integer("image_size"), options.integer("num_heads", 1)
        has_mult = arguments.get("channel_mult", "") != ""
        if not has_mult and size not in DEFAULT_MULT:
            raise OptionsError(f"{where}: channel_mult has no default for image size {size}; give it")
        head_width, heads_up = options.integer("num_head_channels", -1), options.integer("num_heads_upsample", -1)
        return cls(
            out_channels=6 if options.boolean("learn_sigma") else 3,
            base_width=options.integer("num_channels"),
            multipliers=tuple(options.numbers("channel_mult")) if has_mult else DEFAULT_MULT[size],
            num_res_blocks=options.integer("num_res_blocks", most=MAX_BLOCKS),
            attention_at=frozenset(size // side for side in options.integers("attention_resolutions", "16")),
            num_heads=num_heads,
            num_heads_up=num_heads if heads_up == -1 else heads_up,
            head_width=None if head_width == -1 else head_width,
            scale_shift_norm=options.boolean("use_scale_shift_norm"),
            resblock_updown=options.boolean("resblock_updown"),
            new_attention_order=options.boolean("use_new_attention_order"),
        )


class Upsample(nn.Module):
    """Nearest neighbour x 2, then perhaps a convolution."""

    def __init__(self, width: int, *, with_conv: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1) if with_conv else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Takes x: (B, C, H, W); result: (B, C, 2 H, 2 W)."""
        y: Tensor = self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return y


class Downsample(nn.Module):
    """Half the size, by a strided convolution or by 2 x 2 means."""

    def __init__(self, width: int, *, with_conv: bool) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1) if with_conv else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Takes x: (B, C, H, W); result: (B, C, H / 2, W / 2)."""
        y: Tensor = self.op(x)
        return y


class ResBlock(nn.Module):
    """skip(x) + conv(silu(norm'(conv(resample(silu(norm(x))))))), the time embedding inside norm' or added before it.

    resample: None, Upsample or Downsample, applied to x as well.
    """

    def __init__(
        self, config: ADMConfig, width: int, out_width: int, resample: type[Upsample | Downsample] | None = None
    ) -> None:
        super().__init__()
        self.scale_shift_norm = config.scale_shift_norm
        emb_out = 2 * out_width if config.scale_shift_norm else out_width
        self.in_layers = nn.Sequential(
            GroupNorm(NUM_GROUPS, width), Activation(), nn.Conv2d(width, out_width, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * config.base_width, emb_out))
        self.out_layers = nn.Sequential(  # the third is the reference's dropout: it has no parameters and no effect
            GroupNorm(NUM_GROUPS, out_width), Activation(), nn.Identity(), nn.Conv2d(out_width, out_width, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if out_width == width else nn.Conv2d(width, out_width, 1)
        self.resample = nn.Identity() if resample is None else resample(width, with_conv=False)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Takes x: (B, C, H, W); emb: (B, 4 base_width)."""
        norm_in, act, conv_in = self.in_layers
        norm_out, *rest = self.out_layers
        h = conv_in(self.resample(act(norm_in(x))))
        modulation = self.emb_layers(emb)[:, :, None, None]
        if self.scale_shift_norm:
            scale, shift = modulation.chunk(2, dim=1)
            h = torch.addcmul(shift, norm_out(h), 1.0 + scale)
        else:
            h = norm_out(h + modulation)
        for layer in rest:
            h = layer(h)
        skip = self.skip_connection(self.resample(x))
        out: Tensor = skip + h
        return out


class Attention(nn.Module):
    """x + proj(softmax(q k^T / sqrt(width)) v) over all pixels, per head."""

    def __init__(self, config: ADMConfig, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = width // config.head_width if config.head_width else num_heads
        self.new_order = config.new_attention_order
        self.norm = GroupNorm(NUM_GROUPS, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Takes x: (B, C, H, W); result: the same shape."""
        batch, width, height, columns = x.shape
        pixels = self.norm(x).permute(0, 2, 3, 1).reshape(batch, height * columns, width)
        qkv = functional.linear(pixels, self.qkv.weight[..., 0], self.qkv.bias)  # a 1 x 1 convolution, pixels as rows
        if self.new_order:
            q, k, v = qkv.reshape(batch, height * columns, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        else:
            q, k, v = qkv.reshape(batch, height * columns, self.num_heads, 3, -1).permute(3, 0, 2, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out = functional.linear(mixed, self.proj_out.weight[..., 0], self.proj_out.bias)
        return x + out.reshape(batch, height, columns, width).permute(0, 3, 1, 2)


class Stage(nn.ModuleList):
    """Layers in a row, of which the residual blocks are given the time embedding."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(layers)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Takes x: (B, C, H, W); emb: (B, 4 base_width)."""
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class ADM(nn.Module):
    """eps, and the share v of the learned variance where there is one, of x_t at step t."""

    def __init__(self, config: ADMConfig) -> None:
        super().__init__()
        self.config = config
        self.base_width, emb_width = config.base_width, 4 * config.base_width
        widths = [int(config.base_width * m) for m in config.multipliers]
        self.multiple = 2 ** (len(widths) - 1)  # H and W must be divisible by it
        self.time_embed = nn.Sequential(
            nn.Linear(config.base_width, emb_width), nn.SiLU(), nn.Linear(emb_width, emb_width)
        )
        self.input_blocks, skip_widths = _encoder(config, widths)
        middle = widths[-1]
        self.middle_block = Stage(
            ResBlock(config, middle, middle),
            Attention(config, middle, config.num_heads),
            ResBlock(config, middle, middle),
        )
        self.output_blocks = _decoder(config, widths, skip_widths)
        self.out = nn.Sequential(
            GroupNorm(NUM_GROUPS, widths[0]), Activation(), nn.Conv2d(widths[0], config.out_channels, 3, padding=1)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns the network's output, (B, out_channels, H, W), in x's dtype.

        x: (B, channels, H, W), H and W divisible by `multiple`; t: (B,) step numbers 0 .. 999, fractions allowed.
        Raises ValueError for other sizes.
        """
        if x.shape[2] % self.multiple or x.shape[3] % self.multiple:
            raise ValueError(f"an image of {x.shape[2]} x {x.shape[3]} is not divisible by {self.multiple}")
        dtype = next(self.parameters()).dtype
        emb = self.time_embed(time_features(t, self.base_width).to(dtype))
        h, skips = x.to(dtype), []
        for stage in self.input_blocks:
            h = stage(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), emb)
        output: Tensor = self.out(h)
        return output.to(x.dtype)


def _encoder(config: ADMConfig, widths: list[int]) -> tuple[nn.ModuleList, list[int]]:
    """Returns the encoder's stages, and the width that each leaves as a skip."""
    stages = [Stage(nn.Conv2d(config.channels, widths[0], 3, padding=1))]
    skip_widths = [widths[0]]
    for level, (before, width) in enumerate(pairwise([widths[0], *widths])):
        for block in range(config.num_res_blocks):
            stages.append(Stage(ResBlock(config, width if block else before, width)))
            if 2**level in config.attention_at:
                stages[-1].append(Attention(config, width, config.num_heads))
            skip_widths.append(width)
        if level < len(widths) - 1:
            stages.append(Stage(_resample(config, width, Downsample)))
            skip_widths.append(width)
    return nn.ModuleList(stages), skip_widths


def _decoder(config: ADMConfig, widths: list[int], skip_widths: list[int]) -> nn.ModuleList:
    """Returns the decoder's stages; each is fed one skip, the last first."""
    stages, skips, before = [], list(skip_widths), widths[-1]
    for level, width in reversed(list(enumerate(widths))):
        for block in range(config.num_res_blocks + 1):
            stage = Stage(ResBlock(config, before + skips.pop(), width))
            if 2**level in config.attention_at:
                stage.append(Attention(config, width, config.num_heads_up))
            if level > 0 and block == config.num_res_blocks:
                stage.append(_resample(config, width, Upsample))
            stages.append(stage)
            before = width
    return nn.ModuleList(stages)


def _resample(config: ADMConfig, width: int, kind: type[Upsample | Downsample]) -> nn.Module:
    """Returns a change of resolution: a residual block, or the plain layer with its convolution."""
    return ResBlock(config, width, width, kind) if config.resblock_updown else kind(width, with_conv=True)


def time_features(t: Tensor, width: int) -> Tensor:
    """Returns [cos(t f_k), sin(t f_k)], f_k = exp(-ln(10000) k / (width / 2)), in float32. t: (B,); result: (B, width).

    An odd width, which no published model has, is refused: ValueError.
    """
    if width % 2:
        raise ValueError(f"width is {width}; it must be even")
    half = width // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32, device=t.device) * (-math.log(MAX_PERIOD) / half))
    phase = t.float()[:, None] * frequencies
    return torch.cat([phase.cos(), phase.sin()], dim=1)
