"""On a system without `resource`, `fcntl` and some signals every module can be imported, and commands work."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from dmps_cli.files.atomic import try_lock
from tests.shell import photo

LACKING = """
import os, signal, sys, warnings
warnings.filterwarnings("ignore", "only soft file lock")  # filelock, of a Unix without fcntl
for name in ("resource", "fcntl", "termios", "pwd", "grp"):
    sys.modules[name] = None  # importing it is an ImportError
for holder, prefixes in ((signal, ("SIGHUP", "SIGKILL", "SIGUSR", "SIGALRM")), (os, ("O_NOFOLLOW", "O_NONBLOCK"))):
    for name in [name for name in vars(holder) if name.startswith(prefixes)]:
        delattr(holder, name)
"""
ALL_MODULES = """
import importlib, pkgutil, dmps_cli
names = [module.name for module in pkgutil.walk_packages(dmps_cli.__path__, "dmps_cli.")]
for name in names:
    if name != "dmps_cli.__main__":
        importlib.import_module(name)
print(len(names), "resource" in sys.modules and sys.modules["resource"] is not None)
"""
COMMANDS = """
from dmps_cli.cli.main import app
for command in [
    ["--help"],
    ["degrade", "a.png", "--task", "denoise", "--quiet", "-o", "y.png"],
    ["restore", "y.png", "-o", "x.png", "--nfe", "1", "--quiet"],
]:
    try:
        app(command)
    except SystemExit as exc:
        assert not exc.code, command
"""


def run(code: str, folder: Path) -> str:
    arguments = [sys.executable, "-W", "error", "-c", LACKING + code]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_every_module_is_imported_without_what_one_system_has(tmp_path: Path) -> None:
    count, has_resource = run(ALL_MODULES, tmp_path).split()
    assert int(count) > 100
    assert has_resource == "False"


def test_commands_work_without_what_one_system_has(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", (16, 16))
    assert "Usage" in run(COMMANDS, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "y.png", "y.npy", "y.json", "x.png", "x.json"}


def test_files_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> bool:
        raise OSError(errno.ENOSYS, "fcntl is unavailable")

    monkeypatch.setattr("filelock.lock_descriptor", missing)
    with (tmp_path / "a").open("wb") as file:
        assert try_lock(file) is None
