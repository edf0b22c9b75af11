"""The quantized coefficients of a JPEG file: tables, chroma subsampling, blocks; by the extra `jpeg`."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli.errors import InputError, UsageError
from dmps_cli.files.reading import open_regular

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dmps_cli.operators.jpeg import Coefficients
    from dmps_cli.operators.measurement import Measurement

_START = b"\xff\xd8\xff"
_SPACES = {"JCS_YCbCr": "ycbcr", "JCS_RGB": "rgb", "JCS_GRAYSCALE": "grey"}


def jpeg_measurement(
    path: Path, channels: int, device: torch.device | str, dtype: torch.dtype | None = None
) -> tuple[Measurement, str]:
    """Returns (the measurement that a JPEG file is, a sentence on it), for a prior of that many channels.

    Of a file in colour a prior of grey pictures is given the luma, which is the grey value. Raises as
    `read_coefficients`.
    """
    import torch

    found = read_coefficients(path)
    if channels == 1 and found.layout.colours == "ycbcr":
        grey = replace(found.layout, colours="grey", factors=((1, 1),), steps=found.layout.steps[:1])
        rows, columns = grey.grid
        found = replace(found, layout=grey, planes=[found.planes[0][:rows, :columns]])
    elif channels == 1 and found.layout.colours == "rgb":
        raise InputError(
            f"{path} holds red, green and blue, and the prior is one of grey pictures; choose one of colour"
        )
    measured = found.measurement(dtype=dtype or torch.float32, device=device)
    least, most = (float(step) for step in (found.layout.steps.min(), found.layout.steps.max()))
    about = f"{found.layout.describe()}, quantization steps {least:g} to {most:g}; its rounding is taken for noise"
    return measured, about


def read_coefficients(path: Path) -> Coefficients:
    """Returns what a JPEG file holds.

    A block beyond those of the file is its neighbour's edge continued. Raises InputError for what is no JPEG file,
    damaged, or has other colours; UsageError without the package that reads coefficients.
    """
    import numpy as np
    import torch

    from dmps_cli.files.images import load
    from dmps_cli.operators.jpeg import Coefficients, Layout

    if not is_jpeg(path):
        raise InputError(f"{path} is no JPEG file; task 'jpeg' takes its coefficients, which no other file holds")
    load(path)  # whole, regular, not too large: what the decoder below does not ask
    image = _read(path)
    space = _SPACES.get(str(image.jpeg_color_space).rsplit(".", maxsplit=1)[-1])
    planes = [image.Y] if space == "grey" else [image.Y, image.Cb, image.Cr]
    if space is None or image.has_black:
        raise InputError(f"{path} is JPEG in {image.jpeg_color_space}; expected YCbCr, RGB or grey")
    factors = tuple((int(v), int(h)) for v, h in image.samp_factor[: len(planes)])
    if space == "grey":
        factors = ((1, 1),)
    most = [max(factor[axis] for factor in factors) for axis in (0, 1)]
    if any(most[axis] % factor[axis] for factor in factors for axis in (0, 1)):
        raise InputError(f"{path} has chroma subsampled by no whole number; it is not read")
    tables = np.stack([image.qt[image.quant_tbl_no[k]] for k in range(len(planes))])
    layout = Layout(
        size=(int(image.height), int(image.width)),
        colours=space,
        factors=factors,
        steps=torch.from_numpy(tables.astype(np.float64)),
    )
    coefficients = [
        torch.from_numpy(plane.astype(np.float64)) * steps for plane, steps in zip(planes, layout.steps, strict=True)
    ]
    rows, columns = layout.grid
    parts = zip(coefficients, factors, strict=True)
    whole = [_continued(_continued(plane, rows * v, 0), columns * h, 1) for plane, (v, h) in parts]
    return Coefficients(layout=layout, planes=whole)


def is_jpeg(path: Path) -> bool:
    """Returns whether a file begins as JPEG does. Raises InputError where it cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(len(_START)) == _START
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc


def _read(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import jpeglib
    except ImportError as exc:
        raise UsageError(
            "the coefficients of a JPEG file are read by the package jpeglib; pip install 'dmps-cli[jpeg]'"
        ) from exc
    try:
        image = jpeglib.read_dct(str(path))
        image.load()
    except (OSError, ValueError, KeyError, IndexError) as exc:
        raise InputError(f"{path} is no JPEG file, or damaged ({exc})") from exc
    return image


def _continued(plane: Tensor, count: int, axis: int) -> Tensor:
    """Returns a plane of so many blocks along an axis: new ones have the last samples of the last one throughout.

    At frequency 0 along the axis: sqrt(8) times the sum over frequencies l of the coefficient times D[l, 7].
    """
    import torch

    from dmps_cli.operators.jpeg import BLOCK, dct_matrix

    missing = count - plane.shape[axis]
    if missing <= 0:
        return plane.narrow(axis, 0, count)
    along = 2 + axis
    last = plane.narrow(axis, plane.shape[axis] - 1, 1)
    edge = torch.tensordot(last, dct_matrix()[:, -1], dims=([along], [0])).unsqueeze(along) * BLOCK**0.5
    block = torch.cat([edge, torch.zeros_like(last).narrow(along, 1, BLOCK - 1)], dim=along)
    return torch.cat([plane, *[block] * missing], dim=axis)
