"""Weights as trainers save them: every wrapper around every architecture, the averages first, what is said of it."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dmps_cli.errors import WeightsError
from dmps_cli.nets.natural import NaturalConfig, NaturalNet
from dmps_cli.weights.building import network_of, on_meta, random_state, read_weights, sought
from dmps_cli.weights.finding import Found, MismatchError, Network, Sought, find
from dmps_cli.weights.reading import read_content
from tests.conftest import GOLDEN, golden_json
from tests.rule import rule_tensor

TRAINING_STATE = GOLDEN / "nets" / "ncsnpp_ckpt_1.pth"
FLOW: dict[str, Any] = golden_json("nets/ncsnpp_ckpt_1")["config"]
ADM: dict[str, Any] = golden_json("nets/adm_1")["config"]
State = Mapping[str, Tensor]


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def pre(prefix: str, state: State) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def bare(prefix: str, state: State) -> dict[str, Tensor]:
    """As LitEma of latent diffusion names averages."""
    return {prefix + name.replace(".", ""): value for name, value in state.items()}


# Wrappers: of the weights s, their averages e and the averages without buffers p, what a trainer saves; whether the
# averages are due; where they are said to be.
Wrapper = Callable[[State, State, State], object]
COUNTS = {"initted": torch.tensor(True), "step": torch.tensor(3)}
PLAIN: dict[str, Wrapper] = {
    "alone": lambda s, e, p: s,
    "DataParallel": lambda s, e, p: pre("module.", s),
    "compiled and DataParallel": lambda s, e, p: {"state_dict": pre("module._orig_mod.", s)},
    "Lightning, model": lambda s, e, p: {"state_dict": pre("model.", s), "epoch": 1, "callbacks": {"x": {"y": 0.1}}},
    "Lightning, net, its metric beside": lambda s, e, p: {
        "state_dict": {**pre("net.", s), "lpips.lin0.w": torch.ones(3)}
    },
    "denoiser": lambda s, e, p: pre("denoiser.", s),
    "nested prefixes": lambda s, e, p: {"state_dict": pre("module.model.denoiser.net.", s)},
    "diffusion with its schedule": lambda s, e, p: {"model": {**pre("denoise_fn.", s), "betas": torch.ones(10)}},
    "model and optimizer": lambda s, e, p: {"model": s, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
    "net": lambda s, e, p: {"net": s, "epoch": 3},
    "unet": lambda s, e, p: {"unet": s},
    "network": lambda s, e, p: {"network": s},
    "entries in entries": lambda s, e, p: {"state": {"model": {"state_dict": s}}},
    "an average that is a number": lambda s, e, p: {"model": s, "ema": 0.999},
    "an average that is missing": lambda s, e, p: {"model": s, "ema": None},
    "a list of one": lambda s, e, p: [s, {"state": {}}, 3],
    "arguments": lambda s, e, p: {"model": s, "args": argparse.Namespace(lr=1, out=Path("x"))},
    "a path": lambda s, e, p: {
        "model": s,
        "config": {"root": pathlib.PosixPath("/x"), "w": pathlib.PureWindowsPath("c:")},
    },
    "arrays": lambda s, e, p: {
        "model": s,
        "losses": np.array([1.0, 2.0]),
        "lr": np.minimum(2e-4, 1.0),
        "n": np.int64(3),
    },
    "an array of objects": lambda s, e, p: {"model": s, "names": np.array(["a", None, {"b": 1}], dtype=object)},
}
AVERAGED: dict[str, tuple[Wrapper, str]] = {
    "ema": (lambda s, e, p: {"model": s, "ema": e}, "entry 'ema'"),
    "ema without buffers": (lambda s, e, p: {"model": s, "ema": p}, "entry 'ema'"),
    "ema in DataParallel": (
        lambda s, e, p: {"ema": pre("module.", e), "model": pre("module.", s)},
        "entry 'ema', prefix 'module.'",
    ),
    "ema_state_dict": (lambda s, e, p: {"state_dict": s, "ema_state_dict": e}, "entry 'ema_state_dict'"),
    "state_dict_ema": (lambda s, e, p: {"state_dict": s, "state_dict_ema": e}, "entry 'state_dict_ema'"),
    "ema in an entry": (lambda s, e, p: {"model": s, "ema": {"state_dict": e, "decay": 0.9}}, "entry 'ema/state_dict'"),
    "params_ema": (lambda s, e, p: {"params": s, "params_ema": e}, "entry 'params_ema'"),
    "Lightning, beside": (
        lambda s, e, p: {"state_dict": {**pre("model.", s), **pre("model_ema.", e)}},
        "entry 'state_dict', prefix 'model_ema.'",
    ),
    "latent diffusion": (
        lambda s, e, p: {
            "state_dict": {
                **pre("model.net.", s),
                **bare("model_ema.net", p),
                "model_ema.decay": torch.tensor(0.9),
                "model_ema.num_updates": torch.tensor(3),
            }
        },
        "entry 'state_dict', prefix 'model_ema.net'",
    ),
    "ema_pytorch": (
        lambda s, e, p: {
            "model": pre("model.", s),
            "ema": {**pre("online_model.model.", s), **pre("ema_model.model.", e), **COUNTS},
        },
        "entry 'ema', prefix 'ema_model.model.'",
    ),
    "shadow_params": (
        lambda s, e, p: {"model": s, "ema": {"decay": 0.9, "shadow_params": [*p.values()]}},
        "entry 'ema/shadow_params'",
    ),
    "a list": (lambda s, e, p: [s, {"state": {}}, 3, 4, e], "entry '4'"),
    "a list, without buffers": (
        lambda s, e, p: [pre("module.", s), {}, 3, 4, pre("module.", p)],
        "entry '4', prefix 'module.'",
    ),
}


def tiny(architecture: str) -> tuple[Sought, Network]:
    """A network of the architecture at a tiny size: how it is sought, its tensors."""
    if architecture == "natural":
        with torch.device("meta"):
            net = NaturalNet(NaturalConfig(widths=(8, 16), num_blocks=1, emb_width=16))
        return sought("natural", {}, "x"), network_of(net)
    if architecture == "diffusers":
        diffusers = pytest.importorskip("diffusers")
        blocks = {
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        }
        with torch.device("meta"):
            net = diffusers.UNet2DModel(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, **blocks)
        network = network_of(net)
        return Sought(known=frozenset(network.shapes), network=lambda _: network), network
    config = {"adm": ADM, "ncsnpp": FLOW}[architecture]
    return sought(architecture, config, "x"), network_of(on_meta(architecture, config, "x"))


def states(network: Network) -> tuple[dict[str, Tensor], ...]:
    """Weights, their averages, the averages without what nobody trains, the averages as they are due from those."""
    weights = {name: rule_tensor(name, shape) for name, shape in network.shapes.items()}
    averages = {name: 0.5 * value for name, value in weights.items()}
    partial = {name: averages[name] for name in network.trainable}
    return weights, averages, partial, {**weights, **partial}


@pytest.mark.parametrize("architecture", ["adm", "natural", "ncsnpp", "diffusers"])
def test_every_wrapper_around_every_architecture(tmp_path: Path, architecture: str) -> None:
    """The tensors are those that went in, bit for bit; of averages it is said that they are, and where they lay."""
    wanted, network = tiny(architecture)
    weights, averages, partial, completed = states(network)

    def found_of(content: object) -> Found:
        if architecture == "natural":  # through a file; what is found does not depend on it
            torch.save(content, tmp_path / "file.pt")
            content = read_content(tmp_path / "file.pt")
        return find(content, wanted, "file.pt")

    for name, wrap in PLAIN.items():
        found = found_of(wrap(weights, averages, partial))
        assert same(found.tensors, weights), name
        assert (found.is_average, found.said) == (False, ""), name
    for name, (wrap, place) in AVERAGED.items():
        found = found_of(wrap(weights, averages, partial))
        assert same(found.tensors, averages) or same(found.tensors, completed), name
        assert f"averaged weights (EMA) are read, of {place}; those of" in found.said, name


A, B = {"w": torch.zeros(2, 3)}, {"w": torch.ones(2, 3)}
SMALL = Network(shapes={"w": (2, 3)}, trainable=["w"])
BUFFERED = Network(shapes={"w": (2, 3), "mean": (1,)}, trainable=["w"])


def found_in(content: object, network: Network = SMALL, **where: Any) -> Found:
    return find(content, Sought(known=frozenset(network.shapes), network=lambda _: network), "file.pt", **where)


@pytest.mark.parametrize("legacy", [False, True])
def test_old_files_too(tmp_path: Path, legacy: bool) -> None:
    torch.save({"model": pre("module.", A), "ema": B}, tmp_path / "x", _use_new_zipfile_serialization=not legacy)
    assert same(found_in(read_content(tmp_path / "x")).tensors, B)


def test_half_precision_stays(tmp_path: Path) -> None:
    save_file(pre("module.", {"w": A["w"].half()}), tmp_path / "any.bin")
    assert same(found_in(read_content(tmp_path / "any.bin")).tensors, {"w": A["w"].half()})


def test_what_averages_lack_is_the_models() -> None:
    mean = torch.ones(1)
    assert same(found_in({"model": {**A, "mean": mean}, "ema": B}, BUFFERED).tensors, {**B, "mean": mean})


def test_a_table_says_which() -> None:
    content = {"model": A, "ema": {"fast": pre("module.", B), "slow": pre("module.", A)}, "log": [A, B]}
    assert same(found_in(content, entry="model").tensors, A)
    assert same(found_in(content, entry="ema/slow").tensors, A)
    assert same(found_in(content, entry="log/-1").tensors, B)
    assert same(found_in({**pre("a.", A), **pre("b.", B)}, prefix="b.").tensors, B)
    assert same(found_in({**pre("a.", A), **pre("b.", B)}, prefix="b").tensors, B)
    with pytest.raises(WeightsError, match=r"no entry 'ema/none': where 'none' is expected, there is fast, slow"):
        found_in(content, entry="ema/none")
    with pytest.raises(
        MismatchError, match=r"no weights of this architecture found in it behind the prefix 'c\.', only a\.w"
    ):
        found_in(pre("a.", A), prefix="c.")


def test_several_that_fit_are_said() -> None:
    assert "its weights of entry 'a' are read; those of entry 'b' are left" in found_in({"a": A, "b": B}).said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"w": torch.zeros(2, 4)}, r"w \(2, 4\) instead of \(2, 3\)"),
        ({"w": A["w"], "v": B["w"]}, r"1 unexpected \(v\)"),
        ({"model": A, "ema": {"w": torch.zeros(3)}}, r"its averaged weights \(EMA\) of entry 'ema' are not those"),
        ({"model": A, "ema": {"shadow_params": [A["w"], A["w"]]}}, "2 averaged tensors for 1 trainable parameters"),
        ({"model": A, "ema": {"shadow_params": [torch.ones(4)]}}, r"w \(4,\) instead of \(2, 3\)"),
        ({"state": {0: {"exp_avg": torch.zeros(3)}}}, "no weights of this architecture found in it, only exp_avg"),
        ({"step": 3, "lr": 0.1}, "only step, lr"),
        (torch.ones(3), "only nothing"),
        ({}, "only nothing"),
    ],
)
def test_what_does_not_fit_is_one_line(content: object, said: str) -> None:
    with pytest.raises(MismatchError, match=said) as caught:
        found_in(content)
    assert "\n" not in str(caught.value)


def test_a_mapping_that_holds_itself() -> None:
    content: dict[str, object] = {}
    content["model"] = content
    with pytest.raises(MismatchError, match="only model"):
        found_in(content)


def test_training_state_gives_the_averages_and_the_models_untrained_rest() -> None:
    """The file's averages follow the rule on the names, the model's own tensors the rule on `module.` + name."""
    state = read_weights(TRAINING_STATE, "ncsnpp", FLOW).tensors
    for name, shape in golden_json("nets/ncsnpp_ckpt_1")["state_dict"].items():
        if name != "sigmas":
            key = f"module.{name}" if name == "all_modules.0.W" else name
            assert torch.equal(state[name], rule_tensor(key, tuple(shape))), name


def test_random_weights_are_the_networks() -> None:
    assert same(found_in(random_state("adm", ADM, "x"), tiny("adm")[1]).tensors, random_state("adm", ADM, "x"))
