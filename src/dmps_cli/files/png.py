"""PNG files row by row: 16 bits in colour, and pictures too large to be held twice, neither of which Pillow writes.

PNG Specification, third edition (W3C 2025): https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LEVEL = 6  # of the compression
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels: grey, grey with opacity, RGB, RGB with opacity
_UP, _PAETH = 2, 4


def chunks(
    size: tuple[int, int], channels: int, bits: int, strips: Iterable[np.ndarray], extra: Mapping[str, bytes]
) -> Iterator[bytes]:
    """Yields the parts of a PNG file. size: (width, height) px; strips: the rows, some (n, width, channels) at a time.

    bits: 8 or 16, as the strips' uint8 or uint16. extra: chunks before the pixels, by name. Each row goes through the
    filter of the smallest sum of absolute differences of Up and Paeth (section 12.7).
    """
    yield SIGNATURE
    yield _chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, COLOUR_TYPES[channels], 0, 0, 0))
    for name, data in extra.items():
        yield _chunk(name.encode("ascii"), data)
    packer, above = zlib.compressobj(LEVEL), np.zeros((1, size[0] * channels * bits // 8), dtype=np.uint8)
    for strip in strips:
        rows = np.ascontiguousarray(strip.astype(f">u{bits // 8}")).view(np.uint8).reshape(len(strip), -1)
        if packed := packer.compress(_filtered(rows, np.concatenate([above, rows[:-1]]), channels * bits // 8)):
            yield _chunk(b"IDAT", packed)
        above = rows[-1:]
    yield _chunk(b"IDAT", packer.flush())
    yield _chunk(b"IEND", b"")


def _filtered(rows: np.ndarray, above: np.ndarray, step: int) -> bytes:
    """Returns the rows (n, bytes) with their filters' numbers before them. step: bytes of a pixel."""

    def beside(values: np.ndarray) -> np.ndarray:
        return np.pad(values, ((0, 0), (step, 0)))[:, : values.shape[1]]

    candidates = {_UP: rows - above, _PAETH: rows - _paeth(beside(rows), above, beside(above))}
    costs = np.stack([np.abs(each.view(np.int8).astype(np.int16)).sum(1) for each in candidates.values()])
    best = costs.argmin(0)
    kinds = np.array([*candidates], dtype=np.uint8)[best][:, None]
    chosen = np.where(best[:, None] == 0, *candidates.values())
    return np.concatenate([kinds, chosen], axis=1).tobytes()


def _paeth(left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Returns of a = left, b = above, c = corner the nearest to a + b - c, a before b before c (section 9.4)."""
    a, b, c = (values.astype(np.int16) for values in (left, above, corner))
    to_a, to_b, to_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    nearest: np.ndarray = np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c)).astype(np.uint8)
    return nearest


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def metadata(*, exif: bytes | None, icc: bytes | None, dpi: tuple[float, float] | None) -> dict[str, bytes]:
    """Returns the chunks that say it: EXIF without its prefix, a colour profile, px per inch."""
    found = {}
    if icc is not None:
        found["iCCP"] = b"ICC Profile\0\0" + zlib.compress(icc)
    if dpi is not None:
        found["pHYs"] = struct.pack(">IIB", *(round(value / 0.0254) for value in dpi), 1)
    if exif is not None:
        found["eXIf"] = exif.removeprefix(b"Exif\0\0")
    return found
