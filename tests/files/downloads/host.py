"""A host that cuts, stalls, refuses and lies; it plays the Hub, a plain host and Google Drive."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from dmps_cli.files.downloads.fetch import fetch
from dmps_cli.files.downloads.here import Fetched
from dmps_cli.files.downloads.order import Patience
from dmps_cli.files.downloads.sources import Hub, Source, Web
from tests.shell import Heard

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
SIZE = len(CONTENT)
REVISION = "6b0a2cf45decab1f022d22eefe3787d9d515f32b"
HUB = Hub(repo="owner/model", file="net.pt", revision=REVISION)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Turn:
    """How the host treats one request for a file; by default as it should."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None  # so many bytes, then the connection is cut
    stall: int | None = None  # so many bytes, then nothing more
    drip: float | None = None  # 200 times a byte and so many seconds
    held: threading.Event | None = None  # what is waited for between the halves
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
        if turn.held:
            half = len(body) // 2
            self.wfile.write(body[:half])
            turn.held.wait()
            body = body[half:]
        if turn.cut is None and turn.stall is None:
            self.wfile.write(body)
            return
        self.wfile.write(body[: turn.cut if turn.cut is not None else turn.stall])
        if turn.stall is not None:
            self.host.closing.wait()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that went away is part of the play."""


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


DONE = ["net.pt", "net.pt.json"]
