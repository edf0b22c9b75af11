"""A good day; size and hash; the disk; offline."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dmps_cli.errors import OutputError, WeightsError
from dmps_cli.files.downloads import fetch as fetching
from dmps_cli.files.downloads import here
from dmps_cli.files.downloads.fetch import fetch
from dmps_cli.files.downloads.here import Fetched
from dmps_cli.files.downloads.sources import Web
from tests.files.downloads.host import (
    CONTENT,
    DONE,
    HUB,
    OTHER,
    REVISION,
    SIZE,
    Fetcher,
    Host,
    Turn,
    sha,
)


def test_nothing_heavy_is_imported() -> None:
    heavy = ("torch", "numpy", "httpx2", "huggingface_hub", "filelock")
    code = f"import sys, dmps_cli.files.downloads.fetch; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_downloads_once(host: Host, get: Fetcher, capfd: pytest.CaptureFixture[str]) -> None:
    source = host.put()
    first = get(source, size=SIZE, sha256=sha(CONTENT).upper())
    assert first == Fetched(path=get.target, sha256=sha(CONTENT), source=str(source), downloaded=True)
    assert get.target.read_bytes() == CONTENT
    assert (get.progress[0], get.progress[-1]) == ((0, SIZE), (SIZE, SIZE))
    assert get.progress == sorted(get.progress)
    again = get(source, size=SIZE, sha256=sha(CONTENT))
    assert again == Fetched(path=get.target, sha256=sha(CONTENT), source=str(source), downloaded=False)
    assert host.ranges() == [None]
    assert (get.names(), get.notes, get.slept) == (DONE, [], [])
    assert capfd.readouterr() == ("", "")


def test_what_the_hub_library_has_cached_is_used(host: Host, get: Fetcher, tmp_path: Path) -> None:
    """Also offline, without a file of ours; a damaged one is passed over."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    host.put_hub()
    with disable_progress_bars():
        stored = Path(hf_hub_download(HUB.repo, HUB.file, revision=REVISION, endpoint=host.url("")))
    requests = len(host.seen)
    found = get(Web(url=host.url("/gone")), HUB, size=SIZE, offline=True)
    assert found == Fetched(path=stored, sha256=sha(CONTENT), source=str(HUB), downloaded=False)
    assert stored.is_relative_to(tmp_path / "HF_HUB_CACHE")
    assert not get.target.parent.exists()
    assert len(host.seen) == requests
    stored.resolve().write_bytes(OTHER)
    assert get(HUB).path == get.target
    assert get.notes == [
        f"the Hub's cache is passed over: {stored}: the file's sha256 is {sha(OTHER)}, {sha(CONTENT)} is due; "
        "delete it and run again"
    ]
    assert stored.read_bytes() == OTHER


# Size and hash


def test_another_size_than_due(host: Host, get: Fetcher) -> None:
    """Known from the header before a byte comes, or, without one, at the end."""
    for length, text in ((True, "the file has 300000 bytes there, 299999 are due"), (False, "300000 bytes came")):
        source = host.put(CONTENT, length=length)
        with pytest.raises(WeightsError, match=text):
            get(source, size=SIZE - 1)
        assert get.names() == []
    assert get(source, size=SIZE).sha256 == sha(CONTENT)


def test_another_hash_than_due(host: Host, get: Fetcher) -> None:
    """What was in the cache stays; the next source is tried."""
    get.target.parent.mkdir()
    (get.target.parent / "other.pt").write_bytes(b"kept")
    bad, good = host.put(OTHER, path="/bad"), host.put()
    with pytest.raises(WeightsError) as failure:
        get(bad, sha256=sha(CONTENT))
    assert f"its sha256 is {sha(OTHER)}, {sha(CONTENT)} is due; nothing was replaced" in str(failure.value)
    assert get.names() == ["other.pt"]
    assert get(bad, good, sha256=sha(CONTENT)).source == str(good)


def test_the_hub_says_which_hash_is_right(host: Host, get: Fetcher) -> None:
    """The store sends other bytes than the Hub has published; or the Hub has another file, which costs no byte."""
    host.put_hub()
    host.put(OTHER, path="/evil")
    headers = {"X-Linked-ETag": f'"{sha(CONTENT)}"', "Location": host.url("/evil")}
    host.hub[f"/owner/model/resolve/{REVISION}/net.pt"] = Turn(status=302, headers=headers)
    with pytest.raises(WeightsError, match=f"its sha256 is {sha(OTHER)}, {sha(CONTENT)} is what the Hub publishes"):
        get(HUB)
    assert get.names() == []
    host.hub.clear()
    get.progress.clear()
    with pytest.raises(WeightsError, match=f"its sha256 is {sha(CONTENT)}, {sha(OTHER)} is due"):
        get(HUB, sha256=sha(OTHER))
    assert get.progress == []


def test_the_first_hash_is_recorded_and_compared(host: Host, get: Fetcher) -> None:
    source = host.put()
    get(source)
    record = json.loads(Path(f"{get.target}.json").read_text())
    assert (record["sha256"], record["source"], record["size"]) == (sha(CONTENT), str(source), SIZE)
    get.target.unlink()
    host.put(OTHER)
    with pytest.raises(
        WeightsError, match=f"its sha256 is {sha(OTHER)}, {sha(CONTENT)} was first downloaded"
    ) as failure:
        get(source)
    assert f"delete {get.target}.json if the new file is right" in str(failure.value)
    assert get.names() == ["net.pt.json"]
    Path(f"{get.target}.json").unlink()
    assert get(source).sha256 == sha(OTHER)


