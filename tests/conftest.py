"""Shared by all tests: golden files, float64 helpers; `--device cuda` runs those of tensors on a GPU."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dmps_cli.cli.main import app
from dmps_cli.operators.base import LinearOperator
from tests.shell import Dmps, Result

torch.set_num_threads(1)  # the tests' tensors are small, and other work on the machine would slow threads most

GOLDEN = Path(__file__).parent / "golden"

_DEVICE = "DMPS_TEST_DEVICE"


IS_POSIX = os.name == "posix"
collect_ignore = [] if IS_POSIX else ["test_fuzz.py", "training/test_processes.py"]  # by fork


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where operators, methods, samplers and networks are tested")
    parser.addoption("--record", action="store_true", help="record what the commands give (tests/cli/test_recorded.py)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "posix: of named pipes, links, signals or a shell; left out elsewhere")
    os.environ[_DEVICE] = config.getoption("--device")
    if where().type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # as the commands have it


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept = [item for item in items if IS_POSIX or item.get_closest_marker("posix") is None]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def where() -> torch.device:
    """The device that is tested."""
    return torch.device(os.environ[_DEVICE])


def same(a: Tensor, b: Tensor) -> bool:
    """Whether they are the same bits; elsewhere than on a CPU, which alone promises that, the same but for rounding."""
    return torch.equal(a, b) if where().type == "cpu" else rel(a, b) <= 1e-6


def golden(name: str) -> dict[str, Tensor]:
    """Tensors of tests/golden/NAME.safetensors."""
    return {key: value.to(where()) for key, value in load_file(GOLDEN / f"{name}.safetensors").items()}


def golden_json(name: str) -> Any:
    """What tests/golden/NAME.json holds."""
    return json.loads((GOLDEN / f"{name}.json").read_text())


def rel(a: Tensor, b: Tensor) -> float:
    """max |a - b| / max |b|, the error measure of the golden data."""
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).abs().max() / b.abs().max())


def randn(*shape: int, seed: int = 0) -> Tensor:
    """Normal draws in float64, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu").to(where())


class Iterated(LinearOperator):
    """An operator that says A and At alone."""

    def __init__(self, inner: LinearOperator) -> None:
        super().__init__(inner.in_shape, inner.out_shape, inner.dtype, inner.device)
        self.inner = inner

    def A(self, x: Tensor) -> Tensor:
        return self.inner.A(x)

    def At(self, y: Tensor) -> Tensor:
        return self.inner.At(y)


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    """As the commands run: a method that needs gradients enables them itself."""
    with torch.no_grad():
        yield


@pytest.fixture(autouse=True)
def _on_the_device(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a test makes without saying where lies on the device, and NumPy sees what lies there."""
    if where() == torch.device("cpu"):
        yield
        return
    from_numpy, numpy = torch.from_numpy, Tensor.numpy
    monkeypatch.setattr(torch, "from_numpy", lambda array: from_numpy(array).to(where()))
    monkeypatch.setattr(Tensor, "numpy", lambda tensor, **options: numpy(tensor.cpu(), **options))
    with where():
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
