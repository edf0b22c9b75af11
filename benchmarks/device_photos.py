"""Photographs in a device's memory, and random crops of them drawn there. Needs torch, and Pillow to decode."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Self

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional


def decoded(content: bytes) -> Tensor:
    """A picture file's pixels, (H, W, 3) of uint8. Raises OSError for what Pillow cannot read."""
    with Image.open(io.BytesIO(content)) as image:
        width, height = image.size
        return torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8).view(height, width, 3)


def read_zip(path: Path, part: str, note: Callable[[str], object]) -> list[Tensor]:
    """The photographs of a part of the zip file, those that can be decoded; note is told of the others."""
    with zipfile.ZipFile(path) as file:
        contents = {name: file.read(name) for name in file.namelist() if name.startswith(f"{part}/")}

    def read(entry: tuple[str, bytes]) -> Tensor | None:
        try:
            return decoded(entry[1])
        except (OSError, UnidentifiedImageError) as exc:
            note(f"{entry[0]} is skipped: {exc}")
            return None

    with ThreadPool() as pool:
        return [pixels for pixels in pool.map(read, contents.items()) if pixels is not None]


def mirrored(places: Tensor, lengths: Tensor) -> Tensor:
    """Places along a line of that length, which beyond its ends goes on in mirrored copies of itself."""
    turn = places.remainder(2 * lengths)
    return torch.minimum(turn, 2 * lengths - 1 - turn)


@dataclass(frozen=True, kw_only=True)
class DevicePhotos:
    """pixels: of all photographs, row after row, (P, 3) of uint8; where each begins, and its sides: (N,)."""

    pixels: Tensor
    starts: Tensor
    heights: Tensor
    widths: Tensor

    @classmethod
    def of(cls, photos: Sequence[Tensor], device: torch.device) -> Self:
        """photos: (H, W, 3) of uint8 each."""
        heights, widths = (torch.tensor([photo.shape[k] for photo in photos]) for k in (0, 1))
        sizes = heights * widths
        return cls(
            pixels=torch.cat([photo.reshape(-1, 3) for photo in photos]).to(device),
            starts=(sizes.cumsum(0) - sizes).to(device),
            heights=heights.to(device),
            widths=widths.to(device),
        )

    def windows(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """(count, 3, side, side) of uint8: parts of photographs in one of their eight positions, all equally probable.

        Of a photograph smaller than that, the edges are mirrored. generator: the device's.
        """
        device = self.pixels.device
        which = torch.randint(len(self.starts), (count,), generator=generator, device=device)
        place = torch.rand(count, 2, generator=generator, device=device, dtype=torch.float64)
        is_flipped, is_upturned, is_turned = torch.randint(2, (3, count, 1), generator=generator, device=device).bool()
        inside = torch.arange(side, device=device)

        def line(lengths: Tensor, share: Tensor, is_backward: Tensor) -> Tensor:
            first = (share * (lengths - side + 1).clamp_min(1)).long()
            within = torch.where(is_backward, side - 1 - inside, inside)
            return mirrored(first[:, None] + within, lengths[:, None])

        heights, widths = self.heights[which], self.widths[which]
        rows, columns = line(heights, place[:, 0], is_upturned), line(widths, place[:, 1], is_flipped)
        found = (self.starts[which, None] + rows * widths[:, None])[:, :, None] + columns[:, None, :]
        found = torch.where(is_turned[:, :, None], found.mT, found)
        return self.pixels[found].permute(0, 3, 1, 2)

    def crops(self, count: int, side: int, scale: float, generator: torch.Generator) -> Tensor:
        """(count, 3, side, side) on [-1, 1]: windows of the photographs, shrunk to `scale` of their size, at most 1."""
        x = self.windows(count, round(side / scale), generator).float() / 127.5 - 1.0
        if x.shape[-1] == side:
            return x
        return functional.interpolate(x, (side, side), mode="bicubic", antialias=True).clamp(-1.0, 1.0)
