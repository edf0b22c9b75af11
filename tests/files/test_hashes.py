"""Files read through once, then known by size and time; compared with what they must be."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from dmps_cli.errors import InputError, WeightsError
from dmps_cli.files import hashes
from dmps_cli.files.hashes import known_sha256, note_of, verify, write_note

CONTENT, OTHER = b"content", b"another"


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMPS_CACHE", str(tmp_path / "cache"))


def test_verify(tmp_path: Path) -> None:
    """Reads the file, even if size and time are those noted."""
    path = tmp_path / "net.pt"
    path.write_bytes(CONTENT)
    write_note(note_of(path), sha(CONTENT), "somewhere", path.stat())
    assert verify(path) == verify(path, len(CONTENT), sha(CONTENT).upper()) == sha(CONTENT)
    stat = path.stat()
    path.write_bytes(OTHER)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(WeightsError, match="when it was first downloaded"):
        verify(path)
    with pytest.raises(WeightsError, match=f"{sha(OTHER)}, {sha(CONTENT)} is due"):
        verify(path, len(CONTENT), sha(CONTENT))
    with pytest.raises(WeightsError, match="1 are due"):
        verify(path, 1)
    with pytest.raises(InputError, match="No such file"):
        verify(path.with_name("gone"))


def test_a_large_file_is_read_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again when its time or its size is another; nothing is written beside it."""
    monkeypatch.setattr(hashes, "LARGE", len(CONTENT))
    path, read = tmp_path / "mine" / "net.pt", []
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    through = hashes.sha256_file
    monkeypatch.setattr(hashes, "sha256_file", lambda path, *_: read.append(path) or through(path))
    assert [known_sha256(path) for _ in range(3)] == [sha(CONTENT)] * 3
    assert len(read) == 1
    stat = path.stat()
    path.write_bytes(OTHER)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert known_sha256(path) == sha(OTHER)
    path.write_bytes(OTHER * 2)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert known_sha256(path) == sha(OTHER * 2)
    assert len(read) == 3
    assert [item.name for item in path.parent.iterdir()] == ["net.pt"]
    (note,) = (tmp_path / "cache" / "hashes").iterdir()
    note.write_bytes(b"{")
    assert known_sha256(path) == sha(OTHER * 2)


def test_a_small_file_leaves_no_note(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(CONTENT)
    assert known_sha256(path) == sha(CONTENT)
    assert not (tmp_path / "cache").exists()
    with pytest.raises(InputError, match="No such file"):
        known_sha256(tmp_path / "gone")


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "LARGE", 1)
    (tmp_path / "cache").touch()
    (tmp_path / "net.pt").write_bytes(CONTENT)
    assert known_sha256(tmp_path / "net.pt") == sha(CONTENT)
