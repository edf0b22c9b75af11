"""Checkpoints and data sets from the network into the cache: whole, checked, and once.

A source says where a file lies: on the Hub, under a URL, on Google Drive. Whichever it is, the bytes come the same
way, through httpx2, which huggingface_hub brings: into a temporary file beside the target that a later run goes on
with, however this one ended. That is why the Hub's files are not left to `hf_hub_download`: it (2.4) begins again in
another process, and compares no hash. What lies in the Hub's own cache is used from there; address, token and
HF_ENDPOINT are the Hub library's.
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import glob
import hashlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn
from urllib.parse import quote, urlsplit

from dmps_cli import __version__
from dmps_cli.errors import InputError, OutputError, WeightsError
from dmps_cli.files.atomic import atomic_write, remove_left_overs, sha256_file
from dmps_cli.files.formats import HEAD, Format, is_markup
from dmps_cli.files.network import UNREACHABLE, is_silent
from dmps_cli.files.reading import read_bytes
from dmps_cli.files.records import RecordError, Sha256, as_record, is_relative, parse_json
from dmps_cli.listener import SILENT, Listener, Told

if TYPE_CHECKING:
    import httpx2


Note = Callable[[str], object]
"""Told what is worth knowing, in a sentence."""

DRIVE = "https://drive.google.com/uc"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BUSY = (408, 429, 500, 502, 503, 504)  # statuses that may be another a moment later


# Sources
@dataclass(frozen=True, kw_only=True)
class Hub:
    """A file of a repository on the Hugging Face Hub."""

    kind: ClassVar[str] = "model"
    repo: str
    file: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"Hub {self.repo}/{self.file}{'' if self.revision == 'main' else '@' + self.revision[:12]}"


@dataclass(frozen=True, kw_only=True)
class HubData(Hub):
    """A file of a data set on the Hub."""

    kind: ClassVar[str] = "dataset"


@dataclass(frozen=True, kw_only=True)
class HubListing:
    """What the Hub says of a data set, as JSON: the commit (`sha`), and name, size and sha256 of its files."""

    repo: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"Hub {self.repo}{'' if self.revision == 'main' else '@' + self.revision[:12]}"


@dataclass(frozen=True, kw_only=True)
class Web:
    """A file under a URL."""

    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, kw_only=True)
class Drive:
    """A file on Google Drive, by its id."""

    gdrive: str

    def __str__(self) -> str:
        return f"Google Drive {self.gdrive}"


Source = Hub | HubListing | Web | Drive


def parse_source(mapping: Mapping[str, Any]) -> Source:
    """Returns the source that a TOML table describes: {repo, file, revision}, {url} or {gdrive}. Raises InputError."""
    for key, kind in (("repo", Hub), ("url", Web), ("gdrive", Drive)):
        if key in mapping:
            source = _parsed(kind, mapping)
            _check_source(source)
            return source
    raise InputError(f"a source needs repo and file, url, or gdrive; it has {', '.join(mapping) or 'nothing'}")


def _parsed(kind: type[Hub | Web | Drive], mapping: Mapping[str, Any]) -> Source:
    for key, value in mapping.items():
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"a source's {key} is {value!r}; a text is needed")
    try:
        return kind(**mapping)
    except TypeError as exc:
        keys = ", ".join(item.name for item in fields(kind))
        raise InputError(f"a source has the keys {', '.join(mapping)}; it takes {keys}") from exc


def _check_source(source: Source) -> None:
    match source:
        case Hub(repo=repo) if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo):
            raise InputError(f"a source's repo is '{repo}'; owner/name is needed")
        case Hub(file=file) if not is_relative(file):
            raise InputError(f"a source's file is '{file}'; a path inside the repository is needed")
        case Web(url=url) if not _is_safe(url):
            raise InputError(f"a source's url is '{url}'; https://host/... is needed")
        case Hub(revision=revision) if not re.fullmatch(r"[\w./-]{1,255}", revision):
            raise InputError(f"a source's revision is '{revision}'; a branch, a tag or a commit is needed")
        case Drive(gdrive=gdrive) if not re.fullmatch(r"[\w-]+", gdrive):
            raise InputError(f"a source's gdrive is '{gdrive}'; the id alone is needed, not the address")


def _is_safe(url: str) -> bool:
    """Returns whether it is an address of https, or of this machine, without a user's name, which looks like a host."""
    if not re.fullmatch(r"[^\s\\\x00-\x20\x7f-\x9f]+", url):  # urlsplit() drops or keeps what httpx2 reads otherwise
        return False
    try:
        parts = urlsplit(url)
        is_whole = parts.hostname is not None and parts.port != 0  # `port` checks that it is a number
    except ValueError:
        return False
    is_encrypted = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _THIS_MACHINE)
    return is_whole and is_encrypted and "@" not in parts.netloc


