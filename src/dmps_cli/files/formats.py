"""What files of a format begin with: enough to tell a download from an error page."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath

HEAD = 1024  # bytes that tell
_LEGACY_PICKLE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6
_MARKUP = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|!--|html|head|body|\?xml)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Format:
    """name: 'a checkpoint'; fits: whether the first HEAD bytes of a file can be its; most: bytes that are plausible."""

    name: str
    fits: Callable[[bytes], bool]
    most: float = math.inf


def checkpoint_kind(head: bytes) -> str | None:
    """Returns 'safetensors', 'zip' (torch.save) or 'legacy' (before torch 1.6), by the first bytes.

    None for anything else.
    """
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(_LEGACY_PICKLE):
        return "legacy"
    return "safetensors" if head[8:9] == b"{" else None


def is_markup(head: bytes) -> bool:
    """Returns whether it is a web page, or what a server says instead of a file."""
    return _MARKUP.match(head) is not None


CHECKPOINT = Format(name="a checkpoint", fits=lambda head: checkpoint_kind(head) is not None)
PARQUET = Format(name="a parquet file", fits=lambda head: head.startswith(b"PAR1"))
JSON = Format(name="JSON", fits=lambda head: head.lstrip()[:1] in (b"{", b"["), most=2**26)

_BY_SUFFIX = {".json": JSON, ".parquet": PARQUET} | dict.fromkeys((".safetensors", ".bin", ".pt", ".pth"), CHECKPOINT)


def format_of(name: str) -> Format | None:
    """Returns the format that a name promises; None where it promises none that is known here."""
    return _BY_SUFFIX.get(PurePath(name).suffix.lower())
