"""Where a file lies: on the Hub, under a URL, on Google Drive."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar
from urllib.parse import urlsplit

from dmps_cli.errors import InputError
from dmps_cli.files.records import is_relative

THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


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
    is_encrypted = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in THIS_MACHINE)
    return is_whole and is_encrypted and "@" not in parts.netloc
