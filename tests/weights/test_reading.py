"""Checkpoint files: what is read out of them, and what is refused."""

from __future__ import annotations

import argparse
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dmps_cli.errors import WeightsError
from dmps_cli.weights.building import trainable_names
from dmps_cli.weights.reading import read_checkpoint
from tests.conftest import GOLDEN, golden_json
from tests.rule import rule_tensor

TRAINING_STATE = GOLDEN / "nets" / "ncsnpp_ckpt_1.pth"
FLOW: dict[str, Any] = golden_json("nets/ncsnpp_ckpt_1")["config"]


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def saved(folder: Path, content: object, **options: Any) -> Path:
    path = folder / "file.pt"
    torch.save(content, path, **options)
    return path


A, B = {"w": torch.zeros(2, 3)}, {"w": torch.ones(2, 3)}


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


# Reading


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (A, A),
        (prefixed("module.", A), A),
        (prefixed("_orig_mod.module.", A), A),
        ({"module.w": A["w"], "v": B["w"]}, {"module.w": A["w"], "v": B["w"]}),  # not all: part of the names
        ({"state_dict": A, "epoch": 3}, A),
        ({"model": A, "optimizer": {"state": {}}}, A),
        ({"model": prefixed("module.", A), "ema": B}, B),
        ({"state_dict": A, "ema_state_dict": prefixed("module.", B)}, B),
        ({"model": {"state_dict": A}}, A),
        ({"ema": {"state_dict": B}, "model": A}, B),
        ({"model": {**A, "mean": torch.ones(1)}, "ema": B}, {**B, "mean": torch.ones(1)}),
        ({"model": A, "ema": 0.999}, A),
        ({"model": A, "ema": None}, A),
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_the_averaged_weights_come_first(tmp_path: Path, content: object, expected: Any, legacy: bool) -> None:
    assert same(read_checkpoint(saved(tmp_path, content, _use_new_zipfile_serialization=not legacy)), expected)


def test_safetensors_are_read_as_they_are(tmp_path: Path) -> None:
    save_file({"module.w": A["w"].half()}, tmp_path / "any.bin")
    assert same(read_checkpoint(tmp_path / "any.bin"), {"module.w": A["w"].half()})


def test_training_state_gives_the_averages_and_the_models_untrained_rest() -> None:
    """The file's averages follow the rule on the names, the model's own tensors the rule on `module.` + name."""
    state = read_checkpoint(TRAINING_STATE, lambda: trainable_names("ncsnpp", FLOW, "golden"))
    for name, shape in golden_json("nets/ncsnpp_ckpt_1")["state_dict"].items():
        if name != "sigmas":
            key = f"module.{name}" if name == "all_modules.0.W" else name
            assert torch.equal(state[name], rule_tensor(key, tuple(shape))), name


def test_training_state_needs_the_right_architecture(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="158 averaged tensors for 0 trainable parameters"):
        read_checkpoint(TRAINING_STATE)
    model = {"module.W": torch.ones(2), "module.w": torch.zeros(2, 3), "module.b": torch.zeros(3)}
    state = {"model": model, "ema": {"shadow_params": [torch.ones(2, 3), torch.ones(4)]}}
    with pytest.raises(WeightsError, match=r"the averaged b is \(4,\), the model's \(3,\)"):
        read_checkpoint(saved(tmp_path, state), lambda: ["w", "b"])


def test_a_learning_rate_of_numpy_is_no_obstacle(tmp_path: Path) -> None:
    rate = np.minimum(2e-4, 1.0)
    assert isinstance(rate, np.float64)
    assert same(read_checkpoint(saved(tmp_path, {"model": A, "optimizer": {"lr": rate}})), A)


class Payload:
    """What unpickling would run."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("function", "named"), [(os.mkdir, r"posix\.mkdir"), (exec, "exec"), (argparse.Namespace, "argparse")]
)
def test_a_file_that_would_run_something_is_refused_unrun(
    tmp_path: Path, function: Callable[..., object], named: str, legacy: bool
) -> None:
    mark = tmp_path / "mark"
    argument = {os.mkdir: (str(mark),), exec: (f"import os; os.mkdir({str(mark)!r})",)}.get(function, ())
    content = {"model": A, "extra": Payload(function, *argument)}
    path = saved(tmp_path, content, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=f"asks for {named}") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not mark.exists()
    if argument:
        torch.load(path, weights_only=False)  # the payload is live: elsewhere it runs
        assert mark.exists()


def circular(path: Path) -> None:
    content: dict[str, object] = {}
    content["model"] = content
    torch.save(content, path)


def damaged_pickle(path: Path) -> None:
    """A zip archive in order, whose pickle is not."""
    saved(path.parent, A).rename(path.with_name("whole.pt"))
    with zipfile.ZipFile(path.with_name("whole.pt")) as whole, zipfile.ZipFile(path, "w") as out:
        for name in whole.namelist():
            out.writestr(name, b"\x80\x02R." if name.endswith("data.pkl") else whole.read(name))


def cut(path: Path) -> None:
    saved(path.parent, {"w": torch.zeros(1000)}).rename(path)
    os.truncate(path, 2000)


def cut_legacy(path: Path) -> None:
    saved(path.parent, A, _use_new_zipfile_serialization=False).rename(path)
    os.truncate(path, 100)


def cut_safetensors(path: Path) -> None:
    save_file(A, path)
    os.truncate(path, path.stat().st_size - 1)


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data/0", bytes(50_000_000))


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "nothing")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("\n <!DOCTYPE html><html>Quota exceeded</html>"), "is a web page"),
        (lambda path: path.write_bytes(bytes(range(200))), "is not a checkpoint"),
        (cut, "its end is missing"),
        (cut_legacy, "is damaged"),
        (cut_safetensors, "is damaged"),
        (other_zip, "not a checkpoint of torch.save"),
        (damaged_pickle, "is damaged"),
        (bomb, "unpacks to 50000000; weights are not compressed"),
        (os.mkfifo, "it is a named pipe"),
        (circular, "no weights found in it, only 'model'"),
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "it is a folder"),
        (lambda path: torch.save({"step": 3, "lr": 0.1}, path), "no weights found in it, only 'step', 'lr'"),
        (lambda path: torch.save({}, path), "no weights found in it, only nothing"),
        (lambda path: torch.save(torch.ones(3), path), "no weights found in it, only Tensor"),
    ],
)
def test_other_files_are_named_in_one_line(tmp_path: Path, make: Callable[[Path], object], complaint: str) -> None:
    path = tmp_path / "model.pt"
    make(path)
    with pytest.raises(WeightsError, match=complaint) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
