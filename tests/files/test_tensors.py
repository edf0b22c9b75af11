"""Safetensors files as they are written here, read by the library."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from dmps_cli.errors import WeightsError
from dmps_cli.files.tensors import load_plain, write_safetensors
from tests.conftest import randn


def test_every_type_and_shape_is_kept(tmp_path: Path) -> None:
    types = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8)
    state = {str(dtype): (10 * randn(3, 2)).to(dtype) for dtype in types}
    state |= {"flag": torch.tensor([True, False, True]), "scalar": torch.tensor(2.5), "none": torch.zeros(0, 4)}
    state |= {"turned": randn(3, 5).T, "part": randn(4, 4)[1:, ::2], "tied": state["torch.float32"]}
    write_safetensors(tmp_path / "out", state, {"said": "\u00e9 \udcff"}, where="here")
    loaded = load_file(tmp_path / "out")
    assert loaded.keys() == state.keys()
    assert all(loaded[name].dtype == value.dtype and torch.equal(loaded[name], value) for name, value in state.items())
    with safe_open(tmp_path / "out", "pt") as file:
        assert file.metadata() == {"said": "\u00e9 ?"}


def test_equal_content_is_equal_bytes_with_the_rights_of_any_file(tmp_path: Path) -> None:
    """The library's writer orders what a file says of itself at random, and lets nobody else read the file."""
    metadata = {f"key{k}": str(k) for k in range(20)}
    for name in "ab":
        write_safetensors(tmp_path / name, {"w": randn(3)}, metadata, where="here")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    (tmp_path / "c").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "c").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]
    assert load_plain(tmp_path / "a")[1] == metadata


def test_what_is_no_plain_number_is_refused(tmp_path: Path) -> None:
    for value in (torch.zeros(2, dtype=torch.complex64), torch.zeros(2).to_sparse()):
        with pytest.raises(WeightsError, match=r"here: w is torch\..*; weights are plain numbers"):
            write_safetensors(tmp_path / "out", {"w": value}, {}, where="here")
    assert not (tmp_path / "out").exists()