_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


# The contract
@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a download waits: seconds, but for `tries` (in a row without getting on) and `floor` (bytes a second).

    Slower than `floor` over `window` counts as stalled; `read` bounds the wait for any next byte. The wait between
    two tries doubles from `first_wait`; a server that asks for more than `longest_wait` is given up. `connect` bounds
    the wait for a connection; if there has been none for `unreachable`, there is no network.
    """

    tries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 300.0
    read: float = 30.0
    connect: float = 5.0
    unreachable: float = UNREACHABLE
    window: float = 60.0
    floor: float = 1024.0
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A file at hand. source: where it came from, empty if nobody knows; downloaded: in this call."""

    path: Path
    sha256: str
    source: str
    downloaded: bool


def cache_dir() -> Path:
    """Returns the folder of downloaded files: DMPS_CACHE, else XDG_CACHE_HOME/dmps, else ~/.cache/dmps.

    It is not made.
    """
    try:
        if named := os.environ.get("DMPS_CACHE"):
            return Path(named).expanduser().absolute()
        xdg = os.environ.get("XDG_CACHE_HOME", "")
        if Path(xdg).is_absolute():  # the specification ignores others
            return Path(xdg) / "dmps"
        return Path.home() / ".cache" / "dmps"
    except RuntimeError as exc:
        raise OutputError("there is no home folder for the cache; name a folder with DMPS_CACHE") from exc


def fetch(
    sources: Sequence[Source],
    target: Path,
    *,
    command: str,
    size: int | None = None,
    sha256: str | None = None,
    offline: bool = False,
    use_hub_cache: bool = True,
    listener: Listener = SILENT,
    label: str = "",
    patience: Patience | None = None,
    advice: str = "",
    form: Format | None = None,
) -> Fetched:
    """Returns the file `target`, or its like in the Hub's cache; if need be downloads it, from the first good source.

    size: in bytes; sha256: hexadecimal, or None: what the Hub publishes, or what was first downloaded, is compared
    with; form: what its first bytes must be. command: what downloads this file, for the message of a machine without
    network; advice: what to do instead, where the file is none that a user could put there. HF_HUB_OFFLINE=1 is
    `offline`. use_hub_cache: whether a file in the Hub's cache will do. Of several processes one downloads, the others
    wait; a file that is there needs no write.

    Raises WeightsError if no source works, or if the file there is another than expected (it is left alone);
    OutputError if the cache cannot be written or the disk is full; InputError if the file there cannot be read.
    """
    order = _Order(
        target=target,
        size=size,
        sha256=sha256.lower() if sha256 else None,
        told=lambda done, total: None,
        note=listener.note,
        patience=patience or Patience(),
        form=form,
        contact=_Contact(),
    )
    if found := _at_hand(order, sources if use_hub_cache else ()):
        return found
    if offline or is_offline():
        why = "offline was asked for" if offline else "HF_HUB_OFFLINE is set"
        copy = f"run `{command}` on a machine with network and copy the file to that path"
        raise WeightsError(f"{target} is not there and {why}; {advice or copy}")
    with locked(target, listener.note):
        remove_left_overs([_Record.path(target)])
        if found := _at_hand(order, ()):  # another process was faster
            return found
        with listener.transfer(label or target.name) as told:
            instead = advice or f"or put the file at {target} yourself"
            return _from_any(replace(order, told=told, contact=_Contact()), sources, instead)


