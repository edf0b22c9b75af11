"""The Hub's token; Google Drive's page."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from dmps_cli.errors import WeightsError
from dmps_cli.files.downloads import addresses
from dmps_cli.files.downloads.fetch import Fetched
from dmps_cli.files.downloads.sources import Drive
from tests.files.downloads.host import (
    CONTENT,
    REVISION,
    Fetcher,
    Host,
    Seen,
    Turn,
    sha,
)


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
    monkeypatch.setattr(addresses, "DRIVE", host.url("/uc"))


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
