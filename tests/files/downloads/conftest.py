"""The host and a fetcher for each test."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.files.downloads.host import (
    Fetcher,
    Handler,
    Host,
    Server,
)


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


@pytest.fixture
def get(tmp_path: Path) -> Fetcher:
    return Fetcher(tmp_path / "cache" / "net.pt")
