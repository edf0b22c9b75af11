"""Shared by all tests: golden files, float64 helpers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dmps_cli.cli.main import app
from tests.shell import Dmps, Result

torch.set_num_threads(1)  # the tests' tensors are small, and other work on the machine would slow threads most

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, Tensor]:
    """Tensors of tests/golden/NAME.safetensors."""
    return load_file(GOLDEN / f"{name}.safetensors")


def golden_json(name: str) -> Any:
    """What tests/golden/NAME.json holds."""
    return json.loads((GOLDEN / f"{name}.json").read_text())


def rel(a: Tensor, b: Tensor) -> float:
    """max |a - b| / max |b|, the error measure of the golden data."""
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).abs().max() / b.abs().max())


def randn(*shape: int, seed: int = 0) -> Tensor:
    """Normal draws in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    """As the commands run: a method that needs gradients enables them itself."""
    with torch.no_grad():
        yield


@pytest.fixture
def dmps(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Dmps:
    """Runs a command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str | Path) -> Result:
        capsys.readouterr()
        code = 0
        try:
            app([str(argument) for argument in arguments])
        except SystemExit as exc:
            code = int(exc.code or 0)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run
