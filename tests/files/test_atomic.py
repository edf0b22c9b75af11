"""Which files an argument means; files written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from dmps_cli.errors import InputError, OutputError
from dmps_cli.files import atomic as files
from dmps_cli.files.atomic import (
    atomic_write,
    check_writable,
    refuse_existing,
    remove_left_overs,
    remove_left_overs_below,
    sha256_bytes,
    sha256_file,
    try_lock,
)
from dmps_cli.files.inputs import expand_inputs


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    """Makes empty files."""
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def expanded(*arguments: str) -> list[str]:
    """The files that arguments name, none of which fails."""
    found = expand_inputs(arguments)
    assert found.failures == []
    return [str(path) for path in found.paths]


def failure(argument: str) -> str:
    """Why an argument names nothing."""
    found = expand_inputs([argument])
    assert found.paths == []
    ((name, error),) = found.failures
    assert name == argument
    assert isinstance(error, InputError)
    return str(error)


# Inputs


def test_a_folder_gives_its_pictures_by_name() -> None:
    touch("in/b.PNG", "in/a.jpg", "in/c.json", "in/.hidden.png", "in/.x.png.part", "in/deep/d.png", "in/e.png/f.txt")
    assert expanded("in") == ["in/a.jpg", "in/b.PNG"]
    assert expanded("in/**/*.png") == ["in/deep/d.png"]


@pytest.mark.posix
def test_files_keep_their_order_and_come_once() -> None:
    touch("b.png", "a.png", "sub/c.png")
    again = ["./b.png", str(Path.cwd() / "a.png"), "sub/../b.png", "*.png"]
    assert expanded("b.png", "a.png", *again) == ["b.png", "a.png"]
    Path("link.png").symlink_to("a.png")
    assert expanded("a.png", "link.png") == ["a.png", "link.png"]


def test_a_name_with_brackets_is_a_file_first() -> None:
    touch("a[1].png", "a1.png")
    assert expanded("a[1].png") == ["a[1].png"]
    Path("a[1].png").unlink()
    assert expanded("a[1].png") == ["a1.png"]


def test_a_file_of_any_suffix_is_taken_when_named() -> None:
    touch("y.npy")
    assert expanded("y.npy") == ["y.npy"]


def test_bad_inputs_do_not_stop_the_others() -> None:
    touch("a.png", "c.png")
    Path("empty").mkdir()
    found = expand_inputs(["a.png", "gone.png", "empty", "*.webp", "c.png"])
    assert found.paths == [Path("a.png"), Path("c.png")]
    assert [name for name, _ in found.failures] == ["gone.png", "empty", "*.webp"]


def test_each_failure_says_why() -> None:
    touch("file")
    Path("empty").mkdir()
    assert "does not exist" in failure("gone.png")
    assert "does not exist" in failure("file/below.png")
    assert "matches no file" in failure("*.webp")
    assert "matches no file" in failure("emp*")
    assert "holds no pictures (.png," in failure("empty")
    assert "empty" in failure("")
    assert "name too long" in failure("x" * 300 + ".png")


def test_a_folder_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stub: permissions do not bind root."""
    Path("in").mkdir()

    def denied(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    assert "cannot read the folder in: Permission denied" in failure("in")


def test_names_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = os.fsdecode(b"\xff.png")  # not UTF-8, as a name may be
    touch("a b.png", "c.png", odd, "-")
    content = io.BytesIO(b"a b.png\n\nc.png\r\n\xff.png\ngone.png")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content, encoding="utf-8"))
    found = expand_inputs(["-", "./-"])
    assert found.paths == [Path("a b.png"), Path("c.png"), Path(odd), Path("-")]
    assert [name for name, _ in found.failures] == ["gone.png"]


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, dmps_cli.files.inputs, dmps_cli.files.atomic\n"
        "print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# Writing


def names() -> list[str]:
    """What the current folder holds."""
    return sorted(path.name for path in Path().iterdir())


def test_writes_bytes_and_what_a_function_writes() -> None:
    atomic_write(Path("a"), b"content", overwrite=False)
    atomic_write(Path("b"), lambda file: file.write(b"from a function"), overwrite=False)
    assert (Path("a").read_bytes(), Path("b").read_bytes()) == (b"content", b"from a function")
    assert names() == ["a", "b"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
@pytest.mark.parametrize("overwrite", [False, True])
def test_mode_follows_the_umask(mask: int, mode: int, overwrite: bool) -> None:
    before = os.umask(mask)
    try:
        atomic_write(Path("a"), b"x", overwrite=overwrite)
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path("a").stat().st_mode) == mode


def test_makes_the_folder() -> None:
    atomic_write(Path("new/deep/a"), b"x", overwrite=False)
    assert Path("new/deep/a").read_bytes() == b"x"


