"""Tensors to picture files: format, depth, opacity, metadata."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dmps_cli.errors import NumericsError, OutputError
from dmps_cli.fields import strips
from dmps_cli.files import deep, png
from dmps_cli.files.metadata import NO_METADATA, Metadata
from dmps_cli.files.suffixes import DEEP, OUTPUT_SUFFIXES, WITH_ALPHA, can_be_deep, written_as

JPEG_QUALITY = 95
LARGE_PIXELS = 2**25
"""Pictures with more pixels are packed strip by strip, as PNG; smaller ones by Pillow."""

PART_ROWS = 1024  # whose floats are in memory together

_PILLOW: dict[str, tuple[str, dict[str, Any], int]] = {
    "png": ("PNG", {"compress_level": 6}, 2**31 - 1),
    "jpg": ("JPEG", {"quality": JPEG_QUALITY, "subsampling": 0}, 65500),
    "webp": ("WEBP", {"lossless": True}, 16383),
    "tiff": ("TIFF", {"compression": "tiff_deflate"}, 2**31 - 1),
    "bmp": ("BMP", {}, 2**31 - 1),
}
"""Pillow's name, its options, and the longest side, px, that the format holds."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """How a picture becomes a file. alpha: (H, W) of 0 to 1; bits: 8 or 16; quality: 1 to 100, of JPEG and WebP."""

    alpha: Tensor | None = None
    bits: int = 8
    quality: int | None = None
    metadata: Metadata | None = None


PLAIN = Written()


def lost(how: Written, target: Path) -> list[str]:
    """Returns what the format of the target's suffix cannot hold of it, for notes."""
    name = written_as(target)
    found = []
    if how.alpha is not None and name not in WITH_ALPHA:
        found.append(f"{target.suffix} holds no opacity: it is laid over white")
    if how.bits == 16 and not can_be_deep(target):
        found.append(f"{target.suffix} holds 8 bits a channel, not 16")
    return found


def to_levels(x: Tensor, bits: int = 8) -> np.ndarray:
    """Returns (C, H, W) on [-1, 1], clipped, to the nearest of 0..255 or 0..65535 (halves up).

    (H, W, C), or (H, W) for one channel.

    Raises NumericsError for NaN.
    """
    if x.isnan().any():
        raise NumericsError("the picture holds NaN and cannot be written; try --dtype float32 if another was named")
    half = (2**bits - 1) / 2.0
    kind = torch.float32 if bits == 8 else torch.float64  # 65535 halves and their rounding need more than 24 bits
    scaled = (x.detach().to("cpu", torch.float32).clamp(-1.0, 1.0).to(kind) + 1.0) * half + 0.5
    levels = scaled.floor().to(torch.uint8 if bits == 8 else torch.int32).permute(1, 2, 0).numpy()
    array: np.ndarray = levels if bits == 8 else levels.astype(np.uint16)
    return array[:, :, 0] if array.shape[2] == 1 else array


def encode(x: Tensor, target: Path, how: Written = PLAIN) -> bytes:
    """Returns the bytes of a picture file in the format that the target's suffix names. x: (1 or 3, H, W) on [-1, 1].

    PNG, TIFF, BMP and WebP (lossless, unless a quality is asked) keep the picture exactly; JPEG has quality 95 and full
    colour resolution. What a format cannot hold is left out (`lost`). Raises OutputError for another suffix, a picture
    too large for the format, or 16 bits of colour in a TIFF file without their extra.
    """
    name = check_holds(target, (x.shape[-2], x.shape[-1]))
    bits = how.bits if name in DEEP else 8
    channels = x.shape[0] + (how.alpha is not None and name in WITH_ALPHA)
    if name == "png" and ((bits == 16 and channels > 1) or x.shape[-2] * x.shape[-1] > LARGE_PIXELS):
        return b"".join(_png_chunks(x, how, bits))
    has_alpha = name in WITH_ALPHA
    parts = [_strip(x, how, *ends, bits=bits, has_alpha=has_alpha) for ends in strips(x.shape[-2], PART_ROWS)]
    values = np.concatenate(parts) if len(parts) > 1 else parts[0]
    if bits == 16 and channels > 1:
        return _deep_tiff(values, how, target)
    return _packed(Image.fromarray(values[:, :, 0] if channels == 1 else values), name, how)


