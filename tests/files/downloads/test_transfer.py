"""Connections that are cut, stall and end; processes that are killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dmps_cli.errors import WeightsError
from dmps_cli.files.downloads import fetch as fetching
from dmps_cli.files.downloads.fetch import fetch
from dmps_cli.files.downloads.sources import Web
from tests.files.downloads.host import (
    CONTENT,
    DONE,
    HUB,
    OTHER,
    SIZE,
    Fetcher,
    Host,
    Turn,
    sha,
)
from tests.shell import Heard


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


def test_through_a_proxy(host: Host, get: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the environment; it is asked for the whole address, where nobody else would answer."""
    monkeypatch.setenv("http_proxy", host.url(""))
    host.put(path="http://localhost:9/net.pt")
    assert get(Web(url="http://localhost:9/net.pt")).sha256 == sha(CONTENT)
    assert [seen.path for seen in host.seen] == ["http://localhost:9/net.pt"]


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
from contextlib import contextmanager
from pathlib import Path
from dmps_cli.files.downloads.fetch import fetch
from dmps_cli.files.downloads.sources import Web
from dmps_cli.listener import Silent
class Printer(Silent):
    def note(self, text): print(text, flush=True)
    @contextmanager
    def transfer(self, name):
        def told(done, total):
            if done >= 100_000 and "--tell" in sys.argv: print("some", flush=True)
        yield told
print("ready", flush=True)
found = fetch([Web(url=sys.argv[1])], Path(sys.argv[2]), command="", listener=Printer())
print(found.sha256, found.downloaded)
"""


def run(source: Web, target: Path, *options: str) -> subprocess.Popen[str]:
    program = [sys.executable, "-c", RUN, source.url, str(target), *options]
    return subprocess.Popen(program, stdout=subprocess.PIPE, text=True)


def heard(process: subprocess.Popen[str], text: str) -> None:
    """Waits until a process says a line."""
    assert process.stdout is not None
    assert text in (line.rstrip("\n") for line in process.stdout)


@pytest.mark.posix
def test_killed_and_run_again(host: Host, get: Fetcher) -> None:
    """kill -9: the lock is free, the beginning is used, nothing is left over."""
    source = host.put(CONTENT, Turn(stall=200_000))
    with run(source, get.target, "--tell") as process:
        heard(process, "some")
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
        patch.setattr(fetching, "sha256_file", ctrl_c)
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
    half_sent = threading.Event()
    source = host.put(CONTENT, Turn(held=half_sent))
    with run(source, get.target, "--tell") as one:
        heard(one, "some")
        with run(source, get.target) as two:
            heard(two, "another process downloads net.pt; waiting for it")
            half_sent.set()
            outputs = [process.communicate()[0].splitlines()[-1] for process in (one, two)]
    assert outputs == [f"{sha(CONTENT)} True", f"{sha(CONTENT)} False"]
    assert host.ranges() == [None]