def test_overwrites_only_when_told() -> None:
    Path("a").write_bytes(b"old")
    with pytest.raises(OutputError, match="a exists; --overwrite replaces it"):
        atomic_write(Path("a"), b"new", overwrite=False)
    assert Path("a").read_bytes() == b"old"
    atomic_write(Path("a"), b"new", overwrite=True)
    assert Path("a").read_bytes() == b"new"
    assert names() == ["a"]


def test_a_target_that_appears_meanwhile_stays() -> None:
    def slow(file: BinaryIO) -> None:
        file.write(b"mine")
        Path("a").write_bytes(b"theirs")

    with pytest.raises(OutputError, match="exists"):
        atomic_write(Path("a"), slow, overwrite=False)
    assert Path("a").read_bytes() == b"theirs"
    assert names() == ["a"]


@pytest.mark.parametrize("links", [True, False])
def test_a_target_that_appears_at_the_last_moment_stays(monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """Another writer comes between the last check and the call that gives the name, whichever that is."""
    last_calls = {name: getattr(os, name) for name in ("link", "replace")}

    def late(name: str) -> Callable[..., None]:
        def call(source: Path, target: Path) -> None:
            if not os.path.lexists(target):
                Path(target).write_bytes(b"theirs")
            if name == "link" and not links:
                raise OSError(errno.EPERM, "Operation not permitted")
            last_calls[name](source, target)

        return call

    for name in last_calls:
        monkeypatch.setattr(os, name, late(name))
    with pytest.raises(OutputError, match="exists"):
        atomic_write(Path("a"), b"mine", overwrite=False)
    assert Path("a").read_bytes() == b"theirs"
    assert names() == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
@pytest.mark.parametrize("old", [b"old", None])
def test_a_writer_that_raises_leaves_what_was_there(error: type[BaseException], old: bytes | None) -> None:
    if old is not None:
        Path("a").write_bytes(old)

    def broken(file: BinaryIO) -> None:
        file.write(b"half of it")
        raise error

    with pytest.raises(error):
        atomic_write(Path("a"), broken, overwrite=True)
    assert names() == ([] if old is None else ["a"])
    assert old is None or Path("a").read_bytes() == old


@pytest.mark.parametrize("step", ["fsync", "replace", "link"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")])
def test_no_step_leaves_a_temporary_file(monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, step, broken)
    if step == "link":  # without hard links, which an OSError from link() may mean, replace() has the last word
        monkeypatch.setattr(os, "replace", broken)
    else:
        Path("a").write_bytes(b"old")
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt):
        atomic_write(Path("a"), b"new", overwrite=step != "link")
    assert names() == ([] if step == "link" else ["a"])
    assert step == "link" or Path("a").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no room on the disk for a"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no room on the disk for a"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot write a: Permission denied"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot write a: Read-only file system"),
    ],
)
def test_refusals_of_the_system_are_one_sentence(error: OSError, text: str) -> None:
    """By a stub: permissions do not bind root, and filling a disk would be rude."""

    def refused(_: BinaryIO) -> None:
        raise error

    with pytest.raises(OutputError, match=text):
        atomic_write(Path("a"), refused, overwrite=False)
    assert names() == []


@pytest.mark.posix
def test_targets_that_cannot_be() -> None:
    touch("file")
    Path("folder").mkdir()
    Path("dangling").symlink_to("nowhere")
    for target, text in {
        "file/a": "file is not a folder",
        "file/deep/a": "file is not a folder",
        "dangling/a": "dangling is not a folder",
        "folder": "folder is a folder",
        ".": "is a folder",
        "x" * 256: "name too long",
    }.items():
        with pytest.raises(OutputError, match=text):
            atomic_write(Path(target), b"x", overwrite=True)
    with pytest.raises(OutputError, match="folder exists"):
        atomic_write(Path("folder"), b"x", overwrite=False)
    with pytest.raises(OutputError, match="name too long"):
        atomic_write(Path("x" * 256), b"x", overwrite=False)
    assert names() == ["dangling", "file", "folder"]


def test_the_longest_name_that_the_system_takes() -> None:
    atomic_write(Path("\u00e9" * 127), b"x", overwrite=False)
    assert names() == ["\u00e9" * 127]


@pytest.mark.posix
def test_a_symbolic_link_is_replaced_not_followed() -> None:
    Path("real").write_bytes(b"old")
    Path("folder").mkdir()
    for name, destination in (("a", "real"), ("b", "nowhere"), ("c", "folder")):
        Path(name).symlink_to(destination)
        with pytest.raises(OutputError, match="exists"):
            atomic_write(Path(name), b"new", overwrite=False)
        atomic_write(Path(name), b"new", overwrite=True)
        assert not Path(name).is_symlink()
        assert Path(name).read_bytes() == b"new"
    assert Path("real").read_bytes() == b"old"
    assert names() == ["a", "b", "c", "folder", "real"]


