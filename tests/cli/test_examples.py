"""The page of the two instruments, shortened; and the operators of them against NumPy and SciPy."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

import dmps_cli
from tests.conftest import rel
from tests.shell import Dmps, pixels

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SHORTER = {"201": "13", "tutorials/phantoms/200.png": "tutorials/phantoms/12.png", "400": "2"}


def test_the_commands_of_the_page_run(dmps: Dmps, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "docs" / "examples")
    blocks = re.findall(r"```sh\n(.*?)```", (EXAMPLES / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    for command in "".join(blocks).splitlines():
        words = [SHORTER.get(word, word) for word in shlex.split(command)]
        if words[0] == "dmps":
            result = dmps(*words[1:], *(["--nfe", "2"] if words[1] == "restore" else []))
            assert result.code == 0, (command, result.err)
        else:
            subprocess.run([sys.executable if words[0] == "python" else words[0], *words[1:]], check=True)
    for name in ("mri_x", "raw_x", "ct_x"):
        assert pixels(f"tutorials/{name}.png").shape == (64, 64)


def operator(name: str) -> dmps_cli.LinearOperator:
    return dmps_cli.operator("operator", (1, 32, 32), operator=f"{EXAMPLES}/{name}.py:scan", dtype=torch.float64)


def test_resonance_is_rows_of_numpys_transform() -> None:
    op, x = operator("mri"), np.random.default_rng(0).standard_normal((32, 32))
    y = op.A(torch.from_numpy(x)[None, None])
    whole = np.fft.fft2(x, norm="ortho")
    measured = y[0, 0, ..., 0].numpy() + 1j * y[0, 0, ..., 1].numpy()
    assert len(measured) == round(0.3 * 32)
    assert all(np.abs(whole - row).sum(1).min() < 1e-9 for row in measured)
    assert any(np.abs(measured - whole[0]).sum(1) < 1e-9)


def test_tomography_is_the_mean_of_what_scipy_turns() -> None:
    x = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((32, 32)), 2.0)
    rows, cols = np.mgrid[:32, :32] - 15.5
    x[np.hypot(rows, cols) > 13] = 0.0
    y = operator("ct").A(torch.from_numpy(x)[None, None])[0].numpy()
    for place in (0, 5, 12, 17):
        turned = ndimage.rotate(x, 180.0 * place / 24, reshape=False, order=1)
        assert rel(torch.from_numpy(y[place]), torch.from_numpy(turned.mean(0))) < 1e-6, place
