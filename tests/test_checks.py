"""One rule an option: what is typed, given in Python and read from a file is judged alike, and in one sentence."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import dmps_cli as library
from dmps_cli.checks import SIGMA, Rule, choice, listed, option_name, or_none, real, reals, typed, whole
from dmps_cli.errors import DmpsError, UsageError
from tests.shell import Dmps, photo


@pytest.mark.parametrize(
    ("rule", "right", "wrong", "what"),
    [
        (
            whole(2, 64),
            [2, 64, 3.0, "7"],
            [1, 65, 2.5, "2.5", True, None, "x"],
            "a whole number from 2 to 64",
        ),
        (whole(1), [1, 2**70], [0, -1, math.inf], "a whole number, at least 1"),
        (whole(1, 9, unit="px", odd=True), [1, 9], [2, 11], "an odd number of px from 1 to 9"),
        (whole(32, 64, unit="px", multiple=16), [32, 48], [40, 16], "a multiple of 16 px from 32 to 64"),
        (real(0, 1), [0, 1, 0.5, "0.5"], [-1e-9, 1.1, math.nan, True, "nan", []], "a number from 0 to 1"),
        (real(0, 1, below=True), [0, 0.99], [1], "a number, at least 0 and below 1"),
        (real(0, 5, above=True), [1e-9, 5], [0], "a number, above 0 and at most 5"),
        (real(0), [0, 3e38], [-1, 1e39, math.inf, 10**400], "a number, at least 0"),
        (or_none(real(0, above=True), "none"), [None, "none", 1], [0, "nothing"], "a number, above 0, or none"),
        (choice(("alex", "vgg")), ["alex"], ["vgh", 3, ["alex"]], "one of alex, vgg"),
        (choice((3, 1), "3 or 1"), [3, 1], [2, "3"], "3 or 1"),
        (reals([2], "two", lambda n: n[0] < n[1]), ["1,2", [1, 2.5]], ["2,1", "1", "1,x", 5, [1, math.nan]], "two"),
        (SIGMA, [0, 1e-9, 10], [1e-10, 10.1, -1, "0.1", math.nan, True], "0, or a number from 1e-09 to 10 on [-1, 1]"),
    ],
    ids=lambda value: value.what if isinstance(value, Rule) else "",
)
def test_rules_keep_their_bounds(rule: Rule[Any], right: list[Any], wrong: list[Any], what: str) -> None:
    assert rule.what == what
    for value in right:
        found = rule("--x", value)
        assert found is None or isinstance(value, str | list) or found == value
    for value in wrong:
        with pytest.raises(
            UsageError, match=rf"^--x is {re.escape(repr(value)[:50])}.*; .*expected {re.escape(what)}$"
        ):
            rule("--x", value)


def test_what_is_refused_is_named_briefly_and_the_nearest_word_is_suggested() -> None:
    with pytest.raises(UsageError, match=r"^--x is 'y{56}\.\.\.; expected a number from 0 to 1$"):
        real(0, 1)("--x", "y" * 500)
    with pytest.raises(ValueError, match=r"^net is 'vgh'; did you mean 'vgg'\? expected one of alex, vgg$"):
        choice(("alex", "vgg"))("net", "vgh", ValueError)


def test_texts_become_the_numbers_that_they_are() -> None:
    assert [typed(text) for text in ("3", "3.5", "none", "1,2", 4)] == [3, 3.5, "none", "1,2", 4]
    assert listed("--nfe", "10, 20,10", typed) == [10, 20] and listed("--nfe", None, typed) == [None]
    with pytest.raises(UsageError, match="--nfe is empty"):
        listed("--nfe", " , ", typed)
    assert option_name("weight", ("-l", "--lambda")) == "--lambda" and option_name("blur_std") == "--blur-std"


SAME: list[tuple[str, str, Any]] = [
    ("sr", "scale", 1),
    ("sr", "scale", "two"),
    ("deblur", "width", 8),
    ("deblur-gauss", "blur_std", 1e308),
    ("deblur", "boundary", "refelct"),
    ("colorize", "weights", "1,1"),
    ("inpaint", "fraction", 1.0),
    ("inpaint", "box", "1,1,2"),
    ("cs", "operator_seed", -1),
]


@pytest.mark.parametrize(("task", "name", "value"), SAME)
def test_one_sentence_on_the_command_line_in_python_and_of_a_sidecar(
    dmps: Dmps, tmp_path: Path, task: str, name: str, value: Any
) -> None:
    with pytest.raises(UsageError) as refused:
        library.operator(task, (3, 8, 8), **{name: value})
    sentence = str(refused.value)
    assert "; " in sentence and "expected " in sentence
    photo(tmp_path / "p.png")
    said = dmps("degrade", "p.png", "--task", task, f"--{name.replace('_', '-')}", value)
    assert (said.code, said.err) == (2, f"dmps: error: {sentence}\n")
    assert dmps("degrade", "p.png", "--task", task, *(["--scale", "2"] * (task == "sr")), "-o", "y.png", "-q").code == 0
    sidecar = json.loads(Path("y.json").read_text())
    sidecar["operator"][name] = value
    Path("y.json").write_text(json.dumps(sidecar))
    assert sentence in dmps("restore", "y.png", "--nfe", "1", "-q").err


@pytest.mark.parametrize(
    ("knobs", "option"),
    [
        ({"method": "diffpir", "zeta": 1.5}, "--zeta"),
        ({"method": "dps", "zeta": "much"}, "--zeta"),
        ({"method": "ddrm", "eta": -1}, "--eta"),
        ({"nfe": 0}, "--nfe"),
        ({"nfe": "ten"}, "--nfe"),
        ({"spacing": "cubic"}, "--spacing"),
    ],
)
def test_a_knob_is_judged_alike(dmps: Dmps, tmp_path: Path, knobs: dict[str, Any], option: str) -> None:
    op = library.operator("denoise", (3, 8, 8))
    with pytest.raises(DmpsError) as refused:
        library.restore(library.Measurement(torch.zeros(1, 3, 8, 8), op, 0.5), lambda z, s: z, **knobs)
    assert str(refused.value).startswith(f"{option} is ") and "; expected " in str(refused.value)
    photo(tmp_path / "p.png")
    typed_knobs = [part for name, value in knobs.items() for part in (f"--{name}", value)]
    said = dmps("restore", "p.png", "--task", "denoise", *typed_knobs)
    assert (said.code, said.err) == (2, f"dmps: error: {refused.value}\n")
    if option in ("--zeta", "--eta", "--nfe"):
        swept = dmps("eval", "--dataset", "samples", "--tasks", "denoise", *typed_knobs)
        assert (swept.code, swept.err) == (2, f"dmps: error: {refused.value}\n")


def test_seed_and_noise_have_their_own_name_in_each_place(dmps: Dmps, tmp_path: Path) -> None:
    op = library.operator("denoise", (3, 8, 8))
    for value in (-1, 2**63):
        what = rf"seed is {value}; expected a whole number from 0 to 2\^63 - 1$"
        with pytest.raises(ValueError, match=f"^{what}"):
            library.degrade(torch.zeros(1, 3, 8, 8), op, 0.1, seed=value)
        photo(tmp_path / "p.png")
        assert re.search(f"--{what}", dmps("degrade", "p.png", "--task", "denoise", "--seed", value).err)
    with pytest.raises(ValueError, match=rf"^sigma_y is 11; expected {re.escape(SIGMA.what)}$"):
        library.degrade(torch.zeros(1, 3, 8, 8), op, 11)
    said = dmps("degrade", "p.png", "--task", "denoise", "--sigma", "1e3").err
    assert said == f"dmps: error: --sigma is 1000.0; expected {SIGMA.what}, or grey levels as 15/255\n"
    assert dmps("degrade", "p.png", "--task", "denoise", "-o", "y.png", "-q").code == 0
    sidecar = json.loads(Path("y.json").read_text())
    Path("y.json").write_text(json.dumps(sidecar | {"sigma_y": 11}))
    assert f"sigma_y is 11.0; expected {SIGMA.what}" in dmps("restore", "y.png", "-q").err
