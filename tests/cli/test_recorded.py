"""What the commands gave when it was last recorded: pictures, sidecars, tables, a prior trained in two steps.

A change that was not meant shows here. One that was meant is recorded anew, and its commit says why:

    python -m pytest tests/cli/test_recorded.py -n 0 --record

Every knob is named, so that no default is pinned; the prior has the weights of a rule. Pictures may differ by one grey
level, for processors round differently; seconds, memory, versions and hashes are left out.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_tensors

from dmps_cli.nets.natural import NaturalConfig, NaturalNet
from tests.conftest import GOLDEN
from tests.rule import rule_weights
from tests.shell import Dmps, pixels

DEGRADE = {
    "sr4": "--sigma 0.05",
    "deblur-gauss": "--sigma 0.02 --taps 5 --blur-std 2 --boundary reflect",
    "inpaint": "--sigma 0.1 --fraction 0.4 --operator-seed 3",
}

X_T = "--score-at x_t --cap 1"
RESTORE = {
    "dmps": f"--method dmps --lambda 1.75 {X_T}",
    "dmps_sample": "--method dmps --lambda 1.5 --score-at sample --cap none",
    "dmps-tweedie": "--method dmps-tweedie --lambda 1",
    "ddrm": "--method ddrm --eta 0.85",
    "ddnm": "--method ddnm --eta 0.5",
    "diffpir": "--method diffpir --zeta 0.7 --prior-weight 1",
    "dmps_x0": "--method dmps --score-at x0 --variance-factor 3 --eta 0.85 --eta-y 0.8 --mean-of 2",
}
"""By name; each on both samplers, of the task that comes next."""

EVAL = f"eval --dataset photos --tasks sr4,denoise --sigma 0.1 --methods dmps --sampler ddpm --nfe 3 --lambda 1,2 {X_T}"
TRAIN = "train photos -o trained.safetensors --steps 2 --size small --batch 1 --crop 32 --lr 0.002 --seed 1 --full"

LEFT_OUT = {"seconds", "mib", "wait", "device", "sha256", "versions", "version", "config", "protocol", "notes"}
"""Words of names whose values another machine has otherwise, or that say in other words what the rest says."""


def photograph(path: Path, size: tuple[int, int], slope: int) -> None:
    """Ramps that fold at black and white, in whole numbers: the same pixels on every machine."""
    rows, cols = np.mgrid[: size[1], : size[0]]
    ramps = [(slope * rows + (k + 3) * cols + 40 * k) % 510 for k in range(3)]
    Image.fromarray(np.abs(255 - np.stack(ramps, -1)).astype(np.uint8)).save(path)


@pytest.fixture
def ready(dmps: Dmps, tmp_path: Path) -> Dmps:
    """Runs commands beside two photographs, their three measurements and a prior."""
    (tmp_path / "photos").mkdir()
    photograph(tmp_path / "photos" / "a.png", (48, 32), 5)
    photograph(tmp_path / "photos" / "b.png", (32, 40), 11)
    config = NaturalConfig(widths=(8, 16), num_blocks=1, emb_width=16, num_frequencies=4)
    net = NaturalNet(config)
    state = {**net.state_dict(), **rule_weights(net)}
    state |= {name: 0.1 * state[name] for name in ("out.weight", "out.bias")}  # near the denoiser of independent pixels
    save_tensors(state, tmp_path / "tiny.safetensors", config.facts)
    for task, options in DEGRADE.items():
        run(dmps, f"degrade photos/a.png --task {task} {options} --seed 1 -o {task}.png")
    return dmps


def run(dmps: Dmps, line: str) -> str:
    """Stdout of a command that succeeds."""
    result = dmps(*line.split())
    assert result.code == 0, (line, result.err)
    return result.out


def test_degrade(ready: Dmps, request: pytest.FixtureRequest) -> None:
    arrays = {task: pixels(f"{task}.png") for task in DEGRADE}
    floats = {f"{task} floats": np.load(f"{task}.npy") for task in DEGRADE}
    values = {task: json.loads(Path(f"{task}.json").read_text()) for task in DEGRADE}
    compare("degrade", arrays | floats, values, request)


def test_restore(ready: Dmps, request: pytest.FixtureRequest) -> None:
    arrays, values = {}, {}
    for k, (name, sampler) in enumerate((name, sampler) for name in RESTORE for sampler in ("ddpm", "flow")):
        task, out = [*DEGRADE][k % len(DEGRADE)], f"{name} {sampler}"
        options = f"--model tiny.safetensors --sampler {sampler} --nfe 4 --spacing uniform --seed 2 {RESTORE[name]}"
        run(ready, f"restore {task}.png {options} --overwrite -o out.png")
        arrays[out], values[out] = pixels("out.png"), json.loads(Path("out.json").read_text())
    compare("restore", arrays, values, request)


def test_eval(ready: Dmps, request: pytest.FixtureRequest) -> None:
    said = run(ready, f"{EVAL} --model tiny.safetensors --spacing uniform --out run --json")
    tables = {
        path.name: list(csv.DictReader(path.read_text().splitlines())) for path in sorted(Path("run").rglob("*.csv"))
    }
    rows = [json.loads(line) for line in Path("run/rows.jsonl").read_text().splitlines()]
    compare("eval", {}, {"said": json.loads(said), "tables": tables, "rows": rows}, request)
    assert "<table" in next(Path("run").glob("*.html")).read_text()


def test_train(ready: Dmps, request: pytest.FixtureRequest) -> None:
    said = json.loads(run(ready, f"{TRAIN} --json"))
    trained = load_file("trained.safetensors")
    values = {name: [float(tensor.mean()), float(np.abs(tensor).mean())] for name, tensor in trained.items()}
    compare("train", {}, {"said": said, "prior": values}, request)


def compare(name: str, arrays: dict[str, np.ndarray], values: Any, request: pytest.FixtureRequest) -> None:
    """Asserts that arrays and values are those recorded; records them with --record."""
    pictures, numbers = GOLDEN / f"commands/{name}.safetensors", GOLDEN / f"commands/{name}.json"
    if request.config.getoption("--record"):
        numbers.parent.mkdir(exist_ok=True)
        numbers.write_text(json.dumps(kept(values), indent=1) + "\n")
        if arrays:
            save_file(arrays, pictures)
        return
    assert differences(kept(values), json.loads(numbers.read_text())) == []
    for key, recorded in (load_file(pictures) if arrays else {}).items():
        least = 1.0 if recorded.dtype == np.uint8 else 1e-4
        assert arrays[key].shape == recorded.shape, key
        assert np.abs(arrays[key].astype(float) - recorded).max() <= least, key


def kept(value: Any) -> Any:
    """What JSON says but for what another machine has otherwise."""
    if isinstance(value, dict):
        return {k: kept(v) for k, v in value.items() if not {*k.lower().split("_")} & LEFT_OUT}
    return [kept(item) for item in value] if isinstance(value, list | tuple) else value


def differences(got: Any, recorded: Any, where: str = "") -> list[str]:
    """Says each place where values differ by more than rounding gives, or are lost; what is new is no difference."""
    if isinstance(got, dict) and isinstance(recorded, dict):
        lost = [f"{where}.{name} is lost" for name in recorded.keys() - got.keys()]
        both = [name for name in recorded if name in got]
        return lost + [d for name in both for d in differences(got[name], recorded[name], f"{where}.{name}")]
    if isinstance(got, list) and isinstance(recorded, list) and len(got) == len(recorded):
        return [d for k in range(len(got)) for d in differences(got[k], recorded[k], f"{where}[{k}]")]
    if is_close(got, recorded):
        return []
    return [f"{where}: {got!r}, recorded {recorded!r}"]


def is_close(got: Any, recorded: Any) -> bool:
    """Whether both are equal, or numbers (or texts of numbers, in a CSV) that differ by rounding alone."""
    if got == recorded:
        return True
    try:
        return math.isclose(float(got), float(recorded), rel_tol=2e-3, abs_tol=2e-3)
    except (TypeError, ValueError):
        return False
