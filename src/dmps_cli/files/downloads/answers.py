"""What a server's answer says: whether it is the file, of which version and size, or why not."""

from __future__ import annotations

import email.utils
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dmps_cli.errors import WeightsError
from dmps_cli.files.downloads.order import Patience
from dmps_cli.files.downloads.part import Answer
from dmps_cli.files.downloads.sources import THIS_MACHINE, Hub, HubListing, Source

if TYPE_CHECKING:
    import httpx2

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BUSY = (408, 429, 500, 502, 503, 504)  # statuses that may be another a moment later


class Interrupted(Exception):  # noqa: N818 - not an error yet
    """Worth another try, after `wait` seconds if the server says so."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def is_page(response: httpx2.Response) -> bool:
    """Returns whether a page came that is meant for a reader."""
    return response.is_success and "html" in response.headers.get("Content-Type", "").lower()


def check_status(response: httpx2.Response, source: Source, patience: Patience) -> None:
    """Raises Interrupted if a later try may succeed, WeightsError if not."""
    status = response.status_code
    if status == 416:
        raise Interrupted("the server has no such range")
    if status in _BUSY:
        wait = _retry_after(response.headers.get("Retry-After", ""))
        if wait is not None and wait > patience.longest_wait:
            raise WeightsError(f"HTTP {status}, and the server asks to come back in {wait:.0f} s")
        raise Interrupted(f"HTTP {status}", wait)
    if status not in (200, 206):
        raise WeightsError(f"HTTP {status}{explained(response, source)}")
    way = [each.url for each in (*response.history, response)]
    near = (way[0].host, *THIS_MACHINE) if way[0].scheme == "http" else ()
    if bare := [url.host for url in way if url.scheme != "https" and url.host not in near]:
        raise WeightsError(f"it leads to {bare[0]} without encryption")
    if is_page(response):
        raise WeightsError("a web page came, not a file")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise WeightsError(f"the server packed the file ({response.headers['Content-Encoding']}) though told not to")


def explained(response: httpx2.Response, source: Source) -> str:
    """Returns what a refusal means, to follow its number; '' where nothing is known."""
    status = response.status_code
    if not isinstance(source, Hub | HubListing):
        return {404: ", no such file", 401: ", a login is needed", 403: ", access refused"}.get(status, "")
    code = response.headers.get("X-Error-Code", "")
    if code == "GatedRepo":
        page = source.repo if type(source) is Hub else f"datasets/{source.repo}"
        return f", the repository is gated; accept its terms on https://huggingface.co/{page}, then set HF_TOKEN"
    if status in (401, 403):
        return ", the repository does not exist or is private; if private, set HF_TOKEN to a token that may read it"
    what = "file" if isinstance(source, Hub) else "data set, or none"
    return f", no such {what} at revision {source.revision}" if status == 404 else ""


def _retry_after(value: str) -> float | None:
    """Returns the seconds that a Retry-After header asks for: a number, or a date; None if it says nothing."""
    if (seconds := _count(value)) is not None:
        return float(seconds)
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None


def _count(text: str) -> int | None:
    """Returns the number that a header's digits say, ASCII's alone and no more of them than a size has.

    None for others.
    """
    return int(text) if re.fullmatch(r"\s*[0-9]{1,18}\s*", text) else None


def answer_of(response: httpx2.Response, source: Source) -> Answer:
    """Returns what a response says of the file; a weak ETag is no validator of bytes (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag", "")
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
    total = response.headers.get("Content-Length", "")
    if response.status_code == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
    published = None
    if isinstance(source, Hub):  # the Hub answers with X-Linked-ETag and leads to a store, or itself sends the file
        answers = [*response.history, response]
        linked = [each.headers["X-Linked-ETag"] for each in answers if "X-Linked-ETag" in each.headers]
        published = [*linked, answers[0].headers.get("ETag", "")][0].removeprefix("W/").strip('"').lower()
    return Answer(
        total=_count(total),
        validator=validator,
        sha256=published if published and _SHA256.fullmatch(published) else None,
    )


def goes_on(response: httpx2.Response, answer: Answer, offset: int, begun: Answer | None) -> bool:
    """Returns whether a 206 continues the bytes begun.

    Some servers send a range of the new file in spite of If-Range.
    """
    starts = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
    same = begun is not None and (
        answer.validator in (None, begun.validator)
        and answer.sha256 == begun.sha256
        and answer.total in (None, begun.total)
    )
    return starts and same
