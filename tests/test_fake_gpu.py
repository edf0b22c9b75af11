"""No step mixes tensors of a GPU and of the CPU: on torch's fake tensors, which have a device and no values."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from dmps_cli import sampling
from dmps_cli.levels import SAMPLERS
from dmps_cli.methods.choice import build_posterior, resolve_sampling
from dmps_cli.methods.defaults import DEFAULTS
from dmps_cli.methods.table import METHODS
from dmps_cli.nets.adm import ADM, ADMConfig
from dmps_cli.nets.natural import Natural, NaturalConfig, NaturalNet
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.inside import Inside
from dmps_cli.operators.measurement import Measurement
from dmps_cli.priors import DDPMPrior, DenoiserPrior, FlowPrior, Prior
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.rows import TASKS
from dmps_cli.tasks.table import build, resolve
from dmps_cli.windows import WindowedPrior
from tests.conftest import golden_json

GPU = torch.device("cuda:0")
SHAPE = (3, 32, 32)

LOOKED_AT = ("deblur", "deblur-gauss", "deblur-aniso", "motion", "blur", "inpaint")
"""Tasks whose operators read values as they are built: they are built on the CPU, and then moved."""

BACK = frozenset(name for name, method in METHODS.items() if method.back_propagates)
"""Methods that go back through the network, where torch asks a GPU that is not there."""


def moved(thing: Any, mode: FakeTensorMode) -> Any:
    """The same on the GPU, with all that it holds."""
    if isinstance(thing, Tensor):
        with mode:
            return torch.empty_strided(thing.shape, thing.stride(), dtype=thing.dtype, device=GPU)
    if isinstance(thing, tuple):
        parts = [moved(part, mode) for part in thing]
        return type(thing)(*parts) if hasattr(thing, "_fields") else tuple(parts)
    if isinstance(thing, torch.device):
        return GPU
    if not type(thing).__module__.startswith("dmps_cli"):
        return thing
    there = copy.copy(thing)
    for name, value in vars(thing).items():
        object.__setattr__(there, name, moved(value, mode))
    return there


def operator(task: str, mode: FakeTensorMode) -> LinearOperator:
    params = resolve(task, OperatorOptions())
    if task not in LOOKED_AT:
        with mode:
            return build(task, params, SHAPE, dtype=torch.float32, device=GPU)
    here = build(task, params, SHAPE, dtype=torch.float32)
    _ = here.norm  # kept, so that no value is asked for later
    there: LinearOperator = moved(here, mode)
    return there


@pytest.mark.parametrize("task", TASKS)
def test_operators_stay_on_the_device(task: str) -> None:
    mode = FakeTensorMode()
    op = operator(task, mode)
    with mode:
        x = torch.empty(2, *SHAPE, device=GPU)
        inside = Inside(op, (3, 40, 33))
        y = op.A(x)
        results = [y, op.At(y), op.to_image(y), inside.A(torch.empty(2, 3, 40, 33, device=GPU)), inside.At(y)]
        results += [op.solve(y, 0.1, 1.0), op.correction(y)(x, 0.1, 1.0)]
        if op.modes is not None:
            results += [op.modes.V(op.modes.Vt(x)), op.modes.Ut(y), op.modes.measured]
    assert {result.device for result in results} == {GPU}


def natural() -> Prior:
    with torch.device(GPU):
        net = NaturalNet(NaturalConfig(widths=(8, 8), num_blocks=1)).requires_grad_(False)
    return DenoiserPrior(Natural(net).denoise)


def adm() -> Prior:
    with torch.device(GPU):
        net = ADM(ADMConfig.from_reference(golden_json("nets/adm_1")["config"], "adm_1")).requires_grad_(False)
    return DDPMPrior(net, learned_range=net.config.out_channels == 6, clip_denoised=True)


def windowed() -> Prior:
    return WindowedPrior(natural(), 16, is_only_size=False, batch=3)


def velocity() -> Prior:
    return FlowPrior(lambda x, label: x * label[:, None, None, None])


@pytest.mark.parametrize(
    ("make", "method", "sampler"),
    [
        *((natural, *pair) for pair in DEFAULTS if pair[0] not in BACK),
        *((make, "dmps", "ddpm") for make in (adm, windowed, velocity)),
    ],
)
def test_restorations_stay_on_the_device(method: str, sampler: str, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_check_finite", lambda *_: None)  # reads values
    monkeypatch.setattr(sampling, "prepared", lambda noise, x, count: nullcontext(Fresh()))
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)  # fake tensors have none
    monkeypatch.setattr(LinearOperator, "norm", 1.0)
    choice = resolve_sampling(method=method, sampler=sampler, nfe=3)
    mode = FakeTensorMode()
    op = operator("sr4", mode)
    monkeypatch.setattr(type(op), "norm", 1.0)  # reads values
    with mode:
        prior, z = make(), torch.empty(2, *SHAPE, device=GPU)
        y = op.A(z)
        posterior = build_posterior(choice, prior, Measurement(y, op, 0.05))
        levels = prior.levels(sampler, 3, choice.spacing, METHODS[choice.method].start)
        start = posterior.start(z, levels[0])
        x = sampling.sample(posterior, levels, start, eta=SAMPLERS[sampler].eta, noise=Fresh())  # type: ignore[arg-type]
    assert x.device == GPU


class Fresh:
    """Noise of no values."""

    def like(self, x: Tensor) -> Tensor:
        return torch.empty_like(x)
