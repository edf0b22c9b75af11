"""Checkpoint files: what is read out of them, what is refused, and the mapped copies."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import dmps_cli
from dmps_cli.errors import OutputError, WeightsError
from dmps_cli.files.atomic import sha256_file
from dmps_cli.levels import flow_levels
from dmps_cli.nets.ncsnpp import NCSNpp
from dmps_cli.priors import DDPMPrior, DenoiserPrior, FlowPrior
from dmps_cli.weights.building import build_prior, trainable_names
from dmps_cli.weights.conversion import convert, load_converted, load_weights
from dmps_cli.weights.reading import read_checkpoint
from tests.conftest import GOLDEN, golden, golden_json, randn, rel
from tests.rule import rule_tensor

TRAINING_STATE = GOLDEN / "nets" / "ncsnpp_ckpt_1.pth"
FLOW: dict[str, Any] = golden_json("nets/ncsnpp_ckpt_1")["config"]
ADM: dict[str, Any] = golden_json("nets/adm_1")


def adm_state() -> dict[str, Tensor]:
    return {key: rule_tensor(key, tuple(shape)) for key, shape in ADM["state_dict"].items()}


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
    state = read_checkpoint(TRAINING_STATE, trainable_names("ncsnpp", FLOW, "golden"))
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
        read_checkpoint(saved(tmp_path, state), ["w", "b"])


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


# Converting


def conversion(folder: Path) -> tuple[Path, Path, str]:
    """(source, target, the source's sha256) of a converted training state."""
    source = shutil.copy(TRAINING_STATE, folder / "published.pth")
    target = folder / "cache" / "flow.safetensors"
    convert(source, target, architecture="ncsnpp", config=FLOW)
    return source, target, sha256_file(source)


def test_conversion_holds_the_averages_and_says_of_what(tmp_path: Path) -> None:
    source, target, sha256 = conversion(tmp_path)
    expected = read_checkpoint(source, trainable_names("ncsnpp", FLOW, "golden"))
    del expected["sigmas"]  # float64, never read, and no such type on every device
    assert same(load_file(target), expected)
    assert same(load_converted(target, architecture="ncsnpp", sha256=sha256).tensors, expected)
    with safe_open(target, "pt") as file:
        assert file.metadata() == {
            "source": "published.pth",
            "source_sha256": sha256,
            "source_size": str(source.stat().st_size),
            "source_mtime_ns": str(source.stat().st_mtime_ns),
            "data_sha256": hashlib.sha256(b"".join(value.numpy().tobytes() for value in expected.values())).hexdigest(),
            "architecture": "ncsnpp",
            "conversion": "1",
            "written_by": f"dmps {dmps_cli.__version__}",
        }
    assert [path.name for path in target.parent.iterdir()] == ["flow.safetensors"]


def test_conversion_keeps_every_type_and_shape(tmp_path: Path) -> None:
    types = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8)
    state = {str(dtype): (10 * randn(3, 2)).to(dtype) for dtype in types}
    state |= {"flag": torch.tensor([True, False, True]), "scalar": torch.tensor(2.5), "none": torch.zeros(0, 4)}
    state |= {"turned": randn(3, 5).T, "part": randn(4, 4)[1:, ::2], "tied": state["torch.float32"]}
    convert(saved(tmp_path, state), tmp_path / "out", architecture="natural", config={})
    assert same(load_file(tmp_path / "out"), state)


def test_conversion_refuses_other_content_than_expected(tmp_path: Path) -> None:
    source = saved(tmp_path, A)
    with pytest.raises(WeightsError, match=f"sha256 is {sha256_file(source)}, not {'0' * 64}; delete it"):
        convert(source, tmp_path / "out", architecture="adm", config=ADM["config"], sha256="0" * 64)
    with pytest.raises(WeightsError, match=r"w is torch\.complex64"):
        convert(
            saved(tmp_path, {"w": torch.zeros(2, dtype=torch.complex64)}), tmp_path / "out",
            architecture="natural", config={},
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def spoil_header(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8:12] = b"\xff\xfe\x00{"
    path.write_bytes(content)


def huge_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**60) + path.read_bytes()[8:])


