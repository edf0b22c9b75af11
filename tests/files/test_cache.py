"""Where the cache is."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmps_cli.files.cache import cache_dir


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DMPS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert cache_dir() == tmp_path / "home/.cache/dmps"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert cache_dir() == tmp_path / "home/.cache/dmps"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/dmps")
    monkeypatch.setenv("DMPS_CACHE", "~/here")
    assert cache_dir() == tmp_path / "home/here"
    monkeypatch.setenv("DMPS_CACHE", "here")
    assert cache_dir() == tmp_path / "here"
    assert not (tmp_path / "here").exists()
