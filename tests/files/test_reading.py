"""Inputs that are no files, claim to be larger than they are, or are damaged: one line each, and no waiting."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmps_cli.errors import InputError
from dmps_cli.evaluation.pictures import list_pictures
from dmps_cli.files.atomic import sha256_file
from dmps_cli.files.reading import decoding, load_array, read_bytes
from tests.shell import FAST, Dmps, photo


@pytest.fixture
def special(tmp_path: Path) -> dict[str, Path]:
    """A named pipe, a link to one, a link to a device, a socket."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(tmp_path)  # the name of a socket has at most 107 bytes
        listener.bind("socket")
        os.chdir(here)
    return {name: tmp_path / name for name in ("pipe", "link", "zero", "socket")}


KINDS = {"pipe": "a named pipe", "link": "a named pipe", "zero": "a device", "socket": "a socket"}


@pytest.mark.posix
@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_regular_file_is_not_waited_for(special: dict[str, Path], name: str) -> None:
    with pytest.raises(OSError, match=f"it is {KINDS[name]}, not a regular file"):
        read_bytes(special[name])


@pytest.mark.posix
@pytest.mark.parametrize("name", ["link", "zero"])
def test_commands_refuse_it_in_one_line(dmps: Dmps, tmp_path: Path, special: dict[str, Path], name: str) -> None:
    photo(tmp_path / "p.png")
    (tmp_path / "set").mkdir()
    photo(tmp_path / "set" / "a.png")
    photo(tmp_path / "q.png")
    (tmp_path / "q.json").symlink_to(special[name])
    for command in (
        ("restore", name, "--task", "denoise"),
        ("restore", "q.png", "--task", "denoise"),
        ("restore", "p.png", "--task", "inpaint", "--mask", name),
        ("restore", "p.png", "--task", "denoise", "--model", f"./{name}"),
        ("restore", "p.png", "--task", "denoise", "--weights-file", name),
        ("restore", "p.png", "--task", "denoise", "--reference", name),
        ("degrade", name, "--task", "denoise"),
        ("eval", "--dataset", "set", "--list", name),
        ("models", "list", "--weights-file", name),
    ):
        result = dmps(*command)
        assert result.code in (1, 2), command
        assert [line.partition(":")[2][:7] for line in result.err.splitlines()][-1] == " error:", result.err
        assert len([line for line in result.err.splitlines() if "error:" in line]) == 1, result.err


@pytest.mark.posix
def test_floats_that_are_no_file_are_called_what_they_are(dmps: Dmps, tmp_path: Path, special: dict[str, Path]) -> None:
    photo(tmp_path / "p.png")
    assert not dmps("degrade", "p.png", "--task", "sr2", "-o", "y.png").code
    (tmp_path / "y.npy").unlink()
    (tmp_path / "y.npy").symlink_to(special["pipe"])
    result = dmps("restore", "y.png", *FAST)
    assert result.code == 0
    assert "y.npy cannot be read (it is a named pipe, not a regular file): the 8-bit pixels of y.png" in result.err


def test_a_list_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png"):
        photo(tmp_path / name, (16, 16))
    monkeypatch.setattr("sys.stdin", io.StringIO("b.png\n"))
    assert list_pictures(str(tmp_path), Path("-")) == {"b.png": tmp_path / "b.png"}


def test_only_so_much_is_read(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(bytes(11))
    assert len(read_bytes(path, 11)) == 11
    with pytest.raises(OSError, match="it has 11 bytes; at most 10 are read"):
        read_bytes(path, 10)


def test_names_that_no_file_can_have() -> None:
    for name in ("a\0b", "\ud800"):
        with pytest.raises(OSError, match="no file can have that name"):
            read_bytes(Path(name))


# Arrays


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (100000, 100000), }", "claims 40000000000 bytes"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4), }", "claims"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (99", "damaged"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': 3, }", "damaged"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "damaged"),
        ("{'descr': " + "(" * 500, "damaged"),
        ("3", "damaged"),
    ],
)
def test_a_damaged_array_is_one_line(tmp_path: Path, header: str, said: str) -> None:
    text = header.encode() + b"\n"
    path = tmp_path / "y.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64))
    with pytest.raises(InputError, match=said) as error:
        load_array(path)
    assert "\n" not in str(error.value)


def test_no_array_file_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones(3))
    for content in ((tmp_path / "a.npz").read_bytes(), b"", b"PK", b"\x80\x04K\x03."):
        (tmp_path / "y.npy").write_bytes(content)
        with pytest.raises(InputError, match="not a NumPy array file"):
            load_array(tmp_path / "y.npy")


def test_numbers_that_float32_has_not(dmps: Dmps, tmp_path: Path) -> None:
    for value in (np.float64(1e300), np.float32(3e38), np.longdouble("1e4000")):
        np.save(tmp_path / "y.npy", np.full((3, 16, 16), value))
        result = dmps("restore", "y.npy", "--task", "sr4", *FAST)
        assert (result.code, f"{value:g}, too large for float32" in result.err) == (1, True), result.err
    np.save(tmp_path / "y.npy", np.full((3, 16, 16), 1e12, dtype=np.float32))
    assert dmps("restore", "y.npy", "--task", "sr4", "--sigma", "0.05", "--range", "-1,1", *FAST).code == 0
    photo(tmp_path / "p.png")
    for option in (("--sigma", "1e-30"), ("--lambda", "1e300"), ("--cap", "1e300")):
        result = dmps("restore", "p.png", "--task", "deblur", *option, *FAST)
        assert (result.code, result.err.count("\n")) == (2, 1), result.err


