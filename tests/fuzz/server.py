"""A host that misbehaves, each time as a number says."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
import zipfile
from io import BytesIO
from random import Random

from tests.fuzz.mutations import TEXTS, spoiled_bytes, spoiled_json

STATUSES = (200, 200, 200, 200, 206, 204, 301, 302, 307, 304, 400, 401, 403, 404, 416, 429, 500, 503, 600, 999, 0, -1)
HEADERS = {
    "Content-Length": ("0", "5", "-1", "999999999999", "\xb2", "9" * 5000, "1, 2", "", "x"),
    "Content-Type": ("text/html", "application/octet-stream", "\x1b[2J", ""),
    "Content-Encoding": ("gzip", "identity", "br", "\x1b[31m", "x" * 100),
    "Content-Range": ("bytes 0-4/5", "bytes */5", "bytes 5-4/3", "bytes \xb2-/\xb2", "x", "bytes 0-/" + "9" * 5000),
    "ETag": ('"a"', 'W/"a"', '"' + "0" * 64 + '"', "\x1b[2J", '"', ""),
    "X-Linked-ETag": ('"' + "0" * 64 + '"', "a", "\xff"),
    "X-Error-Code": ("GatedRepo", "\x1b[2J"),
    "Last-Modified": ("Thu, 01 Jan 1970 00:00:00 GMT", "soon", "\xff"),
    "Retry-After": (
        "0",
        "1",
        "\xb2",
        "9" * 5000,
        "1e9",
        "-1",
        "Fri, 31 Dec 99999 23:59:59 GMT",
        "Mon, 01 Jan 0001 00:00:00 +9999",
    ),
    "Transfer-Encoding": ("chunked", "gzip, chunked", "x"),
    "Location": (
        "/0",
        "http://[::1",
        "file:///etc/passwd",
        "//",
        "http://h\x00/",
        "gopher://x/",
        "http://" + "a" * 300 + "/",
        "\xff",
        "",
    ),
    "Connection": ("close", "upgrade", "keep-alive"),
}


def answer(seed: int) -> tuple[bytes, bytes, bool]:
    """(head, body, whether it stalls) of the answer to a request of that number."""
    rng = Random(seed)
    body = _body(rng)
    headers = {"Content-Length": str(len(body))}
    for name in rng.sample(sorted(HEADERS), rng.randrange(4)):
        headers[name] = rng.choice(HEADERS[name])
    status = rng.choice(STATUSES)
    lines = [
        f"HTTP/1.1 {status} {rng.choice(('OK', '', chr(27) + '[2J'))}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
    if rng.random() < 0.2:
        head = spoiled_bytes(head, rng)
    if rng.random() < 0.2:
        body = body[: rng.randrange(len(body) + 1)]
    return head, body, rng.random() < 0.05


def _body(rng: Random) -> bytes:
    listing = {
        "sha": "0" * 40,
        "siblings": [{"rfilename": "data/train-00000-of-00001.parquet", "size": 9, "lfs": {"sha256": "0" * 64}}],
    }
    zipped = BytesIO()
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    return rng.choice(
        (
            lambda: b"",
            lambda: b"<html>\x1b[2Jsign in</html>",
            lambda: spoiled_json(json.dumps(listing).encode(), rng),
            lambda: json.dumps(listing).encode(),
            lambda: rng.randbytes(rng.choice((1, 100, 100_000))),
            lambda: spoiled_bytes(zipped.getvalue(), rng),
            lambda: rng.choice(TEXTS).encode(errors="replace"),
            lambda: b"PAR1" + rng.randbytes(30) + b"PAR1",
        )
    )()


def serve() -> tuple[int, int]:
    """(process, port) of the host, which answers a request for any path with the number that its last part ends in."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    port = listener.getsockname()[1]
    pid = os.fork()
    if pid:
        listener.close()
        return pid, port
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError, ValueError, IndexError):
                connection.settimeout(2.0)
                line = connection.recv(65536).split(b"\r\n")[0].split()[1]
                digits = b"".join(bytes([c]) for c in line.partition(b"?")[0] if chr(c).isdigit())
                head, body, stalls = answer(int(digits[-9:] or b"0"))
                connection.sendall(head + body)
                if stalls:
                    time.sleep(1.0)
    finally:
        os._exit(0)