def other_metadata(name: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        save_file(load_file(path), path, {**metadata, name: "other"})

    return spoil


SPOILERS: dict[str, Callable[[Path], object]] = {
    "absent": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "cut in the header": lambda path: os.truncate(path, 100),
    "header spoilt": spoil_header,
    "header huge": huge_header,
    "a pickle": lambda path: shutil.copy(TRAINING_STATE, path),
    "no metadata": lambda path: save_file(load_file(path), path),
    "of another source": other_metadata("source_sha256"),
    "of another architecture": other_metadata("architecture"),
    "of another version": other_metadata("conversion"),
}


@pytest.mark.parametrize("kind", SPOILERS)
def test_a_stale_or_damaged_conversion_is_made_again(tmp_path: Path, kind: str) -> None:
    source, target, sha256 = conversion(tmp_path)
    whole = target.read_bytes()
    SPOILERS[kind](target)
    with pytest.raises(WeightsError):
        load_converted(target, architecture="ncsnpp", sha256=sha256)
    state = load_weights(source, target, architecture="ncsnpp", config=FLOW, sha256=sha256).tensors
    assert target.read_bytes() == whole
    assert same(state, load_file(target))


def test_a_fitting_conversion_is_left_alone_and_serves_without_its_source(tmp_path: Path) -> None:
    source, target, sha256 = conversion(tmp_path)
    written = target.stat().st_mtime_ns
    load_weights(source, target, architecture="ncsnpp", config=FLOW)
    source.unlink()
    state = load_weights(source, target, architecture="ncsnpp", config=FLOW, sha256=sha256).tensors
    assert same(state, load_file(target))
    assert target.stat().st_mtime_ns == written
    with pytest.raises(WeightsError, match=r"published\.pth does not exist"):
        load_weights(source, target, architecture="ncsnpp", config=FLOW)


def test_a_mapped_conversion_survives_its_replacement(tmp_path: Path) -> None:
    _, target, sha256 = conversion(tmp_path)
    state = load_converted(target, architecture="ncsnpp", sha256=sha256).tensors
    convert(saved(tmp_path, A), target, architecture="natural", config={})
    assert torch.equal(state["all_modules.1.weight"], rule_tensor("all_modules.1.weight", (64, 32)))


def test_weights_are_read_from_the_source_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OutputError("no room")

    monkeypatch.setattr("dmps_cli.files.tensors.atomic_write", refuse)
    state = load_weights(saved(tmp_path, A), tmp_path / "out", architecture="natural", config={}).tensors
    assert same(state, A)


def test_a_safetensors_source_needs_no_conversion(tmp_path: Path) -> None:
    save_file(A, tmp_path / "source")
    assert same(load_weights(tmp_path / "source", tmp_path / "out", architecture="adm", config={}).tensors, A)
    assert not (tmp_path / "out").exists()


def test_processes_that_convert_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    source, target, sha256 = conversion(tmp_path)
    whole = target.read_bytes()
    code = (
        "import json, sys; from pathlib import Path; from dmps_cli.weights.conversion import convert, load_converted\n"
        "source, target, sha256, config = sys.argv[1:]\n"
        "for _ in range(10):\n"
        "    convert(Path(source), Path(target), architecture='ncsnpp', config=json.loads(config))\n"
        "    load_converted(Path(target), architecture='ncsnpp', sha256=sha256)\n"
    )
    arguments = [sys.executable, "-c", code, str(source), str(target), sha256, json.dumps(FLOW)]
    running = [subprocess.Popen(arguments) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert target.read_bytes() == whole
    assert len(list(target.parent.iterdir())) == 1


# Building


def flow_prior(dtype: torch.dtype = torch.float32) -> FlowPrior:
    state = read_checkpoint(TRAINING_STATE, trainable_names("ncsnpp", FLOW, "golden"))
    prior = build_prior("ncsnpp", FLOW, state, where="golden", dtype=dtype)
    assert isinstance(prior, FlowPrior)
    return prior


def test_training_state_end_to_end() -> None:
    """Outputs with the averages, and Euler's steps x += v(x, 999 s_i) / N, s_i = 1e-3 + (1 - 1e-3) i / N."""
    data, prior = golden("nets/ncsnpp_ckpt_1"), flow_prior()
    output = prior.network(data["x"], data["labels"])
    assert max(map(rel, output, data["output_ema"])) <= 1e-5
    assert max(map(rel, output, data["output_model"])) >= 0.1  # what the raw model gives: another network
    for steps in (1, 4):
        x = data["ode_z0"]
        for level in flow_levels(steps)[:-1]:
            x = x + prior.network(x, x.new_full((len(x),), level.time)) / steps
        assert rel(x, data[f"ode_euler_{steps}"]) <= 1e-5


def test_flow_prior_is_the_networks_velocity() -> None:
    prior, x = flow_prior(torch.float64), randn(2, 3, 16, 16)
    cur, nxt = prior.levels("flow", 4)[1:3]
    x0, std = prior.predict(x, cur, nxt)
    assert std is None
    assert rel((x0 - x) / cur.sigma, prior.network(x, torch.full((2,), 999 * cur.alpha, dtype=torch.float64))) <= 1e-12


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_adm_file_end_to_end(tmp_path: Path, dtype: torch.dtype, tolerance: float) -> None:
    data, source, target = golden("nets/adm_1"), saved(tmp_path, {"ema": adm_state()}), tmp_path / "out"
    state = load_weights(source, target, architecture="adm", config=ADM["config"]).tensors
    prior = build_prior("adm", ADM["config"], state, where=str(source), dtype=dtype, clip_denoised=False)
    assert isinstance(prior, DDPMPrior)
    assert (prior.learned_range, prior.clips_x0, prior.channels) == (ADM["config"]["learn_sigma"], False, 3)
    assert rel(prior.network(data["x"], data["t"]), data["output"]) <= tolerance


def test_natural_file_end_to_end() -> None:
    state = read_checkpoint(Path(dmps_cli.__file__).parent / "data" / "natural.safetensors")
    prior, data = build_prior("natural", {}, state, where="bundled"), golden("nets/natural")
    assert isinstance(prior, DenoiserPrior)
    assert float((prior.denoise(data["1.x"], float(data["1.sigma"])) - data["1.x0"]).abs().max()) <= 4e-4


def test_nothing_is_initialised_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    state = adm_state()
    monkeypatch.setattr(torch.nn.Conv2d, "reset_parameters", lambda self: seen.append(self.weight.device.type))
    build_prior("adm", ADM["config"], state, where="x")
    assert set(seen) == {"meta"}


def test_other_weights_are_named() -> None:
    with pytest.raises(WeightsError, match=r"file\.pt: not the weights of this architecture: 144 missing"):
        build_prior("adm", ADM["config"], A, where="file.pt")
    short = {key: value for key, value in adm_state().items() if key != "out.2.bias"}
    with pytest.raises(WeightsError, match=r"1 missing \(out\.2\.bias\)"):
        build_prior("adm", ADM["config"], short, where="file.pt")
    with pytest.raises(WeightsError, match="unknown architecture 'amd'; choose one of adm, natural, ncsnpp"):
        build_prior("amd", {}, A, where="file.pt")


def test_the_published_buffer_may_be_there_or_not() -> None:
    state = read_checkpoint(TRAINING_STATE, trainable_names("ncsnpp", FLOW, "golden"))
    assert state["sigmas"].dtype == torch.float64
    del state["sigmas"]
    prior = build_prior("ncsnpp", FLOW, state, where="golden")
    assert isinstance(prior, FlowPrior)
    assert isinstance(prior.network, NCSNpp)
    assert "sigmas" not in prior.network.state_dict()
