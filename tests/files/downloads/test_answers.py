"""What servers answer that is not the file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest

from dmps_cli.errors import WeightsError
from dmps_cli.files.downloads import transfer
from dmps_cli.files.downloads.sources import Web
from dmps_cli.files.formats import CHECKPOINT, JSON
from tests.files.downloads.host import (
    CONTENT,
    HUB,
    REVISION,
    Fetcher,
    Host,
    Turn,
    sha,
)


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
    monkeypatch.setattr(transfer, "_client", lambda _: client)


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
