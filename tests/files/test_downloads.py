"""Downloads against a host that cuts, stalls, refuses and lies; it plays the Hub, a plain host and Google Drive."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dmps_cli.errors import InputError, OutputError, WeightsError
from dmps_cli.files import downloads
from dmps_cli.files.downloads import Drive, Fetched, Hub, Patience, Source, Web, cache_dir, fetch, parse_source, verify
from dmps_cli.files.formats import CHECKPOINT, JSON
from tests.shell import Heard

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
SIZE = len(CONTENT)
REVISION = "6b0a2cf45decab1f022d22eefe3787d9d515f32b"
HUB = Hub(repo="owner/model", file="net.pt", revision=REVISION)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# The host


@dataclass(frozen=True, kw_only=True)
class Turn:
    """How the host treats one request for a file; by default as it should."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None  # so many bytes, then the connection is cut
    stall: int | None = None  # so many bytes, then nothing more
    drip: float | None = None  # 200 times a byte and so many seconds
    delay: float = 0.0  # seconds between the halves
    blind: bool = False  # answers a range of whatever file there is, without a look at If-Range


@dataclass(kw_only=True)
class Remote:
    """A file on the host."""

    content: bytes
    etag: str | None = None
    modified: str | None = None
    ranges: bool = True
    length: bool = True
    kind: str = "application/octet-stream"
    turns: list[Turn] = field(default_factory=list)


@dataclass(frozen=True)
class Seen:
    """A request that the host got."""

    path: str
    range: str | None
    host: str
    authorization: str | None
    encoding: str | None = "identity"


