"""The bytes of a source, try after try, into a part that a later run goes on with, however this one ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dmps_cli import __version__
from dmps_cli.errors import WeightsError
from dmps_cli.files.cache import check_room
from dmps_cli.files.downloads.addresses import address
from dmps_cli.files.downloads.answers import Interrupted, answer_of, check_status, goes_on
from dmps_cli.files.downloads.expected import check_answer
from dmps_cli.files.downloads.order import Order, Patience
from dmps_cli.files.downloads.part import Answer, Part
from dmps_cli.files.downloads.sources import Source
from dmps_cli.files.hashes import stat_of
from dmps_cli.files.network import is_silent

if TYPE_CHECKING:
    import httpx2


class _Unreachable(Interrupted):
    """No connection came about."""


def whole(order: Order, source: Source, part: Part) -> Answer:
    """Brings the part to its end, try after try; one that got on starts the count again."""
    patience, failures = order.patience, 0
    with _client(order) as client:
        while True:
            before = part.state()[0]
            try:
                return _attempt(order, source, part, client)
            except Interrupted as exc:
                got_on = part.state()[0] - before >= patience.floor * patience.window
                failures = 1 if got_on else failures + 1
                if failures >= patience.tries:
                    raise WeightsError(f"{exc}; gave up after {failures} tries") from exc
                wait = patience.first_wait * 2 ** (failures - 1) if exc.wait is None else exc.wait
                if isinstance(exc, _Unreachable) and wait >= order.hope:
                    raise WeightsError(f"{exc}; gave up after {failures} tries") from exc
                order.note(f"{source}: {exc}; trying again in {wait:.0f} s")
                patience.sleep(wait)


def _client(order: Order) -> httpx2.Client:
    """Asks for uncompressed answers: sizes and ranges are those of the file. Proxies as the environment says."""
    import httpx2

    patience = order.patience

    def check(request: httpx2.Request) -> None:
        seconds = min(patience.connect, max(1.0, order.hope))  # the last try may be shorter, but not in vain
        if not order.contact.is_made and is_silent(str(request.url), seconds):
            raise httpx2.ConnectTimeout("", request=request)

    headers = {"User-Agent": f"dmps-cli/{__version__}", "Accept-Encoding": "identity"}
    timeout = httpx2.Timeout(patience.read, connect=patience.connect)
    return httpx2.Client(headers=headers, timeout=timeout, follow_redirects=True, event_hooks={"request": [check]})


def _attempt(order: Order, source: Source, part: Part, client: httpx2.Client) -> Answer:
    """Makes one request for what is missing. Raises Interrupted or WeightsError."""
    import httpx2

    offset, begun = part.state()
    if begun and offset == begun.total:
        return begun
    try:
        url, headers = address(source, client)
        if begun and begun.validator:
            headers |= {"Range": f"bytes={offset}-", "If-Range": begun.validator}
        with client.stream("GET", url, headers=headers) as response:
            order.contact.is_made = True
            if response.status_code == 416:
                part.drop()
            check_status(response, source, order.patience)
            answer = answer_of(response, source)
            check_answer(order, answer)
            if response.status_code != 206:
                offset = 0
            elif not goes_on(response, answer, offset, begun):
                part.drop()
                raise Interrupted("the file has changed since the download began")
            check_room(order.target, (answer.total or 0) - offset)
            order.told(offset, answer.total)
            chunks = _bounded(_lively(response.iter_raw(), order.patience), offset, order.most)
            part.write(chunks, offset, answer, order.told)
    except (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError) as exc:
        if "CERTIFICATE_VERIFY_FAILED" in str(exc):
            raise WeightsError(f"the server's certificate is not to be trusted ({exc})") from exc
        is_connected = not isinstance(exc, httpx2.ConnectError | httpx2.ConnectTimeout)
        raise (Interrupted if is_connected else _Unreachable)(_words(exc, order.patience)) from exc
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as exc:  # the last of a host's name too long to be one
        raise WeightsError(str(exc) or type(exc).__name__) from exc
    got = stat_of(part.path).st_size
    if answer.total is not None and got < answer.total:  # a server may send less of a range than was asked for
        raise Interrupted(f"{got} of {answer.total} bytes came")
    if got != (order.size or answer.total or got):
        part.drop()
        raise WeightsError(f"{got} bytes came, {order.size or answer.total} are due")
    return answer


def _words(exc: httpx2.TransportError, patience: Patience) -> str:
    import httpx2

    if isinstance(exc, httpx2.ConnectTimeout):
        return f"no connection within {patience.connect:g} s"
    if isinstance(exc, httpx2.TimeoutException):
        return f"nothing came for {patience.read:g} s"
    if isinstance(exc, httpx2.ConnectError):
        return f"no connection ({exc})"
    return "the connection was cut"


def _bounded(chunks: Iterator[bytes], offset: int, most: float) -> Iterator[bytes]:
    """Yields the chunks as they come.

    Raises WeightsError when they are more than the file can have: a disk would fill up.
    """
    for chunk in chunks:
        offset += len(chunk)
        if offset > most:
            raise WeightsError(f"more than {most:.0f} bytes came")
        yield chunk


def _lively(chunks: Iterator[bytes], patience: Patience) -> Iterator[bytes]:
    """Yields the chunks as they come.

    Raises Interrupted when they only drip: a time-out for each byte never runs out.
    """
    start, got = time.monotonic(), 0
    for chunk in chunks:
        yield chunk
        got += len(chunk)
        if (elapsed := time.monotonic() - start) >= patience.window:
            if got < patience.floor * elapsed:
                raise Interrupted(f"only {got} bytes came in {elapsed:.0f} s")
            start, got = time.monotonic(), 0
