"""Ways to spoil what is read: bytes, numbers, trees of JSON and TOML, PNG chunks, whole files."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

Tree = Any
LONG = "@LONG@"  # stands for an integer of 5000 digits, which Python does not print

OUTSIDE = (
    *("../outside/keep.png", "../../outside/keep.png", "../../../outside/keep.png", "../../../../outside/keep.png"),
    "../../../../../outside/keep.png",
    "/proc/self/cwd/outside/keep.png",
)
TEXTS = (
    *("", " ", ".", "..", "/", "~", "~nosuchuser", "~nosuchuser/x", "a\\b", "a/b.png", "con", "None", "true"),
    *("x" * 300, "x" * 70000, "\0", "a\0b", "a\nb", "\r", "\x1b[2J", "\x9b31m", "\u202e", "\ud800", "\udce9"),
    *("\u00e9", "\u00b2", "\u0663", "\ufeff", "=1+1", "-1", "@SUM(A1)", "<script>alert(1)</script>", "%s%n"),
    *("{0}", "${x}", "$(touch outside/pwned)", "[b]", "|", "&", "nan", "inf", "1e300", "1e-300", "9" * 5000),
    *("0x10", "1_0", "+1", "1.5", "0", "1,2,3,4", "1,2", "/dev/zero", "/dev/full", "--help", "a/b/c"),
    *("http://127.0.0.1:80@h/f", "https://h/..", "file:///etc/passwd", "https://[::1", "https://h\0/f"),
    *("sr4", "denoise", "inpaint", "cs", "deblur", "colorize", "dmps", "dps", "ddpm", "flow", "natural"),
    *("adm", "ncsnpp", "diffusers", *OUTSIDE),
)
NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 8, 15, 16, 17, 255, 256, 257, 1000, 65535, 65536, 10_000_000, 2**31 - 1, 2**31, 2**32),
    *(2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, -(2**31), -(2**63) - 1, LONG),
    *(0.5, -0.5, 1.5, 1e-6, 1e-30, 1e-300, 5e-324, 1e6, 1e30, 1e300, -1e300, -0.0, math.nan, math.inf, -math.inf),
)


def deep(rng: Random) -> Tree:
    """Lists or tables inside one another."""
    depth, value = rng.choice((20, 100, 900, 5000)), None
    for _ in range(depth):
        value = {"a": value} if rng.random() < 0.5 else [value]
    return value


def any_value(rng: Random) -> Tree:
    """A value of any kind, absurd ones for choice."""
    kinds: tuple[Callable[[], Tree], ...] = (
        lambda: deep(rng),
        lambda: rng.choice((None, True, False, [], {}, [[]], [{}], {"": ""})),
        lambda: [rng.choice(NUMBERS) for _ in range(rng.choice((1, 2, 3, 4, 5, 1000)))],
        lambda: {rng.choice(TEXTS): rng.choice(NUMBERS) for _ in range(rng.randrange(1, 4))},
        *(lambda: rng.choice(NUMBERS),) * 2,
        *(lambda: rng.choice(TEXTS),) * 3,
    )
    return rng.choice(kinds)()


# --- Trees


def _places(tree: Tree) -> list[tuple[Any, Any]]:
    """(table or list, key) of every value, but for those deeper than any that a sound tree has."""
    found: list[tuple[Any, Any]] = []
    layer = [tree]
    for _ in range(20):
        places = [(part, key) for part in layer for key in (part if isinstance(part, dict) else range(len(part)))]
        found += places
        layer = [part[key] for part, key in places if isinstance(part[key], (dict, list))]
    return found


def spoiled_tree(tree: Tree, rng: Random) -> Tree:
    """The tree with one to three of its fields dropped, retyped, replaced, doubled, swapped or moved."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = _places(tree) if isinstance(tree, (dict, list)) else []
        if not places or rng.random() < 0.03:
            return any_value(rng)
        parent, key = rng.choice(places)
        value = parent[key]
        change = rng.randrange(10)
        if change == 0:
            del parent[key]
        elif change == 1:
            parent[key] = rng.choice((str(value)[:200], [value], {"a": value}, not value))
        elif change == 2 and isinstance(value, (int, float)) and not isinstance(value, bool):
            parent[key] = rng.choice(
                (-value, value * 10**6, value + 1, value - 1, float(value), int(value) if math.isfinite(value) else 0)
            )
        elif change == 3 and isinstance(value, list):
            parent[key] = rng.choice((value * 2, value[:-1], value[::-1], value * 300 if len(value) < 10 else value))
        elif change == 4:
            other, name = rng.choice(places)
            parent[key] = other[name] if not isinstance(other[name], (dict, list)) else any_value(rng)
        elif change == 5 and isinstance(parent, dict):
            parent[rng.choice(TEXTS)] = parent.pop(key)
        elif change == 6 and isinstance(parent, dict):
            parent[rng.choice(TEXTS)] = any_value(rng)
        elif change == 7 and isinstance(value, str):
            at = rng.randrange(len(value) + 1)
            parent[key] = value[:at] + rng.choice(TEXTS)[:400] + value[at:]
        else:
            parent[key] = any_value(rng)
    return tree


def json_of(tree: Tree) -> bytes:
    """JSON with NaN and lone surrogates where the tree has them."""
    return _json(tree).replace(f'"{LONG}"', "9" * 5000).encode(errors="surrogateescape")


def _json(tree: Tree) -> str:
    try:
        return json.dumps(tree)
    except RecursionError:  # deeper than Python prints
        return "[" * 50_000 + "]" * 50_000


