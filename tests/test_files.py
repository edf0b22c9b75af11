"""Which files are meant, and writing them whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dmps_cli import files
from dmps_cli.errors import OutputError
from dmps_cli.files import atomic_write, expand_inputs, sha256_file


def touch(path: Path) -> Path:
    path.write_bytes(b"x")
    return path


def test_a_folder_gives_its_pictures_by_name(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "c.npy", "d.json"):
        touch(tmp_path / name)
    (tmp_path / "sub.png").mkdir()
    assert expand_inputs([str(tmp_path)]) == ([tmp_path / "a.jpg", tmp_path / "b.PNG"], [])


def test_globs_duplicates_and_failures(tmp_path: Path) -> None:
    a, b = touch(tmp_path / "a.png"), touch(tmp_path / "b.png")
    paths, failures = expand_inputs([str(b), f"{tmp_path}/*.png", f"{tmp_path}/*.jpg", str(tmp_path / "no.png")])
    assert paths == [b, a]
    assert [name for name, _ in failures] == [f"{tmp_path}/*.jpg", str(tmp_path / "no.png")]


def test_a_file_whose_name_looks_like_a_glob_is_itself(tmp_path: Path) -> None:
    odd = touch(tmp_path / "a[1].png")
    assert expand_inputs([str(odd)]) == ([odd], [])


def test_names_on_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spaced = touch(tmp_path / "with space.png")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{spaced}\n\n"))
    assert expand_inputs(["-"]) == ([spaced], [])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_and_replaces_only_when_told(tmp_path: Path) -> None:
    target = tmp_path / "new" / "out.png"
    atomic_write(target, b"one", overwrite=False)
    with pytest.raises(OutputError, match="exists"):
        atomic_write(target, b"two", overwrite=False)
    assert target.read_bytes() == b"one"
    atomic_write(target, b"three", overwrite=True)
    assert target.read_bytes() == b"three"
    assert names(target.parent) == ["out.png"]


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "out", b"", overwrite=False)
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_error_half_way_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    target = tmp_path / "out.png"
    target.write_bytes(b"old")

    def failing(handle: int) -> None:
        raise error

    monkeypatch.setattr(files.os, "fsync", failing)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt):
        atomic_write(target, b"new", overwrite=True)
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["out.png"]


def test_a_file_that_appears_in_the_last_moment_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.png"
    real = os.fsync

    def rival(handle: int) -> None:
        target.write_bytes(b"rival")
        real(handle)

    monkeypatch.setattr(files.os, "fsync", rival)
    with pytest.raises(OutputError, match="exists"):
        atomic_write(target, b"ours", overwrite=False)
    assert target.read_bytes() == b"rival"
    assert names(tmp_path) == ["out.png"]


def test_of_two_processes_one_wins(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from dmps_cli.files import atomic_write; from dmps_cli.errors import OutputError\n"
        "done = 0\n"
        "for k in range(200):\n"
        "    try: atomic_write(Path(sys.argv[1], str(k)), sys.argv[2].encode(), overwrite=False); done += 1\n"
        "    except OutputError: pass\n"
        "print(done)"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    assert sum(int(process.communicate()[0]) for process in running) == 200
    assert len(names(tmp_path)) == 200


def test_without_hard_links_the_check_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*arguments: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(files.os, "link", unsupported)
    atomic_write(tmp_path / "out", b"one", overwrite=False)
    assert (tmp_path / "out").read_bytes() == b"one"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENAMETOOLONG])
def test_reasons_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def failing(**options: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.tempfile, "mkstemp", failing)
    with pytest.raises(OutputError, match=os.strerror(code)):
        atomic_write(tmp_path / "out", b"", overwrite=False)


def test_targets_that_are_folders_or_lie_below_files(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        atomic_write(tmp_path / "folder", b"", overwrite=True)
    touch(tmp_path / "file")
    with pytest.raises(OutputError, match="not a folder"):
        atomic_write(tmp_path / "file" / "out", b"", overwrite=False)


def test_a_symbolic_link_is_replaced_not_followed(tmp_path: Path) -> None:
    touch(tmp_path / "far")
    (tmp_path / "link").symlink_to(tmp_path / "far")
    atomic_write(tmp_path / "link", b"new", overwrite=True)
    assert (tmp_path / "far").read_bytes() == b"x"
    assert not (tmp_path / "link").is_symlink()


def test_sha256_is_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
