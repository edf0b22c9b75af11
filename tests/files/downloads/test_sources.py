"""Where a file may lie."""

from __future__ import annotations

from typing import Any

import pytest

from dmps_cli.errors import InputError
from dmps_cli.files.downloads.sources import Drive, Hub, Web, parse_source
from tests.files.downloads.host import (
    HUB,
)


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