def verify(path: Path, size: int | None = None, sha256: str | None = None) -> str:
    """Returns the sha256 of a file, read through and compared.

    size: in bytes. sha256: what it must be; None: what was recorded at the download. Raises WeightsError if it is
    another, InputError if the file cannot be read.
    """
    _check_size(path, _stat(path).st_size, size)
    digest = sha256_file(path)
    _check_digest(path, digest, sha256.lower() if sha256 else None, _Record.read(path))
    return digest


def is_offline() -> bool:
    """Returns whether HF_HUB_OFFLINE forbids downloads."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def in_hub_cache(source: Source) -> Path | None:
    """Returns the file in the Hub's cache, unread; None if it is not there."""
    if not isinstance(source, Hub):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repo, source.file, revision=source.revision, repo_type=source.kind)
    return Path(found) if isinstance(found, str) else None


def downloaded_sha256(path: Path) -> str:
    """Returns the sha256 recorded when the file was downloaded, whether it is still there or not; '' if none was."""
    record = _Record.read(path)
    return record.sha256 if record else ""


@dataclass(frozen=True, kw_only=True)
class _Order:
    """What to get, and whom to tell."""

    target: Path
    size: int | None
    sha256: str | None
    told: Told
    note: Note
    patience: Patience
    form: Format | None
    contact: _Contact


@dataclass(kw_only=True)
class _Contact:
    """Whether any host has answered yet, and since when (seconds) that is hoped for."""

    is_made: bool = False
    since: float = field(default_factory=time.monotonic)


# What is there already
@dataclass(frozen=True, kw_only=True)
class _Record:
    """What is known of a file in the cache, beside it. size and mtime_ns tell whether it is still that file."""

    sha256: Sha256
    source: str
    size: int
    mtime_ns: int

    @staticmethod
    def path(target: Path) -> Path:
        return target.with_name(f"{target.name}.json")

    @classmethod
    def read(cls, target: Path) -> _Record | None:
        """Returns the record, or None if there is none that can be read."""
        try:
            return as_record(parse_json(read_bytes(cls.path(target))), cls)
        except (OSError, RecordError):
            return None

    @classmethod
    def write(cls, target: Path, digest: str, source: str, stat: os.stat_result) -> None:
        """Raises OutputError."""
        _write_json(cls.path(target), cls(sha256=digest, source=source, size=stat.st_size, mtime_ns=stat.st_mtime_ns))


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc


def _check_size(path: Path, found: int, size: int | None) -> None:
    if size not in (None, found):
        raise WeightsError(f"{path} has {found} bytes, {size} are due; delete it and run again")


def _check_digest(path: Path, digest: str, sha256: str | None, record: _Record | None) -> None:
    if sha256 not in (None, digest):
        raise WeightsError(f"{path}: the file's sha256 is {digest}, {sha256} is due; delete it and run again")
    if sha256 is None and record is not None and record.sha256 != digest:
        raise WeightsError(
            f"{path}: the file's sha256 is {digest}, it was {record.sha256} when it was first downloaded; delete it "
            f"and run again, or delete {_Record.path(path)} if the new file is right"
        )


def _at_hand(order: _Order, sources: Sequence[Source]) -> Fetched | None:
    """Returns the file in our cache or in the Hub's, checked, without network."""
    try:
        present = order.target.exists()
    except OSError as exc:
        raise InputError(f"cannot read {order.target}: {exc.strerror}") from exc
    if present:
        return _checked_target(order)
    return next(filter(None, (_in_hub_cache(order, source) for source in sources if isinstance(source, Hub))), None)


