"""Noise of each number of y by itself: the file of --sigma, or what a sidecar holds of it, as a tensor like y."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli.errors import InputError
from dmps_cli.files.reading import load_array
from dmps_cli.units import MAX_SIGMA, MIN_SIGMA

if TYPE_CHECKING:
    from torch import Tensor

    from dmps_cli.operators.base import LinearOperator

MOST_VALUES = 2_500_000
"""Standard deviations that a sidecar holds, within the bytes that are read of one (`files.reading.MAX_TEXT`)."""

EachSigma = Path | Mapping[str, Any]
"""Where the standard deviations of all numbers of y are: a file, or a sidecar's own."""


def each_sigma(given: EachSigma, op: LinearOperator) -> Tensor:
    """Returns (*op.out_shape) of standard deviations on [-1, 1]. Raises InputError where they are none of y's.

    An array has y's shape, or one that y's is made of by repeating; that of a picture fills what the operator takes of
    one. Of a picture the value v of 255 is v / 127.5: its noise in grey levels.
    """
    name = str(given) if isinstance(given, Path) else "the noise in the sidecar"
    values = _of_file(given) if isinstance(given, Path) else _decoded(given)
    least, most = float(values.min()), float(values.max())
    if not MIN_SIGMA <= least <= most <= MAX_SIGMA:
        wrong = most if least >= MIN_SIGMA else least
        raise InputError(
            f"{name} holds {wrong:g}; a standard deviation is a number from {MIN_SIGMA:g} to {MAX_SIGMA:g}"
        )
    shaped = _shaped(values.to(op.device, op.dtype), op)
    if shaped is None:
        raise InputError(f"{name} holds {tuple(values.shape)}, and the measurement {op.out_shape}; one for each is due")
    return shaped


def recorded(values: Tensor) -> dict[str, Any]:
    """Returns standard deviations as a sidecar holds them: {shape, float32: little-endian, in base64}.

    Raises InputError for more than it can.
    """
    if values.numel() > MOST_VALUES:
        raise InputError(f"a sidecar holds the noise of at most {MOST_VALUES} values, not of {values.numel()}")
    raw = values.cpu().numpy().astype("<f4").tobytes()
    return {"shape": list(values.shape), "float32": base64.b64encode(raw).decode()}


def common_sigma(values: Tensor) -> float:
    """Returns the one that stands for all: the inverse of their precisions' root mean square, as `whitened` has it."""
    return math.sqrt(1.0 / float((1.0 / values.double().cpu() ** 2).mean()))


def _of_file(path: Path) -> Tensor:
    import numpy as np
    import torch

    if path.suffix.lower() != ".npy":
        from dmps_cli.files.images import load

        return load(path).pixels + 1.0
    array = load_array(path)
    if array.dtype.kind not in "fiu" or not array.size or not np.isfinite(array).all():
        raise InputError(f"{path} holds {array.dtype} of shape {array.shape}; expected finite real numbers")
    return torch.from_numpy(array.astype("float32"))


def _decoded(given: Mapping[str, Any]) -> Tensor:
    import numpy as np
    import torch

    try:
        raw = base64.b64decode(given["float32"], validate=True)
        values = np.frombuffer(raw, dtype="<f4").reshape(given["shape"]).astype("float32")
    except (KeyError, TypeError, ValueError, binascii.Error) as exc:
        raise InputError(f"the noise in the sidecar is damaged ({exc}); give it with --sigma") from exc
    if not values.size or not np.isfinite(values).all():
        raise InputError("the noise in the sidecar is damaged (no finite numbers); give it with --sigma")
    return torch.from_numpy(values)


def _shaped(values: Tensor, op: LinearOperator) -> Tensor | None:
    """Returns them as the operator's y has its numbers; None where they do not fit."""
    if values.numel() == math.prod(op.out_shape):
        return values.reshape(op.out_shape)
    if values.ndim not in (2, 3):
        return None
    picture = values if values.ndim == 3 else values[None]
    size = tuple(picture.shape[1:])
    if len(picture) == 1 and size == op.out_shape[1:]:
        return picture.expand(op.out_shape)
    if len(picture) in (1, op.in_shape[0]) and size == op.in_shape[1:] and op.pattern is not None:
        kept = op.from_image(picture.expand(op.in_shape)[None])[0]  # of a mask: what it keeps of a picture
        return kept if tuple(kept.shape) == op.out_shape else None
    return None
