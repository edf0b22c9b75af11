"""Whether there is a network at all, found out within a time that a person waits."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

UNREACHABLE = 15.0
"""Seconds after which a command that no host has answered gives up."""

_PORTS = {"http": 80, "https": 443}


def is_silent(url: str, seconds: float) -> bool:
    """Returns whether the host of an address gives no sign within so many seconds: neither a connection nor a refusal.

    In a thread of its own: neither the search for a name nor the round over a host's addresses keeps to a time-out.
    False for an address that is none, and where a proxy stands between: who uses it finds out.
    """
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        place = (parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0))
        if all(place) and not _is_by_proxy(parts.scheme, place[0]):
            return not _answers(place, seconds)
    return False


def _is_by_proxy(scheme: str, host: str) -> bool:
    proxies = getproxies()
    return bool(proxies.get(scheme) or proxies.get("all")) and not proxy_bypass(host)


def _answers(place: tuple[str, int], seconds: float) -> bool:
    is_answered = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError, UnicodeError):  # a name too long to be one is a UnicodeError
            socket.create_connection(place, timeout=seconds + 1.0).close()
        is_answered.set()

    threading.Thread(target=connect, daemon=True).start()
    return is_answered.wait(seconds)