def _checked_target(order: _Order) -> Fetched:
    """Reads the file through only if it is not the one, by size and time, whose hash was recorded."""
    target, stat, record = order.target, _stat(order.target), _Record.read(order.target)
    _check_size(target, stat.st_size, order.size)
    known = record is not None and (record.size, record.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    digest = record.sha256 if record and known else sha256_file(target)
    _check_digest(target, digest, order.sha256, record)
    source = record.source if record and record.sha256 == digest else ""
    if not known:
        with contextlib.suppress(OutputError):  # a cache that cannot be written is as good to read
            _Record.write(target, digest, source, stat)
    return Fetched(path=target, sha256=digest, source=source, downloaded=False)


def _in_hub_cache(order: _Order, source: Hub) -> Fetched | None:
    """Returns a file that any tool left in the Hub's cache; there a large one is a link to one named by its sha256."""
    path = in_hub_cache(source)
    if path is None:
        return None
    record = _Record.read(order.target)
    published = path.readlink().name if path.is_symlink() else ""  # one step: a blob may be a link to a shared store
    published = published if _SHA256.fullmatch(published) else ""
    due = order.sha256 or (record.sha256 if record else None) or published or None
    try:
        _check_size(path, _stat(path).st_size, order.size)
        digest = sha256_file(path)
        _check_digest(path, digest, due, None)
    except (InputError, WeightsError) as exc:
        order.note(f"the Hub's cache is passed over: {exc}")
        return None
    return Fetched(path=path, sha256=digest, source=str(source), downloaded=False)


# Downloading
@contextlib.contextmanager
def locked(target: Path, note: Note) -> Iterator[None]:
    """Lets one process at a time make `target`; its folder is made. The system frees the lock of a process that dies.

    Raises OutputError.
    """
    from filelock import FileLock, Timeout

    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f"{target.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            note(f"another process downloads {target.name}; waiting for it")
            lock.acquire()
    except OSError as exc:
        raise _unwritable(folder, exc) from exc
    try:
        yield
    finally:
        lock.release()


def _write_json(path: Path, row: _Record | _Answer) -> None:
    try:
        atomic_write(path, json.dumps(asdict(row)).encode(), overwrite=True)
    except OutputError as exc:
        if isinstance(exc.__cause__, OSError):
            raise _unwritable(path.parent, exc.__cause__) from exc
        raise


def _unwritable(folder: Path, exc: OSError) -> OutputError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"no room on the disk for {folder}; free some and run again, the download goes on where it stopped"
        )
    in_the_way = isinstance(exc, (FileExistsError, NotADirectoryError))
    reason = "it, or what it lies in, is not a folder" if in_the_way else exc.strerror or exc
    return OutputError(f"cannot write to the cache {folder}: {reason}; name another folder with DMPS_CACHE")


def _from_any(order: _Order, sources: Sequence[Source], instead: str) -> Fetched:
    """Downloads from the first source that works. instead: what a user can do if none does. Raises WeightsError."""
    reasons = []
    for source in sources:
        try:
            return _from_source(order, source)
        except WeightsError as exc:
            reasons.append(f"{source}: {exc}")
            if source is not sources[-1]:
                order.note(f"{source}: {exc}; trying {sources[len(reasons)]}")
    reason = "; ".join(reasons) or "no source is known"
    raise WeightsError(f"cannot download {order.target.name}: {reason}; {instead}")


def _from_source(order: _Order, source: Source) -> Fetched:
    """Downloads, checks, and gives the file its name. Raises WeightsError if the source does not have it."""
    part = _Part.of(order.target, source)
    if order.size is not None:
        _check_room(order.target, order.size - part.state()[0])
    resumed = part.state()[0] > 0
    answer = _whole(order, source, part)
    if resumed and not _is_due(order, answer, sha256_file(part.path)):
        order.note(f"{source}: what an earlier run had begun does not fit; downloading from the start")
        part.drop()
        answer = _whole(order, source, part)
    _check_form(order, part)
    digest = sha256_file(part.path)
    if not _is_due(order, answer, digest):
        part.drop()
        _raise_not_due(order, answer, digest)
    return _published(order, source, part, digest)


def _check_form(order: _Order, part: _Part) -> None:
    """Raises WeightsError, and forgets the part, if what came cannot be the file by its first bytes."""
    try:
        with part.path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as exc:
        raise InputError(f"cannot read {part.path}: {exc.strerror}") from exc
    fault = "an empty file came" if not head and order.size is None else ""
    fault = fault or ("a web page came, not a file" if is_markup(head) else "")
    if order.form is not None and not order.form.fits(head):
        fault = fault or f"what came is not {order.form.name}"
    if fault:
        part.drop()
        raise WeightsError(fault)