RACE = """
import os, sys
from pathlib import Path
from dmps_cli.errors import OutputError
from dmps_cli.files.atomic import atomic_write
def no_links(*args, **kwargs): raise OSError(95, "not supported")
if sys.argv[2] == "without links": os.link = no_links
print("ready", flush=True)
sys.stdin.readline()
for k in range(60):
    try: atomic_write(Path(f"out/{k}"), sys.argv[1].encode() * 1000, overwrite=False)
    except OutputError as exc: assert "exists" in str(exc)
    else: print(k)
"""


@pytest.mark.parametrize("links", ["with links", "without links"])
def test_of_two_processes_exactly_one_writes(links: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(n), links], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for n in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    won = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(won[0] + won[1], key=int) == [str(k) for k in range(60)]
    for n in range(2):
        assert all(Path("out", k).read_text() == str(n) * 1000 for k in won[n])
    assert len(list(Path("out").iterdir())) == 60


def test_without_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    atomic_write(Path("a"), b"x", overwrite=False)
    with pytest.raises(OutputError, match="exists"):
        atomic_write(Path("a"), b"y", overwrite=False)
    assert Path("a").read_bytes() == b"x"
    assert names() == ["a"]


# What killed runs leave


KILLED = """
import os, signal, sys
from pathlib import Path
from dmps_cli.files.atomic import atomic_write
def half(file):
    file.write(b"half"); file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
atomic_write(Path(sys.argv[1]), half, overwrite=True)
"""


@pytest.mark.posix
@pytest.mark.parametrize("name", ["a.png", "n" * 251 + ".png", "\u00e4" * 120 + "\n.png"])
def test_what_a_killed_run_left_goes_with_the_next(name: str) -> None:
    subprocess.run([sys.executable, "-c", KILLED, name], check=False)
    (left,) = names()
    assert left.endswith(".part")
    remove_left_overs([Path("other.png")])
    assert names() == [left]
    remove_left_overs([Path(name)])
    assert names() == []


@pytest.mark.posix
def test_only_dead_plain_files_of_our_naming_are_left_overs() -> None:
    """A file that somebody writes, one of another's naming, a link, a pipe, a folder stay."""
    hexes = [f"{k:016x}" for k in range(5)]
    stay = [
        f".a.{hexes[1]}.part",
        f".a.{hexes[2]}.part",
        f".a.{hexes[3]}.part",
        f".a.{hexes[4]}.part",
        ".a.new.part",
        "a",
    ]
    touch(f".a.{hexes[0]}.part", stay[0], ".a.new.part", "a")
    Path(stay[1]).symlink_to("a")
    os.mkfifo(stay[2])
    Path(stay[3]).mkdir()
    with Path(stay[0]).open("r+b") as file:
        assert try_lock(file)
        remove_left_overs([Path("a")])
        assert names() == sorted(stay)
    remove_left_overs_below(Path())
    assert names() == sorted(stay[1:])


def test_clearing_up_beside_writers_takes_nothing_from_them() -> None:
    """A run that clears up may hold the lock of a file that has just been made: its writer takes another."""
    stop = threading.Event()

    def clear() -> None:
        while not stop.is_set():
            remove_left_overs([Path("a")])

    thread = threading.Thread(target=clear)
    thread.start()
    for k in range(60):
        atomic_write(Path("a"), b"%d" % k, overwrite=True)
        assert Path("a").read_bytes() == b"%d" % k
    stop.set()
    thread.join()
    assert names() == ["a"]


# Checks up front


def test_check_writable_makes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    touch("file")
    check_writable(Path())
    check_writable(Path("new/deep"))
    for target in ("file", "file/deep"):
        with pytest.raises(OutputError, match="file is not a folder"):
            check_writable(Path(target))
    monkeypatch.setattr(files.os, "access", lambda *_: False)  # permissions do not bind root
    with pytest.raises(OutputError, match="cannot write to new: no permission"):
        check_writable(Path("new"))
    assert names() == ["file"]


@pytest.mark.posix
def test_refuse_existing() -> None:
    Path("dangling").symlink_to("nowhere")
    refuse_existing(Path("a"), Path("b"))
    with pytest.raises(OutputError, match="dangling exists"):
        refuse_existing(Path("a"), Path("dangling"))


# Hashes


def test_sha256() -> None:
    """FIPS 180-2, example B.1."""
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    Path("a").write_bytes(b"abc")
    assert sha256_bytes(b"abc") == sha256_file(Path("a")) == expected
    big = bytes(range(256)) * 5000
    Path("b").write_bytes(big)
    assert sha256_file(Path("b")) == hashlib.sha256(big).hexdigest()


def test_sha256_of_what_cannot_be_read() -> None:
    for name, reason in (("gone", "No such file"), (".", "it is a folder")):
        with pytest.raises(InputError, match=reason):
            sha256_file(Path(name))