@pytest.mark.parametrize("name", ["x.png", "x.npy"])
def test_a_picture_of_a_terabyte_is_not_read(dmps: Dmps, tmp_path: Path, name: str) -> None:
    photo(tmp_path / "p.png")
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**40)  # of no room on the disk
    result = dmps("restore", name, "p.png", "--task", "sr4", "-o", "out/", *FAST)
    assert (result.code, f"{name}: it has 1099511627776 bytes" in result.err) == (1, True), result.err
    assert (tmp_path / "out" / "p_restored.png").is_file()
    assert dmps("degrade", name, "--task", "sr4").code == 1


def test_a_file_that_would_keep_us_waiting_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As /proc/kmsg does, a regular file that has nothing to read yet."""
    (tmp_path / "x").write_bytes(b"abc")
    reads = iter([b"abc", None])
    monkeypatch.setattr("dmps_cli.files.atomic.open_regular", lambda *_, **__: _Slow(reads))
    assert sha256_file(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()


class _Slow(io.BytesIO):
    def __init__(self, reads: Iterator[bytes | None]) -> None:
        super().__init__()
        self.reads = reads

    def read(self, size: int | None = -1) -> bytes:
        return next(self.reads)  # type: ignore[return-value] # None: nothing yet


# A batch goes on


def test_one_bad_input_does_not_end_the_batch(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "a.png", (16, 16))
    (tmp_path / "b.npy").write_bytes(b"PK\x03\x04 damaged")
    (tmp_path / "c.gif").write_bytes(
        b"GIF89a\x10\x00\x10\x00\x80\x00\x00" + bytes(6) + b"\x2c" + bytes(8) + b"\xff" * 40
    )
    (tmp_path / "d.npy").write_bytes(b"\x93NUMPY\x01\x00\x05\x00{'a'(")
    photo(tmp_path / "e.png", (16, 16))
    result = dmps("restore", "a.png", "b.npy", "c.gif", "d.npy", "e.png", "--task", "denoise", *FAST)
    assert result.out.splitlines() == ["a_restored.png", "e_restored.png"]
    assert (result.code, "3 of 5 failed: b.npy, c.gif, d.npy" in result.err) == (1, True), result.err


@pytest.mark.parametrize(
    "error", [ValueError("a\nb"), TypeError(), OverflowError("x"), IndexError(), RuntimeError("r")]
)
def test_whatever_a_decoder_raises_is_a_line(error: Exception) -> None:
    with (
        pytest.raises(InputError, match=r"^cannot read a\.gif: the file is damaged \(.+\)$") as caught,
        decoding("a.gif"),
    ):
        raise error
    assert caught.value.__cause__ is error


def test_too_little_memory_is_no_damage() -> None:
    with pytest.raises(MemoryError), decoding("a.gif"):
        raise MemoryError


# Sidecars


def png(width: int, height: int) -> str:
    """A PNG in base64 whose header claims these sizes, and that holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"mask": png(20_000, 20_000)}, "mask in the sidecar"),
        ({"mask": png(12_000, 12_000)}, "it is 12000 x 12000 px, the picture 32 x 24"),
        ({"mask": "@"}, "mask in the sidecar is damaged"),
        ({"sigma_y": 1e-30}, "sigma_y is 1e-30; expected 0, or a number from 1e-09 to 10 on [-1, 1]"),
        ({"image_shape": [3, 16_000_000, 16_000_000]}, "claims a picture of 16000000 x 16000000 px"),
        ({"source": {"file": "../../x"}}, "source."),
        ({"picture": "a/b.png"}, "picture is 'a/b.png'; expected the name of a file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_sidecar_claims_is_checked(dmps: Dmps, tmp_path: Path, edit: dict[str, Any], said: str) -> None:
    photo(tmp_path / "p.png")
    dmps("degrade", "p.png", "--task", "inpaint", "-o", "y.png")
    content = json.loads(Path("y.json").read_text())
    if "mask" in edit:
        content["operator"] |= {"mask": "m.png", "fraction": None, "operator_seed": None}
    Path("y.json").write_text(json.dumps(content | edit))
    result = dmps("restore", "y.png", *FAST, "-q")
    assert (result.code, result.err.count("\n")) == (1, 1), result.err
    assert said in result.err


def test_numbers_of_many_digits(dmps: Dmps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "p.png")
    digits = "1" * 5000
    shard = dmps("eval", "--dataset", ".", "--shard", f"{digits}/{digits}")
    assert (shard.code, shard.err.count("\n")) == (2, 1), shard.err
    monkeypatch.setenv("DMPS_MAX_PIXELS", digits)
    result = dmps("restore", "p.png", "--task", "denoise", *FAST, "-q")
    assert (result.code, result.err.count("\n")) == (2, 1), result.err