def _due(order: _Order, answer: _Answer) -> tuple[str | None, str]:
    """Returns (the sha256 that the file must have, whose word that is)."""
    record = _Record.read(order.target)
    if order.sha256:
        return order.sha256, "is due"
    if record:
        return record.sha256, f"was first downloaded (delete {_Record.path(order.target)} if the new file is right)"
    return answer.sha256, "is what the Hub publishes"


def _is_due(order: _Order, answer: _Answer, digest: str) -> bool:
    return _due(order, answer)[0] in (None, digest)


def _raise_not_due(order: _Order, answer: _Answer, digest: str) -> NoReturn:
    expected, whose = _due(order, answer)
    raise WeightsError(f"its sha256 is {digest}, {expected} {whose}; nothing was replaced, try again later")


def _published(order: _Order, source: Source, part: _Part, digest: str) -> Fetched:
    """Records the hash, gives the file its name, and clears what other sources had begun.

    In this order: whoever sees the file sees its record. A name changes neither size nor time.
    """
    _Record.write(order.target, digest, str(source), _stat(part.path))
    try:
        part.path.replace(order.target)
    except OSError as exc:
        raise _unwritable(order.target.parent, exc) from exc
    for leftover in order.target.parent.glob(f"{glob.escape(order.target.name)}.{'?' * 8}.part*"):
        leftover.unlink(missing_ok=True)
    return Fetched(path=order.target, sha256=digest, source=str(source), downloaded=True)


def _check_room(target: Path, needed: int) -> None:
    """Raises OutputError if fewer than `needed` bytes are free."""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(target.parent).free
        if needed > free:
            raise OutputError(
                f"no room for {target}: {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free; free some or "
                "name another folder with DMPS_CACHE"
            )


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What a server says of a file. validator: its ETag or Last-Modified, by which it knows the version."""

    total: int | None
    validator: str | None
    sha256: Sha256 | None


@dataclass(frozen=True)
class _Part:
    """A download under way: its bytes, and beside them what the server said of the file that they belong to."""

    path: Path

    @classmethod
    def of(cls, target: Path, source: Source) -> _Part:
        """Returns one for each source: what one has begun, another must not go on with."""
        key = hashlib.sha256(repr(source).encode()).hexdigest()[:8]
        return cls(target.with_name(f"{target.name}.{key}.part"))

    @property
    def _notes(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def state(self) -> tuple[int, _Answer | None]:
        """Returns (bytes that can be gone on with, whose they are); (0, None) if the version is not known."""
        try:
            size, answer = self.path.stat().st_size, as_record(parse_json(read_bytes(self._notes)), _Answer)
        except (OSError, RecordError):
            return 0, None
        fits = answer.validator is not None and (answer.total is None or size <= answer.total)
        return (size, answer) if size and fits else (0, None)

    def drop(self) -> None:
        """Forgets what was begun."""
        self.path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def write(self, chunks: Iterator[bytes], offset: int, answer: _Answer, tell: Told) -> None:
        """Writes from `offset` on, to the disk. Raises OutputError.

        Emptied before the server's word on another version is noted: a crash between must not join the two.
        """
        try:
            if not offset:
                self.path.write_bytes(b"")
                _write_json(self._notes, answer)
            done = offset
            with self.path.open("r+b") as file:
                file.seek(offset)
                for chunk in chunks:
                    file.write(chunk)
                    done += len(chunk)
                    tell(done, answer.total)
                file.flush()
                os.fsync(file.fileno())
        except OSError as exc:
            raise _unwritable(self.path.parent, exc) from exc


class _Interrupted(Exception):  # noqa: N818 - not an error yet
    """Worth another try, after `wait` seconds if the server says so."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _Unreachable(_Interrupted):
    """No connection came about."""


def _whole(order: _Order, source: Source, part: _Part) -> _Answer:
    """Brings the part to its end, try after try; one that got on starts the count again."""
    patience, failures = order.patience, 0
    with _client(order) as client:
        while True:
            before = part.state()[0]
            try:
                return _attempt(order, source, part, client)
            except _Interrupted as exc:
                got_on = part.state()[0] - before >= patience.floor * patience.window
                failures = 1 if got_on else failures + 1
                if failures >= patience.tries:
                    raise WeightsError(f"{exc}; gave up after {failures} tries") from exc
                wait = patience.first_wait * 2 ** (failures - 1) if exc.wait is None else exc.wait
                if isinstance(exc, _Unreachable) and wait >= _hope(order):
                    raise WeightsError(f"{exc}; gave up after {failures} tries") from exc
                order.note(f"{source}: {exc}; trying again in {wait:.0f} s")
                patience.sleep(wait)


