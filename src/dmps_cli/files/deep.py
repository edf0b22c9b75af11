"""Colour of 16 bits a channel, which Pillow reads with 8: by imagecodecs and tifffile, an extra.

`pip install 'dmps-cli[deep]'`; without it 8 bits are read, which is said.
"""

from __future__ import annotations

from importlib.util import find_spec
from io import BytesIO
from typing import BinaryIO

import numpy as np

INSTALL = "pip install 'dmps-cli[deep]'"
FORMATS = ("PNG", "TIFF")


def is_there() -> bool:
    """Returns whether the extra is installed."""
    return all(find_spec(name) is not None for name in ("imagecodecs", "tifffile"))


def read(file: BinaryIO, kind: str) -> np.ndarray:
    """Returns (H, W, C) of uint16, as they lie in the file. kind: one of FORMATS. Raises what the decoders do."""
    file.seek(0)
    content = file.read()
    if kind == "PNG":
        import imagecodecs

        return np.asarray(imagecodecs.png_decode(content))
    import tifffile

    with tifffile.TiffFile(BytesIO(content)) as tiff:
        page = tiff.pages.first
        values = np.asarray(page.asarray())
        return (
            np.moveaxis(values, 0, -1) if page.planarconfig == 2 and values.ndim == 3 else values
        )  # one after another


def to_srgb(values: np.ndarray, icc: bytes) -> np.ndarray:
    """Returns (H, W, 3) of uint16 by its colour profile in sRGB."""
    import imagecodecs

    srgb = imagecodecs.cms_profile("srgb")
    return np.asarray(imagecodecs.cms_transform(values, icc, srgb, colorspace="rgb", outcolorspace="rgb"))
