"""Safetensors files, written whole or not at all, and read where the library is not installed.

The format: the header's length (8 bytes, little-endian), the header (JSON: of each tensor its type, shape and place),
the tensors. Needs torch alone.
"""

from __future__ import annotations

import ctypes
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from dmps_cli.errors import InputError, WeightsError
from dmps_cli.files.atomic import atomic_write

TYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_safetensors(
    target: Path, state: dict[str, Tensor], metadata: Mapping[str, str], *, where: str, overwrite: bool = True
) -> None:
    """Writes tensors of the CPU and strings as a safetensors file, whole or not at all.

    where: what the tensors came from, for messages. Raises OutputError; WeightsError for what is not plain numbers.
    """
    header = _header(state, metadata, where)

    def write(file: BinaryIO) -> None:
        file.write(struct.pack("<Q", len(header)) + header)
        for value in state.values():
            file.write(_bytes_of(value))

    atomic_write(target, write, overwrite=overwrite)


def _bytes_of(value: Tensor) -> memoryview:
    """Returns the bytes of a tensor of the CPU, in the order of its indices."""
    held = value.detach().contiguous()
    buffer = (ctypes.c_char * (held.numel() * held.element_size())).from_address(held.data_ptr())
    buffer.held = held  # type: ignore[attr-defined]  # as long as the bytes are in use
    return memoryview(buffer)


def _header(state: dict[str, Tensor], metadata: Mapping[str, str], where: str) -> bytes:
    """Returns the header of a safetensors file: types, shapes, places; padded with spaces to a multiple of 8.

    Written here and not by the library, whose bytes are either all in memory or under a name of its own.
    """
    said = {key: value.encode(errors="replace").decode() for key, value in metadata.items()}  # no lone surrogates
    table: dict[str, object] = {"__metadata__": said}
    start = 0
    for name, value in state.items():
        if value.dtype not in TYPE_NAMES or value.layout != torch.strided:
            raise WeightsError(f"{where}: {name} is {value.dtype}, {value.layout}; weights are plain numbers")
        end = start + value.numel() * value.element_size()
        table[name] = {
            "dtype": TYPE_NAMES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(table, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def load_plain(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns (tensors, metadata) of a safetensors file, without the library. Raises InputError, WeightsError."""
    try:
        content = bytearray(path.read_bytes())
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc
    types = {name: dtype for dtype, name in TYPE_NAMES.items()}
    try:
        begin = 8 + struct.unpack("<Q", content[:8])[0]
        table = json.loads(content[8:begin])
        metadata = table.pop("__metadata__", {})
        tensors = {
            name: torch.frombuffer(
                content,
                dtype=types[entry["dtype"]],
                count=math.prod(entry["shape"]),
                offset=begin + entry["data_offsets"][0],
            ).reshape(entry["shape"])
            for name, entry in table.items()
        }
    except (struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError) as exc:
        raise WeightsError(f"{path} is damaged, or no safetensors file ({exc})") from exc
    return tensors, metadata