def _hope(order: _Order) -> float:
    """Returns the seconds in which a first connection may still come about; no end of them once there has been one."""
    contact = order.contact
    return math.inf if contact.is_made else contact.since + order.patience.unreachable - time.monotonic()


def _client(order: _Order) -> httpx2.Client:
    """Asks for uncompressed answers: sizes and ranges are those of the file. Proxies as the environment says."""
    import httpx2

    patience = order.patience

    def check(request: httpx2.Request) -> None:
        seconds = min(patience.connect, max(1.0, _hope(order)))  # the last try may be shorter, but not in vain
        if not order.contact.is_made and is_silent(str(request.url), seconds):
            raise httpx2.ConnectTimeout("", request=request)

    headers = {"User-Agent": f"dmps-cli/{__version__}", "Accept-Encoding": "identity"}
    timeout = httpx2.Timeout(patience.read, connect=patience.connect)
    return httpx2.Client(headers=headers, timeout=timeout, follow_redirects=True, event_hooks={"request": [check]})


def _attempt(order: _Order, source: Source, part: _Part, client: httpx2.Client) -> _Answer:
    """Makes one request for what is missing. Raises _Interrupted or WeightsError."""
    import httpx2

    offset, begun = part.state()
    if begun and offset == begun.total:
        return begun
    try:
        url, headers = _address(source, client)
        if begun and begun.validator:
            headers |= {"Range": f"bytes={offset}-", "If-Range": begun.validator}
        with client.stream("GET", url, headers=headers) as response:
            order.contact.is_made = True
            if response.status_code == 416:
                part.drop()
            _check_status(response, source, order.patience)
            answer = _answer(response, source)
            _check_answer(order, answer)
            if response.status_code != 206:
                offset = 0
            elif not _goes_on(response, answer, offset, begun):
                part.drop()
                raise _Interrupted("the file has changed since the download began")
            _check_room(order.target, (answer.total or 0) - offset)
            order.told(offset, answer.total)
            chunks = _bounded(_lively(response.iter_raw(), order.patience), offset, _most(order))
            part.write(chunks, offset, answer, order.told)
    except (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError) as exc:
        if "CERTIFICATE_VERIFY_FAILED" in str(exc):
            raise WeightsError(f"the server's certificate is not to be trusted ({exc})") from exc
        is_connected = not isinstance(exc, httpx2.ConnectError | httpx2.ConnectTimeout)
        raise (_Interrupted if is_connected else _Unreachable)(_words(exc, order.patience)) from exc
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as exc:  # the last of a host's name too long to be one
        raise WeightsError(str(exc) or type(exc).__name__) from exc
    got = _stat(part.path).st_size
    if answer.total is not None and got < answer.total:  # a server may send less of a range than was asked for
        raise _Interrupted(f"{got} of {answer.total} bytes came")
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


def _most(order: _Order) -> float:
    """Returns the bytes after which no more are taken; a few too many are counted to the end, and said."""
    if order.size is not None:
        return order.size + _FEW
    return order.form.most if order.form else math.inf


