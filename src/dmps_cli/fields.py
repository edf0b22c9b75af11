"""Images too large to be worked on in one piece: tensors whose rows are computed when they are asked for.

A `Field` stands wherever a tensor of images (1, C, H, W) does. Arithmetic on fields is remembered, not done; it is done
row by row where a result is stored. So a sampler, a method and an operator that are written for tensors work strip by
strip, and of a state that lies in a file no more than some rows are in memory. What is not row by row (an FFT, a
gather) is done on the whole, in memory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor

from dmps_cli.errors import MemoryShortageError

Rows = Callable[[int, int], Tensor]
"""(top, bottom) -> those rows, (1, C, bottom - top, W)."""

STRIP_ROWS = 64
FILE_BYTES = 2**30
"""What takes more lies in a temporary file that is mapped into memory, where the system may put it out."""

_aten = torch.ops.aten
_ROW_BY_ROW = {
    getattr(getattr(_aten, name), kind)
    for name, kinds in {
        **dict.fromkeys(
            ("add", "sub", "mul", "div", "lt", "le", "gt", "ge", "eq", "ne", "bitwise_and"), ("Tensor", "Scalar")
        ),
        **dict.fromkeys(("neg", "abs", "sqrt", "square", "exp", "clamp", "clamp_min", "clamp_max"), ("default",)),
        **dict.fromkeys(("minimum", "maximum", "zeros_like", "expand"), ("default",)),
        "rsub": ("Scalar",),
        "pow": ("Tensor_Scalar",),
        "where": ("self",),
        "mean": ("dim",),
        "sum": ("dim_IntList",),
    }.items()
    for kind in kinds
}
_OVER_CHANNELS = {_aten.mean.dim, _aten.sum.dim_IntList}


class Field(Tensor):
    """A tensor (1, C, H, W) whose rows come from a function; it has none of its own."""

    source: Rows
    last: tuple[tuple[int, int], Tensor] | None

    def __new__(cls, source: Rows, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Self:
        """source: what gives its rows, on the device."""
        return Tensor._make_wrapper_subclass(cls, torch.Size(shape), dtype=dtype, device=device)

    def __init__(self, source: Rows, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.source, self.last = source, None

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment] # as torch's notes have it

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override] # torch's is not annotated
        return f"Field({tuple(self.shape)}, {self.dtype}, {self.device})"

    def rows(self, top: int, bottom: int) -> Tensor:
        """Returns rows, (1, C, bottom - top, W); those asked for last are remembered."""
        if self.last is None or self.last[0] != (top, bottom):
            self.last = None
            self.last = (top, bottom), self.source(top, bottom)
        return self.last[1]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override] # its first argument is not in torch's own annotation
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Remembers what is row by row; does the rest on the whole."""
        kwargs = kwargs or {}
        if func is _aten.detach.default:
            return args[0]
        if func in _ROW_BY_ROW and (func not in _OVER_CHANNELS or list(args[1]) in ([1], [-3])):
            return _lazy(func, args, kwargs)
        return func(*map(_whole_within, args), **{name: _whole_within(value) for name, value in kwargs.items()})


def _lazy(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Field:
    """Returns the field of func's results, row by row."""
    like = next(arg for arg in args if isinstance(arg, Field))
    height = like.shape[-2]
    if func is _aten.expand.default:
        args = [args[0], [-1 if k == len(args[1]) - 2 else size for k, size in enumerate(args[1])]]

    def done(top: int, bottom: int) -> Tensor:
        return cast("Tensor", func(*(_rows_of(arg, top, bottom, height) for arg in args), **kwargs))

    def first_row(arg: Any) -> Any:
        if isinstance(arg, Field):
            return torch.zeros((*arg.shape[:-2], 1, arg.shape[-1]), dtype=arg.dtype, device=arg.device)
        return _rows_of(arg, 0, 1, height)

    probe = func(*map(first_row, args), **kwargs)
    return Field(done, (*probe.shape[:-2], height, probe.shape[-1]), probe.dtype, probe.device)


def _rows_of(arg: Any, top: int, bottom: int, height: int) -> Any:
    """Returns the rows of what has as many; anything else as it is."""
    if isinstance(arg, Field):
        return arg.rows(top, bottom)
    if isinstance(arg, Tensor) and arg.ndim >= 2 and arg.shape[-2] == height:
        return arg[..., top:bottom, :]
    return arg


def _whole_within(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_whole_within(each) for each in value]
    return whole(value) if isinstance(value, Field) else value


def field(x: Tensor, device: torch.device) -> Field:
    """Returns the field of a tensor (1, C, H, W) on the CPU, its rows put on the device."""
    return Field(lambda top, bottom: x[..., top:bottom, :].to(device), x.shape, x.dtype, device)


def rows(x: Tensor, top: int, bottom: int) -> Tensor:
    """Returns rows of a field or a tensor (.., H, W)."""
    return x.rows(top, bottom) if isinstance(x, Field) else x[..., top:bottom, :]


def strips(height: int, rows: int = STRIP_ROWS) -> Iterator[tuple[int, int]]:
    """Yields (top, bottom) of strips of so many rows, from the top."""
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def buffer(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns zeros on the CPU: in memory, or in a file without a name where they take more than FILE_BYTES.

    Raises MemoryShortageError where there is no room for the file (TMPDIR says where it lies).
    """
    size = prod(shape) * dtype.itemsize
    if size <= FILE_BYTES:
        return torch.zeros(tuple(shape), dtype=dtype)
    folder = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(prefix="dmps-") as file:
            _reserve(file.fileno(), size)  # a full disk would end the process as a page is written
            mapped = np.memmap(file, dtype=np.uint8, mode="r+", shape=(size,))  # it keeps the file
    except OSError as exc:
        raise MemoryShortageError(
            f"a file of {size / 2**30:.1f} GiB in {folder} is needed and cannot be made ({exc.strerror}); set TMPDIR "
            "to a folder with room"
        ) from exc
    return torch.from_numpy(mapped).view(dtype).reshape(tuple(shape))


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)


def buffer_like(x: Tensor) -> Tensor:
    """Returns zeros to be filled like x: a tensor on its device, or the buffer of a field."""
    return buffer(x.shape, x.dtype) if isinstance(x, Field) else torch.zeros_like(x)


def filled(values: Tensor, like: Tensor) -> Tensor:
    """Returns a filled buffer as what it was made like."""
    return field(values, like.device) if isinstance(like, Field) else values


def store(x: Tensor, into: Tensor) -> Field:
    """Computes a field strip by strip into a tensor on the CPU; that may be what x was made of, row by row."""
    for top, bottom in strips(x.shape[-2]):
        into[..., top:bottom, :] = rows(x, top, bottom).to(into.device)
    return field(into, x.device)


def whole(x: Tensor) -> Tensor:
    """Returns a field in one piece, on its device, in memory; a tensor as it is."""
    if not isinstance(x, Field):
        return x
    return torch.cat([x.rows(top, bottom) for top, bottom in strips(x.shape[-2])], dim=-2)


def all_finite(x: Tensor) -> Tensor:
    """Returns whether all values are finite, a tensor of bool."""
    if not isinstance(x, Field):
        return torch.isfinite(x).all()
    found = [torch.isfinite(x.rows(top, bottom)).all() for top, bottom in strips(x.shape[-2])]
    return torch.stack(found).all()
