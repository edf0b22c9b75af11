"""Checkpoint files: what is read out of them, and what is refused."""

from __future__ import annotations

import argparse
import collections
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
from dmps_cli.weights.pickles import Skipped
from dmps_cli.weights.reading import read_content
from tests.conftest import GOLDEN, golden_json

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


class Payload:
    """What unpickling would run."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class Arguments(argparse.Namespace):
    """No Namespace: a class of somebody's own."""


def object_array(content: object) -> np.ndarray:
    array = np.empty(1, dtype=object)
    array[0] = content
    return array


HIDDEN: dict[str, Callable[[object], object]] = {
    "beside the weights": lambda payload: {"model": A, "extra": payload},
    "in a list": lambda payload: [A, {}, [1, (2, [payload])]],
    "a key": lambda payload: {"model": A, payload: 1},
    "in a Namespace": lambda payload: {"model": A, "args": argparse.Namespace(lr=1, hook=payload)},
    "a subclass of Namespace": lambda payload: {"model": A, "args": Arguments(hook=payload)},
    "in an array of objects": lambda payload: {"model": A, "losses": object_array(payload)},
    "in a default": lambda payload: {"model": A, "log": collections.defaultdict(int, {"x": payload})},
    "in an attribute of a mapping": lambda payload: {"model": attributed(payload)},
}


def attributed(payload: object) -> collections.OrderedDict[str, Tensor]:
    state = collections.OrderedDict(A)
    state._metadata = payload  # type: ignore[attr-defined]
    return state


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("hide", HIDDEN.values(), ids=HIDDEN)
@pytest.mark.parametrize(
    ("function", "named"), [(os.mkdir, r"posix\.mkdir"), (exec, "exec"), (os.system, r"posix\.sys")]
)
def test_a_file_that_would_run_something_is_refused_unrun(
    tmp_path: Path, hide: Callable[[object], object], function: Callable[..., object], named: str, legacy: bool
) -> None:
    mark = tmp_path / "mark"
    argument = {os.mkdir: str(mark), os.system: f"mkdir {mark}"}.get(function, f"import os; os.mkdir({str(mark)!r})")
    path = saved(tmp_path, hide(Payload(function, argument)), _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=f"asks for ({named}|tests.weights.test_reading.Arguments)") as caught:
        read_content(path)
    assert "\n" not in str(caught.value)
    assert "save the weights alone: torch.save(model.state_dict(), 'weights.pt')" in str(caught.value)
    assert not mark.exists()
    torch.load(path, weights_only=False)  # the payload is live: elsewhere it runs
    assert mark.exists()


def test_what_is_data_alone_is_skipped_unbuilt(tmp_path: Path) -> None:
    """Of a Namespace, an array and a path nothing is made: in their places stand objects without content."""
    content = {"args": argparse.Namespace(lr=1), "losses": np.ones(3), "root": Path("x"), "log": object_array([1])}
    read: Any = read_content(saved(tmp_path, {**content, "model": A}))
    assert {type(read[name]) for name in content} == {Skipped}
    assert not any(vars(read[name]) for name in content)


def test_a_mapping_of_a_default_is_a_mapping(tmp_path: Path) -> None:
    assert read_content(saved(tmp_path, {"log": collections.defaultdict(list, x=1)})) == {"log": {"x": 1}}


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


def program(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name in ("data.pkl", "code/__torch__.py", "constants.pkl", "version"):
            file.writestr(f"archive/{name}", "3")


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
        pytest.param(lambda path: os.mkfifo(path), "it is a named pipe", marks=pytest.mark.posix),  # noqa: PLW0108
        (program, r"is a program \(TorchScript\), not weights; save the weights alone"),
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "it is a folder"),
    ],
)
def test_other_files_are_named_in_one_line(tmp_path: Path, make: Callable[[Path], object], complaint: str) -> None:
    path = tmp_path / "model.pt"
    make(path)
    with pytest.raises(WeightsError, match=complaint) as caught:
        read_content(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