_FEW = 2**20


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

    Raises _Interrupted when they only drip: a time-out for each byte never runs out.
    """
    start, got = time.monotonic(), 0
    for chunk in chunks:
        yield chunk
        got += len(chunk)
        if (elapsed := time.monotonic() - start) >= patience.window:
            if got < patience.floor * elapsed:
                raise _Interrupted(f"only {got} bytes came in {elapsed:.0f} s")
            start, got = time.monotonic(), 0


# Addresses and answers
def _address(source: Source, client: httpx2.Client) -> tuple[str, dict[str, str]]:
    """Returns (URL, headers) of a source."""
    match source:
        case Web(url=url):
            return url, {}
        case Hub():
            return _hub_url(source), _hub_token()
        case HubListing():
            revision = quote(source.revision, safe="")  # as HfApi.dataset_info(files_metadata=True) asks
            return f"{_hub_endpoint()}/api/datasets/{source.repo}/revision/{revision}?blobs=true", _hub_token()
        case Drive():
            return _drive_url(source, client), {}


def _hub_url(source: Hub) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(
        source.repo, source.file, repo_type=source.kind, revision=source.revision, endpoint=_hub_endpoint()
    )


def _hub_endpoint() -> str:
    """Returns HF_ENDPOINT as it is now: the library reads it once, when imported."""
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or constants.ENDPOINT


def _hub_token() -> dict[str, str]:
    """Returns HF_TOKEN or the token of `hf auth login`. httpx2 does not carry it to another host."""
    from huggingface_hub import constants, get_token

    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _drive_url(source: Drive, client: httpx2.Client) -> str:
    """Returns the address behind the page in which Google Drive asks whether a file that it cannot scan is wanted."""
    page = f"https://drive.google.com/file/d/{source.gdrive}/view"
    by_hand = f"download {page} in a browser and give the file with --model PATH"
    try:
        from gdown.download import get_url_from_gdrive_confirmation
        from gdown.exceptions import FileURLRetrievalError
    except ImportError as exc:
        raise WeightsError(f"this needs gdown: pip install gdown; or {by_hand}") from exc
    url = f"{DRIVE}?id={source.gdrive}&export=download"
    with client.stream("GET", url) as response:
        if not _is_page(response):
            return url
        response.read()
        try:
            return str(get_url_from_gdrive_confirmation(response.text))
        except FileURLRetrievalError as exc:
            reason = " ".join(re.sub(r"<[^>]*>", "", str(exc)).split())
            raise WeightsError(f"Google says: {reason.rstrip('.')}; {by_hand}") from exc


def _is_page(response: httpx2.Response) -> bool:
    return response.is_success and "html" in response.headers.get("Content-Type", "").lower()


def _check_status(response: httpx2.Response, source: Source, patience: Patience) -> None:
    """Raises _Interrupted if a later try may succeed, WeightsError if not."""
    status = response.status_code
    if status == 416:
        raise _Interrupted("the server has no such range")
    if status in _BUSY:
        wait = _retry_after(response.headers.get("Retry-After", ""))
        if wait is not None and wait > patience.longest_wait:
            raise WeightsError(f"HTTP {status}, and the server asks to come back in {wait:.0f} s")
        raise _Interrupted(f"HTTP {status}", wait)
    if status not in (200, 206):
        raise WeightsError(f"HTTP {status}{_explained(response, source)}")
    way = [each.url for each in (*response.history, response)]
    near = (way[0].host, *_THIS_MACHINE) if way[0].scheme == "http" else ()
    if bare := [url.host for url in way if url.scheme != "https" and url.host not in near]:
        raise WeightsError(f"it leads to {bare[0]} without encryption")
    if _is_page(response):
        raise WeightsError("a web page came, not a file")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise WeightsError(f"the server packed the file ({response.headers['Content-Encoding']}) though told not to")


def _explained(response: httpx2.Response, source: Source) -> str:
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


def _answer(response: httpx2.Response, source: Source) -> _Answer:
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
    return _Answer(
        total=_count(total),
        validator=validator,
        sha256=published if published and _SHA256.fullmatch(published) else None,
    )


def _check_answer(order: _Order, answer: _Answer) -> None:
    """Raises WeightsError before the download if what the server announces is not the file due."""
    if order.size is not None and answer.total not in (None, order.size):
        raise WeightsError(f"the file has {answer.total} bytes there, {order.size} are due")
    if (answer.total or 0) > (most := _most(order)):
        raise WeightsError(f"the file has {answer.total} bytes there, more than the {most:.0f} that are plausible")
    if answer.sha256 and not _is_due(order, answer, answer.sha256):
        _raise_not_due(order, answer, answer.sha256)


def _goes_on(response: httpx2.Response, answer: _Answer, offset: int, begun: _Answer | None) -> bool:
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
