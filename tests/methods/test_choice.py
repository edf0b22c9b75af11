"""Which form of a method is taken: by what is given, by the preset, by its name; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dmps_cli.errors import UsageError
from dmps_cli.levels import SAMPLERS
from dmps_cli.methods.choice import of_today, resolve_sampling
from dmps_cli.methods.defaults import FAVOURS
from dmps_cli.tasks.table import TASKS
from tests.shell import Dmps, photo


@pytest.mark.parametrize(
    ("chosen", "method", "options"),
    [
        ({}, "dmps (x0)", ()),
        ({"preset": "fast"}, "dmps (x0)", ()),
        ({"preset": "paper"}, "dmps (x_t)", ()),
        ({"knobs": {"weight": 1.0}}, "dmps (x_t)", ("--lambda",)),
        ({"knobs": {"weight": 1.0, "cap": "none"}}, "dmps (x_t)", ("--lambda", "--cap")),
        ({"knobs": {"weight": 1.0}, "preset": "paper"}, "dmps (x_t)", ()),
        ({"knobs": {"eta": 1.0}}, "dmps (x0)", ()),
        ({"knobs": {"score_at": "x_t"}}, "dmps (x_t)", ()),
        ({"knobs": {"score_at": "sample", "cap": 2.0}}, "dmps (sample)", ()),
        ({"knobs": {"score_at": "sample"}, "preset": "paper"}, "dmps (sample)", ()),
        ({"method": "dmps (sample)", "knobs": {"weight": 1.0}}, "dmps (sample)", ()),
    ],
    ids=str,
)
def test_the_first_form_that_takes_what_is_given(chosen: dict[str, Any], method: str, options: tuple[str, ...]) -> None:
    sampling = resolve_sampling(task="sr4", **chosen)
    assert (sampling.method, sampling.chosen_by) == (method, options)
    assert sampling.as_dict()["score_at"] == method.removeprefix("dmps (").removesuffix(")")


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (
            {"knobs": {"weight": 3.0, "score_at": "x0"}},
            r"no form of dmps takes --lambda and --score-at x0: --lambda belongs to dmps \(x_t\), dmps \(sample\); ",
        ),
        ({"knobs": {"weight": 3.0, "eta": 1.0}}, r"--eta belongs to dmps \(x0\)"),
        ({"knobs": {"variance_factor": 3.0, "score_at": "x_t"}}, r"--variance-factor belongs to dmps \(x0\)"),
        ({"knobs": {"score_at": "x1"}}, "--score-at is 'x1'; .*expected one of x0, x_t, sample"),
        ({"knobs": {"score_at": "x0"}, "preset": "paper"}, "takes --score-at x0 and --preset paper"),
        ({"method": "dmps (x1)"}, "unknown method"),
        ({"knobs": {"mean_of": 0}}, "--mean-of is 0; expected a whole number from 1"),
        ({"knobs": {"mean_of": 9}, "nfe": 8}, "--mean-of is 9; 8 evaluations"),
        ({"favour": "psnr", "preset": "paper"}, "--favour and --preset paper exclude each other"),
        ({"favour": "psnr", "knobs": {"eta": 1.0}}, "--favour and --eta exclude each other"),
        ({"favour": "psnr", "knobs": {"score_at": "x0"}}, "--favour and --score-at x0 exclude each other"),
        ({"favour": "psnr", "method": "ddrm"}, r"--favour belongs to dmps \(x0\), not to ddrm"),
        ({"favour": "psnt"}, "did you mean 'psnr'?"),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_refused(chosen: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        resolve_sampling(task="sr4", **chosen)


def test_defaults_are_twenty_evaluations_on_either_kind_of_levels() -> None:
    for task in TASKS:
        for sampler, spacing in (("ddpm", "quadratic"), ("flow", "uniform")):
            sampling = resolve_sampling(task=task, sampler=sampler)
            assert (sampling.method, sampling.nfe, sampling.spacing) == ("dmps (x0)", 20, spacing)
            assert resolve_sampling(task=task, sampler=sampler, preset="fast").nfe == 10
            assert resolve_sampling(task=task, sampler=sampler, favour="balance") == sampling
    assert resolve_sampling(knobs={"score_at": "x_t"}).nfe == 30
    assert resolve_sampling(sampler="flow", knobs={"score_at": "x_t"}).nfe == 50


@pytest.mark.parametrize("favour", FAVOURS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_blurs_draw_all_noise_anew_where_something_was_measured(favour: str, sampler: str) -> None:
    """A kept eps returns through what the kernel hardly passes: eta_y 0.85 gives 16 dB for 25."""
    for task in ("deblur", "deblur-gauss", "deblur-aniso", "motion", "blur"):
        assert resolve_sampling(task=task, sampler=sampler, favour=favour).knobs["eta_y"] == 1.0


@pytest.mark.parametrize("chosen", [{"favour": "psnr"}, {"knobs": {"mean_of": 2}}], ids=str)
def test_several_means_are_refused_and_several_samples_are_not(chosen: dict[str, Any]) -> None:
    """In any task, whether or not it is one in which the favour takes a mean."""
    for task in ("denoise", "sr4"):
        with pytest.raises(UsageError, match="and --samples 8 exclude each other"):
            resolve_sampling(task=task, **chosen).check_samples(8)
        resolve_sampling(task=task, **chosen).check_samples(1)
        resolve_sampling(task=task, favour="balance").check_samples(8)
    assert resolve_sampling(task="colorize", favour="psnr").shares == [10, 10]


@pytest.mark.parametrize("command", [("restore", "y.png"), ("eval", "--dataset", "samples")], ids=str)
def test_commands_refuse_several_means(command: tuple[str, ...], dmps: Dmps) -> None:
    refused = dmps(*command, "--favour", "psnr", "--samples", "8")
    assert (refused.code, refused.out) == (2, "")
    assert "--favour psnr and --samples 8 exclude each other" in refused.err


def test_files_of_earlier_versions_name_the_form() -> None:
    """Then the variance factor was called lambda, and a cap was recorded that did nothing."""
    old = {"method": "dmps", "score_at": "x0", "lambda": 3.0, "cap": None, "eta": 0.85, "psnr": 25.0}
    new = {"method": "dmps (x0)", "score_at": "x0", "variance_factor": 3.0, "eta": 0.85, "psnr": 25.0}
    assert of_today(old) == new and of_today(new) == new
    at_x_t = {"method": "dmps", "score_at": "x_t", "lambda": 1.75, "cap": 1.0}
    assert of_today(at_x_t) == at_x_t | {"method": "dmps (x_t)"}
    assert of_today({"method": "ddrm", "eta": 0.85}) == {"method": "ddrm", "eta": 0.85}


def test_a_mean_of_samples_is_their_mean_and_costs_their_evaluations(dmps: Dmps, tmp_path: Path) -> None:
    """Of 5 evaluations in two samples the first has 3, and is the sample that 3 alone give."""
    photo(tmp_path / "p.png", (24, 24))
    dmps("degrade", "p.png", "--task", "denoise", "--sigma", "0.1", "-o", "y.png")
    for name, options in (("mean", ["--mean-of", "2", "--nfe", "5"]), ("one", ["--nfe", "3"])):
        assert dmps("restore", "y.png", "-o", f"{name}.png", *options).code == 0
    facts = json.loads(Path("mean.json").read_text())
    assert (facts["nfe"], facts["mean_of"], facts["method"]) == (5, 2, "dmps (x0)")
    assert "mean_of" not in json.loads(Path("one.json").read_text())