def check_holds(target: Path, size: tuple[int, int]) -> str:
    """Returns the name of a target's format. Raises OutputError if it holds no picture of (height, width) px."""
    name = written_as(target)
    if name is None:
        raise OutputError(f"{target} has no suffix of a picture; choose one of {', '.join(OUTPUT_SUFFIXES)}")
    longest = _PILLOW[name][2]
    if max(size) > longest:
        shown = f"{size[1]} x {size[0]} px"
        raise OutputError(f"cannot write {target}: {name} holds at most {longest} px a side, not {shown}; use .png")
    return name


def png_bytes(image: Image.Image) -> bytes:
    """Returns the bytes of a PNG file."""
    return _packed(image, "png", PLAIN)


def _strip(x: Tensor, how: Written, top: int, bottom: int, *, bits: int, has_alpha: bool) -> np.ndarray:
    """Returns rows as (n, W, channels), opacity the last; laid over white where the format has none."""
    rows = x[:, top:bottom].detach().to("cpu", torch.float32)
    if how.alpha is None:
        return to_levels(rows, bits).reshape(*rows.shape[1:], -1)
    alpha = how.alpha[top:bottom].to(rows)
    if not has_alpha:
        return to_levels(over_white(rows, alpha), bits).reshape(*rows.shape[1:], -1)
    return to_levels(torch.cat([rows, 2.0 * alpha[None] - 1.0]), bits)


def over_white(pixels: Tensor, alpha: Tensor) -> Tensor:
    """Returns pixels + (1 - alpha) (1 - pixels): white is 1; an opaque pixel stays as it is, to the bit."""
    return pixels + (1.0 - alpha) * (1.0 - pixels)


def _png_chunks(x: Tensor, how: Written, bits: int) -> Iterator[bytes]:
    height, width = x.shape[-2:]
    parts = (_strip(x, how, *ends, bits=bits, has_alpha=True) for ends in strips(height))
    said = how.metadata
    extra = {} if said is None else png.metadata(exif=said.upright((width, height)), icc=said.icc, dpi=said.dpi)
    return png.chunks((width, height), x.shape[0] + (how.alpha is not None), bits, parts, extra)


def _deep_tiff(values: np.ndarray, how: Written, target: Path) -> bytes:
    """Returns a TIFF file of colour or of opacity in 16 bits, which Pillow does not write."""
    if not deep.is_there():
        raise OutputError(
            f"cannot write {target}: 16 bits a channel in a TIFF file need an extra ({deep.INSTALL}); take .png, or "
            "--bit-depth 8"
        )
    import tifffile

    said, buffer = how.metadata or NO_METADATA, io.BytesIO()
    if values.shape[2] == 2:  # grey and opacity: Pillow reads none of 16 bits
        values = values[:, :, [0, 0, 0, 1]]
    tifffile.imwrite(
        buffer,
        values,
        photometric="rgb",
        planarconfig="contig",
        extrasamples=["unassalpha"] if values.shape[2] == 4 else None,
        compression="zlib",
        iccprofile=said.icc,
        resolution=said.dpi,
        resolutionunit="inch" if said.dpi else None,
    )
    return buffer.getvalue()


def _packed(image: Image.Image, name: str, how: Written) -> bytes:
    kind, options, _ = _PILLOW[name]
    more: dict[str, Any] = {}
    if how.quality is not None:
        more |= {"quality": how.quality} | ({"lossless": False} if name == "webp" else {})
    if (said := how.metadata) is not None:
        known = {"exif": said.upright(image.size), "icc_profile": said.icc, "dpi": said.dpi}
        more |= {key: value for key, value in known.items() if value is not None}
        if name == "tiff" and said.exif is not None:
            more["compression"] = None  # libtiff, which compresses, does not write the tables inside EXIF
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **{**options, **more})
    return buffer.getvalue()
