"""Spoiled trials as small files, to be run again: what differs from the reader's sound inputs, and the command line."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import zlib
from pathlib import Path
from typing import Any

from tests.fuzz.mutations import make_socket
from tests.fuzz.trials import Command, Laboratory, Reader, Trial

FOLDER = Path(__file__).parent / "findings"
_PORT = b"@PORT@"


def recorded(laboratory: Laboratory, reader: Reader, trial: Trial, faults: list[str], origin: str) -> dict[str, Any]:
    """A trial, not yet run, as a tree of JSON. origin: seed and number by which it was made."""
    template = laboratory.template(reader)
    names = {path.relative_to(root) for root in (template, trial.folder) for path in root.rglob("*")}
    files = {}
    for name in sorted(names):
        one, other = _about(template / name), _about(trial.folder / name)
        if one != other:
            files[str(name)] = other
    return {
        "reader": reader.name,
        "found": faults,
        "origin": origin,
        "arguments": trial.arguments,
        "keeps": list(trial.keeps),
        "may_write_anywhere": trial.may_write_anywhere,
        "environment": {
            name: _portless(value.encode(errors="surrogateescape")).decode(errors="surrogateescape")
            for name, value in trial.environment.items()
        },
        "stdin": _packed(trial.stdin),
        "files": files,
    }


def restored(laboratory: Laboratory, reader: Reader, finding: dict[str, Any]) -> Trial:
    """The trial of a recorded one, in the sandbox."""
    trial = laboratory.trial(reader, Command(""))
    for name, about in finding["files"].items():
        _put(trial.folder / name, about)
    trial.arguments, trial.keeps = finding["arguments"], tuple(finding["keeps"])
    trial.environment = {
        name: _ported(value.encode(errors="surrogateescape")).decode(errors="surrogateescape")
        for name, value in finding["environment"].items()
    }
    trial.stdin, trial.may_write_anywhere = _unpacked(finding["stdin"]), finding["may_write_anywhere"]
    return trial


def write(finding: dict[str, Any], folder: Path) -> Path:
    """Under a name of reader and fault."""
    name = f"{finding['reader']} {finding['found'][0]}".replace("/", ".")
    stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:90]
    path = next(p for k in range(1000) if not (p := folder / f"{stem}{f'-{k}' if k else ''}.json").exists())
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(finding, indent=1) + "\n")
    return path


def _about(path: Path) -> dict[str, Any]:
    """What a path is, for JSON."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return {"gone": True}
    if stat.S_ISLNK(mode):
        return {"link": str(path.readlink())}
    if stat.S_ISREG(mode):
        return {"file": _packed(path.read_bytes())}
    kinds = {"folder": stat.S_ISDIR, "pipe": stat.S_ISFIFO, "socket": stat.S_ISSOCK}
    return {name: True for name, is_it in kinds.items() if is_it(mode)}


def _put(path: Path, about: dict[str, Any]) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if "link" in about:
        path.symlink_to(about["link"])
    elif "file" in about:
        path.write_bytes(_unpacked(about["file"]))
    elif "folder" in about:
        path.mkdir()
    elif "pipe" in about:
        os.mkfifo(path)
    elif "socket" in about:
        make_socket(path)


def _packed(data: bytes) -> str:
    """Text as text where it is short, else compressed."""
    data = _portless(data)
    try:
        text = data.decode()
        if len(text) < 3000 and not text.startswith("base64:") and "\r" not in text:
            return text
    except UnicodeDecodeError:
        pass
    return "base64:" + base64.b64encode(zlib.compress(data, 9)).decode()


def _unpacked(text: str) -> bytes:
    data = zlib.decompress(base64.b64decode(text[7:])) if text.startswith("base64:") else text.encode()
    return _ported(data)


def _portless(data: bytes) -> bytes:
    return data.replace(b":" + os.environ["FUZZ_PORT"].encode(), b":" + _PORT)


def _ported(data: bytes) -> bytes:
    return data.replace(_PORT, os.environ["FUZZ_PORT"].encode())