@dataclass(kw_only=True)
class Host:
    """A server on the loopback interface. Under /owner/model/resolve/ it is the Hub, which leads to /cdn/."""

    port: int = 0
    files: dict[str, Remote] = field(default_factory=dict)
    hub: dict[str, Turn] = field(default_factory=dict)  # answers of the Hub itself instead of its lead to the store
    seen: list[Seen] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def put(self, content: bytes = CONTENT, *turns: Turn, path: str = "/net.pt", **options: Any) -> Web:
        """Serves a file; its ETag is new for new content."""
        options.setdefault("etag", f'"{sha(content)[:12]}"')
        self.files[path] = Remote(content=content, turns=list(turns), **options)
        return Web(url=self.url(path))

    def put_hub(self, content: bytes = CONTENT, *turns: Turn, **options: Any) -> Hub:
        """Serves the file of the Hub's repository."""
        self.put(content, *turns, path="/cdn/net.pt", **options)
        return HUB

    def ranges(self, path: str = "/net.pt") -> list[str | None]:
        """The Range of each request for a path."""
        return [seen.range for seen in self.seen if seen.path == path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host: Host

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        host, path = self.host, self.path.partition("?")[0]
        get = self.headers.get
        host.seen.append(Seen(self.path, get("Range"), get("Host", ""), get("Authorization"), get("Accept-Encoding")))
        if "/resolve/" in path:
            self.lead(path)
        elif path in host.files:
            remote = host.files[path]
            self.serve(remote, remote.turns.pop(0) if remote.turns else Turn())
        else:
            self.answer(404, {})

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def lead(self, path: str) -> None:
        """As the Hub answers for a large file: what it is, and where it lies."""
        if turn := self.host.hub.get(path):
            self.answer(turn.status or 200, turn.headers)
            return
        content = self.host.files["/cdn/net.pt"].content
        headers = {
            "X-Repo-Commit": REVISION,
            "X-Linked-ETag": f'"{sha(content)}"',
            "X-Linked-Size": str(len(content)),
            "Location": f"http://localhost:{self.host.port}/cdn/net.pt",  # another origin than 127.0.0.1
        }
        self.answer(302, headers)

    def serve(self, remote: Remote, turn: Turn) -> None:
        if turn.status:
            self.answer(turn.status, turn.headers)
            return
        version = {"ETag": remote.etag, "Last-Modified": remote.modified}
        headers = {"Content-Type": remote.kind} | {name: value for name, value in version.items() if value}
        start, status = 0, 200
        asked = self.headers.get("Range")
        fits = turn.blind or self.headers.get("If-Range") in (remote.etag, remote.modified)
        if asked and remote.ranges and fits:
            start, status = int(asked.removeprefix("bytes=").removesuffix("-")), 206
            headers["Content-Range"] = f"bytes {start}-{len(remote.content) - 1}/{len(remote.content)}"
        body = remote.content[start:]
        self.send_response(status)
        headers |= {"Content-Length": str(len(body))} if remote.length else {"Connection": "close"}
        for name, value in (headers | turn.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.send_body(body, turn)

    def send_body(self, body: bytes, turn: Turn) -> None:
        if turn.drip is not None:
            for at in range(200):
                self.wfile.write(body[at : at + 1])
                if self.host.closing.wait(turn.drip):
                    return
            body = body[200:]
        if turn.delay:
            half = len(body) // 2
            self.wfile.write(body[:half])
            self.host.closing.wait(turn.delay)
            body = body[half:]
        if turn.cut is None and turn.stall is None:
            self.wfile.write(body)
            return
        self.wfile.write(body[: turn.cut if turn.cut is not None else turn.stall])
        if turn.stall is not None:
            self.host.closing.wait(20)
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that went away is part of the play."""


@pytest.fixture
def host() -> Iterator[Host]:
    served = Host()
    handler = type("Bound", (Handler,), {"host": served})
    with Server(("127.0.0.1", 0), handler) as server:
        served.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        served.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: Host) -> None:
    """No home folder, no proxy, no token, and the host for a Hub."""
    from huggingface_hub import constants

    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("HF_", "DMPS_", "XDG_CACHE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", host.url(""))
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_TOKEN_PATH"):
        monkeypatch.setenv(name, str(tmp_path / name))
        monkeypatch.setattr(constants, name, str(tmp_path / name))
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN"):  # read when the library was imported
        monkeypatch.setattr(constants, name, False)
    monkeypatch.chdir(tmp_path)


@dataclass
class Fetcher:
    """Calls `fetch`; keeps what it said, and how long it would have slept."""

    target: Path
    notes: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    progress: list[tuple[int, int | None]] = field(default_factory=list)

    def __call__(self, *sources: Source, patience: dict[str, Any] | None = None, **options: Any) -> Fetched:
        quick = {"read": 5.0, "sleep": self.slept.append} | (patience or {})
        return fetch(
            sources,
            self.target,
            command="dmps models download net",
            listener=Heard(self.notes.append, lambda done, total: self.progress.append((done, total))),
            patience=Patience(**quick),
            **options,
        )

    def names(self) -> list[str]:
        """What lies in the cache, but for the lock."""
        return sorted(path.name for path in self.target.parent.iterdir() if path.suffix != ".lock")


@pytest.fixture
def get(tmp_path: Path) -> Fetcher:
    return Fetcher(tmp_path / "cache" / "net.pt")


DONE = ["net.pt", "net.pt.json"]


# Sources and folders


def test_sources_are_parsed() -> None:
    assert parse_source({"repo": "o/m", "file": "a/b.pt", "revision": "r"}) == Hub(
        repo="o/m", file="a/b.pt", revision="r"
    )
    assert parse_source({"repo": "o/m", "file": "b.pt"}) == Hub(repo="o/m", file="b.pt", revision="main")
    assert parse_source({"url": "https://h/b.pt"}) == Web(url="https://h/b.pt")
    for url in (
        "https://h:8443/ä?a=b@c#d",
        "HTTPS://h/b",
        "http://localhost:80/b",
        "http://[::1]/b",
        "http://127.0.0.1",
    ):
        assert parse_source({"url": url}) == Web(url=url)
    assert parse_source({"gdrive": "1BGwhRWU_-x"}) == Drive(gdrive="1BGwhRWU_-x")
    assert [str(source) for source in (HUB, Web(url="https://h/b"), Drive(gdrive="1B"))] == [
        "Hub owner/model/net.pt@6b0a2cf45dec",
        "https://h/b",
        "Google Drive 1B",
    ]


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({}, "a source needs repo and file, url, or gdrive; it has nothing"),
        ({"link": "x"}, "it has link"),
        ({"repo": "o/m"}, "has the keys repo; it takes repo, file, revision"),
        ({"url": "https://h/b", "gdrive": "1B"}, "has the keys url, gdrive; it takes url"),
        ({"url": 3}, "url is 3; a text is needed"),
        ({"url": " "}, "url is ' '"),
        ({"url": "http://h/b"}, "url is 'http://h/b'; https"),
        ({"url": "file:///etc/passwd"}, "https"),
        ({"url": "http://127.0.0.1:80@h/b"}, "https"),
        ({"url": "http://localhost:x@h/b"}, "https"),
        ({"url": "https://127.0.0.1@h/b"}, "https"),
        ({"url": "http://127.0.0.1.h/b"}, "https"),
        ({"url": "http://localhost\\@h/b"}, "https"),
        ({"url": "http://h#@localhost/b"}, "https"),
        ({"url": "https://h/b\0"}, "https"),
        ({"url": "https://h/b c"}, "https"),
        ({"url": "https://h\n/b"}, "https"),
        ({"url": "https:///b"}, "https"),
        ({"url": "https://[::1/b"}, "https"),
        ({"url": "https://h:99999/b"}, "https"),
        ({"repo": "a/b/c", "file": "x"}, "repo is 'a/b/c'; owner/name"),
        ({"repo": "o/m", "file": "../x"}, "file is '../x'"),
        ({"gdrive": "https://drive.google.com/x"}, "the id alone"),
    ],
)
def test_a_source_that_cannot_be(table: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        parse_source(table)


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_dir() == tmp_path / "home/.cache/dmps"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert cache_dir() == tmp_path / "home/.cache/dmps"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/dmps")
    monkeypatch.setenv("DMPS_CACHE", "~/here")
    assert cache_dir() == tmp_path / "home/here"
    monkeypatch.setenv("DMPS_CACHE", "here")
    assert cache_dir() == tmp_path / "here"
    assert not (tmp_path / "here").exists()


def test_nothing_heavy_is_imported() -> None:
    heavy = ("torch", "numpy", "httpx2", "huggingface_hub", "filelock")
    code = f"import sys, dmps_cli.files.downloads; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# A good day


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


def test_through_the_hub(host: Host, get: Fetcher, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """The token goes to the Hub and not to the store that it leads to."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert get(host.put_hub()).sha256 == sha(CONTENT)
    assert get.target.read_bytes() == CONTENT
    assert host.seen == [
        Seen(f"/owner/model/resolve/{REVISION}/net.pt", None, f"127.0.0.1:{host.port}", "Bearer hf_secret"),
        Seen("/cdn/net.pt", None, f"localhost:{host.port}", None),
    ]
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


# Interruptions


def test_a_cut_connection_is_resumed(host: Host, get: Fetcher) -> None:
    source = host.put(CONTENT, Turn(cut=100_000), Turn(cut=50_000), Turn(cut=0))
    assert get(source).sha256 == sha(CONTENT)
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in host.ranges()[1:] if asked]
    assert starts == [100_000, 150_000, 150_000]
    assert get.slept == [1.0, 2.0, 4.0]
    assert f"{source}: the connection was cut; trying again in 1 s" in get.notes
    assert get.names() == DONE


def test_it_gives_up_and_a_later_run_goes_on(host: Host, get: Fetcher) -> None:
    source = host.put(CONTENT, Turn(cut=1000), *[Turn(cut=0)] * 3)
    with pytest.raises(WeightsError, match=r"net\.pt: the connection was cut; gave up after 4 tries; or put the file"):
        get(source, patience={"tries": 4})
    assert get.slept == [1.0, 2.0, 4.0]
    assert not get.target.exists()
    assert get(source).sha256 == sha(CONTENT)
    assert host.ranges() == [None, *["bytes=1000-"] * 4]


def test_trying_goes_on_while_it_gets_on(host: Host, get: Fetcher) -> None:
    """Each of 29 cuts brings what `floor` and `window` ask for, so that two tries in a row never fail."""
    source = host.put(CONTENT, *[Turn(cut=10_000)] * 29)
    assert get(source, patience={"tries": 2, "floor": 1000.0, "window": 10.0}).sha256 == sha(CONTENT)
    assert get.slept == [1.0] * 29


def test_a_stalled_connection_times_out(host: Host, get: Fetcher) -> None:
    source = host.put(CONTENT, Turn(stall=70_000))
    assert get(source, patience={"read": 0.2}).sha256 == sha(CONTENT)
    assert host.ranges() == [None, "bytes=70000-"]
    assert get.notes == [f"{source}: nothing came for 0.2 s; trying again in 1 s"]


def test_a_dripping_connection_counts_as_stalled(host: Host, get: Fetcher) -> None:
    """Though each byte comes in time."""
    source = host.put(CONTENT, Turn(drip=0.01))
    assert get(source, patience={"window": 0.2, "floor": 1000.0}).sha256 == sha(CONTENT)
    (note,) = get.notes
    assert "bytes came in 0 s; trying again" in note
    assert host.ranges()[1] is not None


def test_nobody_answers(get: Fetcher) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/net.pt"
        with pytest.raises(WeightsError, match=r"no connection \(.*refused.*\); gave up after 2 tries"):
            get(Web(url=url), patience={"tries": 2})


def test_without_a_network_it_gives_up_in_time(get: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for a name that never ends keeps no time-out of its own; the second source has a try left."""
    end = threading.Event()

    def search(*_: object, **__: object) -> None:
        end.wait(30)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", search)
    patience = {"connect": 0.1, "unreachable": 0.5, "first_wait": 0.05, "sleep": time.sleep}
    start = time.monotonic()
    with pytest.raises(
        WeightsError, match=r"no connection within 0.1 s; gave up after [34] tries; https://i/a: no conn"
    ):
        get(Web(url="https://h/a"), Web(url="https://i/a"), patience=patience)
    assert 0.4 < time.monotonic() - start < 5.0
    end.set()


def test_a_network_that_is_there_has_all_the_tries(host: Host, get: Fetcher) -> None:
    source = host.put(CONTENT, *[Turn(status=503)] * 5)
    assert get(source, patience={"unreachable": 0.0}).sha256 == sha(CONTENT)
    assert len(get.slept) == 5


def test_a_server_without_ranges_sends_it_all_again(host: Host, get: Fetcher) -> None:
    source = host.put(CONTENT, Turn(cut=100_000), ranges=False)
    assert get(source).sha256 == sha(CONTENT)
    assert host.ranges() == [None, "bytes=100000-"]
    assert get.target.read_bytes() == CONTENT


def test_without_a_validator_nothing_is_gone_on_with(host: Host, get: Fetcher) -> None:
    for etag in (None, 'W/"weak"'):
        source = host.put(CONTENT, Turn(cut=100_000), path=f"/{etag is None}", etag=etag)
        assert get(source).sha256 == sha(CONTENT)
        assert host.ranges(f"/{etag is None}") == [None, None]
        get.target.unlink()


def test_last_modified_is_a_validator(host: Host, get: Fetcher) -> None:
    source = host.put(CONTENT, Turn(cut=100_000), etag=None, modified="Wed, 21 Oct 2015 07:28:00 GMT")
    assert get(source).sha256 == sha(CONTENT)
    assert host.ranges() == [None, "bytes=100000-"]


@pytest.mark.parametrize("blind", [False, True])
def test_a_changed_file_is_not_glued_to_the_old(host: Host, get: Fetcher, blind: bool) -> None:
    """Also if the server answers the range without a look at If-Range."""
    source = host.put(CONTENT, Turn(cut=100_000))
    with pytest.raises(WeightsError, match="gave up after 1 tries"):
        get(source, patience={"tries": 1})
    host.put(OTHER, Turn(blind=blind))
    assert get(source).sha256 == sha(OTHER)
    assert get.target.read_bytes() == OTHER
    assert host.ranges()[1:] == (["bytes=100000-", None] if blind else ["bytes=100000-"])


def test_a_change_on_the_hub_is_not_glued_either(host: Host, get: Fetcher) -> None:
    """Though the store says that nothing has changed."""
    host.put_hub(CONTENT, Turn(cut=100_000), etag='"same"')
    with pytest.raises(WeightsError, match="gave up"):
        get(HUB, patience={"tries": 1})
    host.put_hub(OTHER, etag='"same"')
    assert get(HUB).sha256 == sha(OTHER)
    assert host.ranges("/cdn/net.pt") == [None, "bytes=100000-", None]
    assert get.notes == [f"{HUB}: the file has changed since the download began; trying again in 1 s"]


def test_a_server_may_send_less_of_a_range_than_asked(host: Host, get: Fetcher) -> None:
    source = host.put(CONTENT, Turn(cut=100_000), Turn(cut=50_000, headers={"Content-Length": "50000"}))
    assert get(source).sha256 == sha(CONTENT)
    assert host.ranges() == [None, "bytes=100000-", "bytes=150000-"]
    assert get.notes[1] == f"{source}: 150000 of 300000 bytes came; trying again in 2 s"


def test_each_source_has_its_own_beginning(host: Host, get: Fetcher) -> None:
    """Two sources with the same ETag for different bytes."""
    first = host.put(OTHER, Turn(cut=100_000), path="/first", etag='"1"')
    second = host.put(CONTENT, path="/second", etag='"1"')
    assert get(first, second, patience={"tries": 1}).sha256 == sha(CONTENT)
    assert host.ranges("/second") == [None]
    assert get.names() == DONE  # the other's beginning is gone
    assert get.notes == [f"{first}: the connection was cut; gave up after 1 tries; trying {second}"]


def test_a_damaged_beginning_is_downloaded_anew(host: Host, get: Fetcher) -> None:
    source = host.put(CONTENT, Turn(cut=100_000))
    with pytest.raises(WeightsError):
        get(source, patience={"tries": 1})
    (part,) = get.target.parent.glob("*.part")
    part.write_bytes(bytes(100_000))
    assert get(source, sha256=sha(CONTENT)).sha256 == sha(CONTENT)
    assert host.ranges() == [None, "bytes=100000-", None]
    assert get.notes == [f"{source}: what an earlier run had begun does not fit; downloading from the start"]


def test_a_beginning_longer_than_the_file_is_not_used(host: Host, get: Fetcher) -> None:
    source = host.put(CONTENT, Turn(cut=100_000))
    with pytest.raises(WeightsError):
        get(source, patience={"tries": 1})
    (part,) = get.target.parent.glob("*.part")
    part.write_bytes(bytes(SIZE + 1))
    assert get(source).sha256 == sha(CONTENT)
    assert host.ranges() == [None, None]


@pytest.mark.parametrize("damaged", ["", "{", '{"other": 1}', "[]", None])
def test_a_beginning_without_its_notes_is_not_used(host: Host, get: Fetcher, damaged: str | None) -> None:
    source = host.put(CONTENT, Turn(cut=100_000))
    with pytest.raises(WeightsError):
        get(source, patience={"tries": 1})
    (notes,) = get.target.parent.glob("*.part.json")
    if damaged is None:
        notes.unlink()
    else:
        notes.write_text(damaged)
    assert get(source).sha256 == sha(CONTENT)
    assert host.ranges() == [None, None]


RUN = """
import sys
from pathlib import Path
from dmps_cli.files.downloads import Web, fetch
from dmps_cli.listener import Silent
class Printer(Silent):
    def note(self, text): print(text, flush=True)
print("ready", flush=True)
found = fetch([Web(url=sys.argv[1])], Path(sys.argv[2]), command="", listener=Printer())
print(found.sha256, found.downloaded)
"""


def run(source: Web, target: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", RUN, source.url, str(target)], stdout=subprocess.PIPE, text=True)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_and_run_again(host: Host, get: Fetcher) -> None:
    """kill -9: the lock is free, the beginning is used, nothing is left over."""
    source = host.put(CONTENT, Turn(stall=200_000))
    with run(source, get.target) as process:
        until(lambda: sum(path.stat().st_size for path in get.target.parent.glob("*.part")) >= 100_000)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    (part,) = get.target.parent.glob("*.part")
    begun = part.stat().st_size
    assert get(source).sha256 == sha(CONTENT)
    assert get.target.read_bytes() == CONTENT
    assert host.ranges() == [None, f"bytes={begun}-"]
    assert get.progress[0] == (begun, SIZE)
    assert get.names() == DONE


@pytest.mark.parametrize("length", [True, False])
def test_killed_before_the_file_had_its_name(
    host: Host, get: Fetcher, monkeypatch: pytest.MonkeyPatch, length: bool
) -> None:
    """No byte comes twice, if it was known how many there are."""

    def ctrl_c(_: Path) -> str:
        raise KeyboardInterrupt

    source = host.put(CONTENT, Turn(), Turn(status=416), length=length)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(downloads, "sha256_file", ctrl_c)
        get(source)
    assert get(source).sha256 == sha(CONTENT)
    assert host.ranges() == ([None] if length else [None, f"bytes={SIZE}-", None])


def test_interrupted_in_the_middle(host: Host, get: Fetcher) -> None:
    source = host.put()

    def ctrl_c(done: int, _: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch([source], get.target, command="", listener=Heard(told=ctrl_c))
    assert get(source).sha256 == sha(CONTENT)
    assert host.ranges()[1] is not None


def test_two_processes_download_once(host: Host, get: Fetcher) -> None:
    source = host.put(CONTENT, Turn(delay=1.0))
    with run(source, get.target) as one:
        until(host.ranges)
        with run(source, get.target) as two:
            outputs = [process.communicate(timeout=20)[0].splitlines() for process in (one, two)]
    waiting = "another process downloads net.pt; waiting for it"
    assert outputs == [["ready", f"{sha(CONTENT)} True"], ["ready", waiting, f"{sha(CONTENT)} False"]]
    assert host.ranges() == [None]


# Refusals


@pytest.mark.parametrize(
    ("status", "text"), [(404, "HTTP 404, no such file"), (401, "a login"), (403, "refused"), (410, "HTTP 410")]
)
def test_refusals_are_final(host: Host, get: Fetcher, status: int, text: str) -> None:
    source = host.put(CONTENT, Turn(status=status))
    with pytest.raises(WeightsError, match=text):
        get(source)
    assert (len(host.seen), get.slept) == (1, [])


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        (404, "EntryNotFound", f"HTTP 404, no such file at revision {REVISION}"),
        (401, "RepoNotFound", "does not exist or is private; if private, set HF_TOKEN"),
        (401, "GatedRepo", "gated; accept its terms on https://huggingface.co/owner/model, then set HF_TOKEN"),
        (403, "GatedRepo", "gated; accept its terms"),
    ],
)
def test_refusals_of_the_hub(host: Host, get: Fetcher, status: int, code: str, text: str) -> None:
    host.hub[f"/owner/model/resolve/{REVISION}/net.pt"] = Turn(status=status, headers={"X-Error-Code": code})
    with pytest.raises(WeightsError, match=text):
        get(HUB)
    assert (len(host.seen), get.slept) == (1, [])


def test_too_many_requests(host: Host, get: Fetcher) -> None:
    """A number of seconds, a date, nothing."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    waits = [{"Retry-After": "7"}, {"Retry-After": date}, {}, {"Retry-After": "\xb2"}]  # a digit that is no number
    source = host.put(CONTENT, *[Turn(status=429, headers=wait) for wait in waits])
    assert get(source).sha256 == sha(CONTENT)
    assert get.slept == [7.0, pytest.approx(29.0, abs=2), 4.0, 8.0]
    assert get.notes[0] == f"{source}: HTTP 429; trying again in 7 s"


def test_a_server_that_asks_to_come_back_tomorrow(host: Host, get: Fetcher) -> None:
    first = host.put(CONTENT, Turn(status=429, headers={"Retry-After": "86400"}), path="/first")
    second = host.put()
    assert get(first, second).source == str(second)
    assert get.notes == [f"{first}: HTTP 429, and the server asks to come back in 86400 s; trying {second}"]
    assert get.slept == []


def test_a_busy_server(host: Host, get: Fetcher) -> None:
    source = host.put(CONTENT, Turn(status=503), Turn(status=502))
    assert get(source).sha256 == sha(CONTENT)
    assert get.slept == [1.0, 2.0]


def test_the_next_source_and_every_reason(host: Host, get: Fetcher) -> None:
    gone, busy = Web(url=host.url("/gone")), host.put(CONTENT, *[Turn(status=503)] * 2, path="/busy")
    good = host.put()
    assert get(gone, good).source == str(good)
    assert get.notes == [f"{gone}: HTTP 404, no such file; trying {good}"]
    get.target.unlink()
    with pytest.raises(WeightsError) as failure:
        get(gone, busy, patience={"tries": 2})
    assert str(failure.value) == (
        f"cannot download net.pt: {gone}: HTTP 404, no such file; {busy}: HTTP 503; gave up after 2 tries; "
        f"or put the file at {get.target} yourself"
    )
    with pytest.raises(WeightsError, match="no source is known; or put the file at"):
        get()


def play(monkeypatch: pytest.MonkeyPatch, act: Callable[[httpx2.Request], httpx2.Response]) -> None:
    """What a server with encryption would answer."""
    client = httpx2.Client(transport=httpx2.MockTransport(act), follow_redirects=True)
    monkeypatch.setattr(downloads, "_client", lambda _: client)


def test_a_certificate_that_fails_is_final(get: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")

    play(monkeypatch, act)
    with pytest.raises(WeightsError, match=r"the server's certificate is not to be trusted .*self-signed"):
        get(Web(url="https://h/net.pt"))
    assert get.slept == []


def test_encryption_is_not_given_up_on_the_way(get: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(request: httpx2.Request) -> httpx2.Response:
        if request.url.scheme == "https":
            return httpx2.Response(302, headers={"Location": "http://store/net.pt"})
        return httpx2.Response(200, content=CONTENT)

    play(monkeypatch, act)
    with pytest.raises(WeightsError, match="it leads to store without encryption"):
        get(Web(url="https://h/net.pt"))
    assert get.names() == []


def test_a_web_page_is_no_file(host: Host, get: Fetcher) -> None:
    source = host.put(b"<html>Please log in to the hotel", kind="text/html; charset=utf-8")
    with pytest.raises(WeightsError, match="a web page came, not a file"):
        get(source)
    assert get.names() == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file came"),
        (b"<!DOCTYPE html><title>sign in</title>" + CONTENT, "a web page came, not a file"),
        (b"\xef\xbb\xbf\n <HTML>", "a web page came, not a file"),
        (b'{"error": "come back later"}', "what came is not a checkpoint"),
        (b"PAR1" + CONTENT, "what came is not a checkpoint"),
    ],
)
def test_without_a_known_hash_the_first_bytes_tell(host: Host, get: Fetcher, content: bytes, said: str) -> None:
    source = host.put(content)
    with pytest.raises(WeightsError, match=said):
        get(source, form=CHECKPOINT)
    assert get.names() == []
    assert get(host.put(b"PK\x03\x04" + CONTENT), form=CHECKPOINT).downloaded


def test_no_more_is_taken_than_the_file_can_have(host: Host, get: Fetcher) -> None:
    """A body without an end would fill the disk."""
    small = replace(JSON, most=1000)
    for length in (True, False):
        with pytest.raises(WeightsError, match=r"more than (the )?1000"):
            get(host.put(b"{" + CONTENT, length=length), form=small)
    with pytest.raises(WeightsError, match="more than 1048577 bytes came"):
        get(host.put(CONTENT * 5, length=False), size=1)
    assert "net.pt" not in get.names()


def test_an_address_of_this_machine_does_not_lead_away(get: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(request: httpx2.Request) -> httpx2.Response:
        if request.url.host == "127.0.0.1":
            return httpx2.Response(302, headers={"Location": "http://h/net.pt"})
        return httpx2.Response(200, content=CONTENT)

    play(monkeypatch, act)
    with pytest.raises(WeightsError, match="it leads to h without encryption"):
        get(Web(url="http://127.0.0.1:1/net.pt"))


def test_sizes_that_are_no_numbers(host: Host, get: Fetcher) -> None:
    for length in ("\xb2", "9" * 5000):
        source = host.put(CONTENT, Turn(headers={"Content-Length": length}), length=False)
        with contextlib.suppress(WeightsError):
            get(source, patience={"tries": 1})
    assert get(host.put()).sha256 == sha(CONTENT)


def test_a_packed_file_is_refused(host: Host, get: Fetcher) -> None:
    source = host.put(CONTENT, Turn(headers={"Content-Encoding": "gzip"}))
    with pytest.raises(WeightsError, match=r"packed the file \(gzip\)"):
        get(source)


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
    monkeypatch.setattr(downloads, "sha256_file", lambda _: pytest.fail("read again"))
    assert get(source, sha256=sha(CONTENT)).sha256 == sha(CONTENT)


def test_verify(host: Host, get: Fetcher) -> None:
    """Reads the file, even if size and time are those recorded."""
    get(host.put())
    assert verify(get.target) == verify(get.target, SIZE, sha(CONTENT).upper()) == sha(CONTENT)
    stat = get.target.stat()
    get.target.write_bytes(OTHER)
    os.utime(get.target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(WeightsError, match="when it was first downloaded"):
        verify(get.target)
    with pytest.raises(WeightsError, match=f"{sha(OTHER)}, {sha(CONTENT)} is due"):
        verify(get.target, SIZE, sha(CONTENT))
    with pytest.raises(WeightsError, match="1 are due"):
        verify(get.target, 1)
    with pytest.raises(InputError, match="No such file"):
        verify(get.target.with_name("gone"))


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
    monkeypatch.setattr(downloads, "locked", lambda *_: pytest.fail("locked"))
    monkeypatch.setattr(downloads, "atomic_write", lambda *_, **__: (_ for _ in ()).throw(OutputError("read-only")))
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


# Google Drive


@pytest.fixture
def gdown(monkeypatch: pytest.MonkeyPatch, host: Host) -> None:
    """A stand-in for the package, and the host for Google."""

    class FileURLRetrievalError(Exception):
        pass

    def confirmed(page: str) -> str:
        if "confirm=" not in page:
            raise FileURLRetrievalError(f"<b>{page}</b>")
        return page.partition("href=")[2]

    package = types.ModuleType("gdown")
    parts = {
        "download": {"get_url_from_gdrive_confirmation": confirmed},
        "exceptions": {FileURLRetrievalError.__name__: FileURLRetrievalError},
    }
    monkeypatch.setitem(sys.modules, "gdown", package)
    for name, members in parts.items():
        module = types.ModuleType(f"gdown.{name}")
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, f"gdown.{name}", module)
    monkeypatch.setattr(downloads, "DRIVE", host.url("/uc"))


@pytest.mark.usefixtures("gdown")
def test_a_large_file_on_google_drive(host: Host, get: Fetcher) -> None:
    """Behind its page, and with all that holds for other files: here, going on where the connection was cut."""
    page = f"Too large to scan. href={host.url('/big?confirm=1')}".encode()
    host.put(page, path="/uc", kind="text/html")
    host.put(CONTENT, Turn(cut=100_000), path="/big")
    assert get(Drive(gdrive="1B")) == Fetched(
        path=get.target, sha256=sha(CONTENT), source="Google Drive 1B", downloaded=True
    )
    assert [seen.path for seen in host.seen] == ["/uc?id=1B&export=download", "/big?confirm=1"] * 2
    assert host.ranges("/big?confirm=1") == [None, "bytes=100000-"]


@pytest.mark.usefixtures("gdown")
def test_a_small_file_on_google_drive(host: Host, get: Fetcher) -> None:
    host.put(path="/uc")
    assert get(Drive(gdrive="1B")).sha256 == sha(CONTENT)


@pytest.mark.usefixtures("gdown")
def test_google_refuses(host: Host, get: Fetcher) -> None:
    host.put(b"Too many users have viewed this file recently.", path="/uc", kind="text/html")
    with pytest.raises(WeightsError, match=r"Google says: Too many users .* recently; download https://.*1B/view in a"):
        get(Drive(gdrive="1B"))
    assert get.slept == []


def test_google_drive_without_gdown(host: Host, get: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdown.download", None)
    source = host.put()
    assert get(Drive(gdrive="1B"), source).source == str(source)
    assert get.notes == [
        "Google Drive 1B: this needs gdown: pip install gdown; or download "
        f"https://drive.google.com/file/d/1B/view in a browser and give the file with --model PATH; trying {source}"
    ]
