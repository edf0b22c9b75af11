"""Networks of published files: their outputs, their tensors, what does not belong to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dmps_cli
from dmps_cli.errors import WeightsError
from dmps_cli.levels import flow_levels
from dmps_cli.nets.ncsnpp import NCSNpp
from dmps_cli.priors import DDPMPrior, DenoiserPrior, FlowPrior
from dmps_cli.weights.building import build_prior, fits, read_weights
from dmps_cli.weights.reading import read_content
from tests.conftest import GOLDEN, golden, golden_json, randn, rel
from tests.rule import rule_tensor

TRAINING_STATE = GOLDEN / "nets" / "ncsnpp_ckpt_1.pth"
FLOW: dict[str, Any] = golden_json("nets/ncsnpp_ckpt_1")["config"]
ADM: dict[str, Any] = golden_json("nets/adm_1")
A = {"w": torch.zeros(2, 3)}


def adm_state() -> dict[str, Tensor]:
    return {key: rule_tensor(key, tuple(shape)) for key, shape in ADM["state_dict"].items()}


def flow_prior(dtype: torch.dtype = torch.float32) -> FlowPrior:
    state = read_weights(TRAINING_STATE, "ncsnpp", FLOW).tensors
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
    data, source = golden("nets/adm_1"), tmp_path / "file.pt"
    torch.save({"ema": adm_state()}, source)
    state = read_weights(source, "adm", ADM["config"]).tensors
    prior = build_prior("adm", ADM["config"], state, where=str(source), dtype=dtype, clip_denoised=False)
    assert isinstance(prior, DDPMPrior)
    assert (prior.learned_range, prior.clips_x0, prior.channels) == (ADM["config"]["learn_sigma"], False, 3)
    assert rel(prior.network(data["x"], data["t"]), data["output"]) <= tolerance


def test_natural_file_end_to_end() -> None:
    state = read_weights(Path(dmps_cli.__file__).parent / "data" / "natural.safetensors", "natural", {}).tensors
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
    content: Any = read_content(TRAINING_STATE)
    assert content["model"]["module.sigmas"].dtype == torch.float64
    state = read_weights(TRAINING_STATE, "ncsnpp", FLOW).tensors
    assert {f"module.{name}" for name in state} == content["model"].keys() - {"module.sigmas"}
    for tensors in (state, {**state, "sigmas": content["model"]["module.sigmas"]}):
        prior = build_prior("ncsnpp", FLOW, tensors, where="golden")
        assert isinstance(prior, FlowPrior)
        assert isinstance(prior.network, NCSNpp)
        assert "sigmas" not in prior.network.state_dict()


def test_a_file_fits_its_own_network_alone() -> None:
    state, adm = read_content(TRAINING_STATE), adm_state()
    assert fits(adm, "adm", ADM["config"], "x")
    assert fits(state, "ncsnpp", FLOW, "x")
    assert not fits(state, "adm", ADM["config"], "x")
    assert not fits(adm, "ncsnpp", FLOW, "x")
    assert not fits(adm, "natural", {}, "x")
    assert not fits({**adm, "label_emb.weight": torch.zeros(10, 128)}, "adm", ADM["config"], "x")  # a conditional one


def test_the_weights_of_a_pickle_are_mapped(tmp_path: Path) -> None:
    """They are the file's pages: no storage of their own, so that a start reads only what it uses."""
    torch.save({"model": adm_state(), "optimizer": {"state": adm_state()}}, tmp_path / "file.pt")
    state = read_weights(tmp_path / "file.pt", "adm", ADM["config"]).tensors
    content = (tmp_path / "file.pt").read_bytes()
    value = state["out.2.weight"]
    maps = Path("/proc/self/maps").read_text()
    begin, end = next(
        (int(a, 16), int(b, 16))
        for line in maps.splitlines()
        if line.endswith("file.pt")
        for a, b in [line.split()[0].split("-")]
    )
    assert begin <= value.data_ptr() < end
    assert value.numpy().tobytes() in content