def test_a_file_that_changed_in_the_cache(host: Host, get: Fetcher) -> None:
    """It is left alone, whatever it is; both hashes are said."""
    source = host.put()
    get(source)
    get.target.write_bytes(OTHER)
    for known, text in ((None, "it was"), (sha(CONTENT), "")):
        with pytest.raises(WeightsError, match=f"the file's sha256 is {sha(OTHER)}, {text} ?{sha(CONTENT)}"):
            get(source, sha256=known)
    with pytest.raises(WeightsError, match="has 300000 bytes, 299999 are due; delete it and run again"):
        get(source, size=SIZE - 1)
    assert get.target.read_bytes() == OTHER
    assert len(host.seen) == 1


def test_a_file_put_there_by_hand(get: Fetcher) -> None:
    get.target.parent.mkdir()
    get.target.write_bytes(CONTENT)
    assert get() == Fetched(path=get.target, sha256=sha(CONTENT), source="", downloaded=False)
    get.target.write_bytes(OTHER)
    with pytest.raises(WeightsError, match="when it was first downloaded"):
        get()


def test_a_known_file_is_not_read_through_again(host: Host, get: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    source = host.put()
    get(source)
    monkeypatch.setattr(here, "sha256_file", lambda _: pytest.fail("read again"))
    assert get(source, sha256=sha(CONTENT)).sha256 == sha(CONTENT)


# The disk


def test_a_cache_that_cannot_be_written(host: Host, get: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stub: permissions do not bind root. What is complete there is used without a lock or a write."""
    get.target.parent.mkdir()
    opened = os.open

    def read_only(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(path).startswith(str(get.target.parent)):
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(OutputError, match=r"cannot write to the cache .*: Read-only file system; name another .*CACHE"):
        get(host.put())
    assert host.seen == []
    get.target.write_bytes(CONTENT)
    monkeypatch.setattr(fetching, "locked", lambda *_: pytest.fail("locked"))
    monkeypatch.setattr(
        "dmps_cli.files.hashes.atomic_write", lambda *_, **__: (_ for _ in ()).throw(OutputError("read-only"))
    )
    assert get(host.put(), sha256=sha(CONTENT)).path == get.target
    assert get.names() == ["net.pt"]


def test_a_file_in_place_of_the_cache(host: Host, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target in ("file/net.pt", "file/deep/net.pt"):
        with pytest.raises(OutputError, match="it, or what it lies in, is not a folder; name another"):
            fetch([host.put()], tmp_path / target, command="")
    assert host.seen == []


def test_no_room(host: Host, get: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known from the table before a request, from the header before a byte; what has come already is counted."""
    source = host.put(CONTENT, Turn(cut=200_000))
    full = type(shutil.disk_usage("."))(10**9, 10**9 - 150_000, 150_000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: full)
        with pytest.raises(OutputError, match=r"no room for .*net\.pt: 0 MB are needed, 0 MB are free; free some"):
            get(source, size=SIZE)
        assert host.seen == []
        host.files["/net.pt"].turns.insert(0, Turn())
        with pytest.raises(OutputError, match="no room"):
            get(source)
        assert not list(get.target.parent.glob("*.part"))
    with pytest.raises(WeightsError):
        get(source, patience={"tries": 1})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    assert get(source, size=SIZE).sha256 == sha(CONTENT)
    assert host.ranges() == [None, None, "bytes=200000-"]


@pytest.mark.parametrize(("step", "requests"), [(1, 2), (2, 1), (3, 1)])
def test_a_disk_that_fills_up(
    host: Host, get: Fetcher, monkeypatch: pytest.MonkeyPatch, step: int, requests: int
) -> None:
    """When the notes, the file, or the record go to the disk. What has come stays; another source would not help."""
    source, second = host.put(), host.put(path="/second")
    synced: list[int] = []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == step:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"no room on the disk for .*cache; .* goes on where it stopped"):
            get(source, second)
    assert host.ranges("/second") == []
    assert get(source).sha256 == sha(CONTENT)
    assert host.ranges() == [None] * requests
    assert get.names() == DONE


# Offline


@pytest.mark.parametrize("how", ["option", "1", "True"])
def test_offline(host: Host, get: Fetcher, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    source, offline = host.put(), how == "option"
    if not offline:
        monkeypatch.setenv("HF_HUB_OFFLINE", how)
    with pytest.raises(WeightsError) as failure:
        get(source, HUB, offline=offline)
    why = "offline was asked for" if offline else "HF_HUB_OFFLINE is set"
    assert str(failure.value) == (
        f"{get.target} is not there and {why}; run `dmps models download net` on a machine with network and copy "
        "the file to that path"
    )
    assert host.seen == []
    get.target.parent.mkdir()
    get.target.write_bytes(CONTENT)
    assert get(source, offline=offline).sha256 == sha(CONTENT)