def toml_of(tree: Tree) -> bytes:
    """TOML of a table of tables, or what is nearest to it."""
    lines: list[str] = []
    for name, table in tree.items() if isinstance(tree, dict) else [("x", tree)]:
        if isinstance(table, dict):
            lines.append(f"[{json.dumps(name)}]")
            lines += [f"{json.dumps(key)} = {_toml(value)}" for key, value in table.items() if value is not None]
        else:
            lines.append(f"{json.dumps(name)} = {_toml(table)}")
    return "\n".join(lines).encode(errors="surrogateescape")


def _toml(value: Tree) -> str:
    if value == LONG:
        return "9" * 5000
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    try:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(map(_toml, value)) + "]"
    except RecursionError:
        return "[" * 5000 + "]" * 5000
    return json.dumps(value if value is not None else "")


def spoiled_json(data: bytes, rng: Random, mend: Callable[[Tree], Tree] = lambda tree: tree) -> bytes:
    """A JSON text with its tree spoiled, mostly, or its bytes. mend: makes good what would hide the rest."""
    try:
        content = json.loads(data)
    except ValueError:  # spoiled before
        return spoiled_bytes(data, rng)
    if rng.random() < 0.15:
        return spoiled_bytes(data, rng)
    tree = spoiled_tree(content, rng)
    return json_of(mend(tree) if rng.random() < 0.8 else tree)


# --- Bytes


def spoiled_bytes(data: bytes, rng: Random) -> bytes:
    """The bytes cut, flipped, doubled, with numbers of headers made absurd."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(content) + 1) if rng.random() < 0.5 else rng.randrange(min(len(content), 200) + 1)
        change = rng.randrange(9)
        if change == 0:
            del content[at:]
        elif change == 1 and at < len(content):
            content[at] ^= 1 << rng.randrange(8)
        elif change == 2 and at < len(content):
            content[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        elif change == 3:
            content[at : at + 4] = struct.pack(
                rng.choice("<>") + "I", rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 65536, 20000))
            )
        elif change == 4:
            content[at : at + 8] = struct.pack("<Q", rng.choice((0, 1, 2**63, 2**64 - 1, 10**9, len(content))))
        elif change == 5:
            content[at:at] = rng.randbytes(rng.choice((1, 2, 7, 64)))
        elif change == 6:
            content[at:at] = content[at : at + rng.choice((1, 16, 200))]
        elif change == 7:
            del content[at : at + rng.choice((1, 2, 8, 100))]
        else:
            content[at:at] = rng.choice(
                (b"\0" * 64, b"\xff" * 64, b"\n", b"\xef\xbb\xbf", b"9" * 5000, b"\x1b[2J", b'"', b"{" * 5000)
            )
    return bytes(content)


def spoiled_png(data: bytes, rng: Random) -> bytes:
    """A PNG with its chunks changed, dropped, doubled or put in, their checksums made good."""
    chunks = png_chunks(data)
    change = rng.randrange(7)
    at = rng.randrange(len(chunks))
    if change == 0:
        side = rng.choice((0, 1, 20000, 65500, 2**31 - 1, 2**32 - 1))
        header = struct.pack(">II", side, rng.choice((1, side))) + bytes(
            rng.choice(
                (
                    chunks[0][1][8:],
                    bytes([16, 6, 0, 0, 0]),
                    bytes([rng.randrange(20), rng.randrange(8), 0, 0, rng.randrange(3)]),
                )
            )
        )
        chunks[0] = (b"IHDR", header)
    elif change == 1:
        name = rng.choice(
            (
                b"tEXt",
                b"zTXt",
                b"iTXt",
                b"iCCP",
                b"eXIf",
                b"gAMA",
                b"PLTE",
                b"tRNS",
                b"acTL",
                b"fcTL",
                b"sBIT",
                b"cHRM",
                b"pHYs",
            )
        )
        body = rng.choice(
            (b"", b"a\0\0" + zlib.compress(b"\0" * rng.choice((10, 10**6, 3 * 10**7))), rng.randbytes(40), b"\0" * 26)
        )
        chunks.insert(rng.randrange(1, len(chunks)), (name, body))
    elif change == 2:
        del chunks[at]
    elif change == 3:
        chunks.insert(at, chunks[rng.randrange(len(chunks))])
    elif change == 4:
        chunks[at] = (chunks[at][0], spoiled_bytes(chunks[at][1], rng))
    elif change == 5:
        k = next((k for k, (name, _) in enumerate(chunks) if name == b"IDAT"), 0)
        chunks[k] = (b"IDAT", zlib.compress(rng.choice((b"", b"\0" * 10**7, b"\xff" * 300, rng.randbytes(2000)))))
    else:
        return spoiled_bytes(data, rng)
    return png_of(chunks)


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """(name, body) of each."""
    found, at = [], 8
    while at + 8 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png_of(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A PNG of chunks, their checksums right."""
    parts = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# --- Files

LINKS = (
    *("/dev/zero", "/dev/full", "/dev/random", "/dev/stdin", "/dev/tty", "/proc/self/mem"),
    *("loop", "nowhere", ".", "../outside/keep.png"),
)


def special(path: Path, rng: Random) -> None:
    """Puts a pipe, a socket, a folder, a link to a device, an empty file or nothing in the place of a file."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    kind = rng.choice(("pipe", "socket", "folder", "empty", "gone", *LINKS))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        make_socket(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind != "gone":
        path.symlink_to(path.name if kind == "loop" else kind)


def make_socket(path: Path) -> None:
    """A socket by that name, with nobody behind it; names too long for one stay away."""
    with socket.socket(socket.AF_UNIX) as end:
        try:
            end.bind(os.path.relpath(path))
        except OSError:
            path.touch()
