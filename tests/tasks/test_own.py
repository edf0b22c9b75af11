"""--matrix, --operator and --sigma FILE at the command line, and what a sidecar may not choose."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from tests.shell import FAST, Dmps, photo, pixels

CODE = """
import torch
from helper import HALF

from dmps_cli import LinearOperator

print("not a result")


class Rows(LinearOperator):
    def __init__(self, shape, *, dtype, device):
        super().__init__(shape, (shape[0], shape[1] // 2, shape[2]), dtype, device)

    def A(self, x):
        return (x[..., ::2, :] + x[..., 1::2, :]) * HALF

    def At(self, y):
        return y.repeat_interleave(2, dim=-2) * HALF


def wave(shape, dtype, device):
    window = torch.linspace(0.5, 1.5, shape[2], dtype=dtype, device=device)
    return lambda x: torch.nn.functional.avg_pool2d(window * x, 2).flatten(1)


def both(shape, dtype, device):
    def At(y):
        return torch.zeros(len(y), *shape).index_copy(2, torch.arange(0, shape[1], 2), y)

    return lambda x: x[..., ::2, :], At


def square(shape, dtype, device):
    return lambda x: x**2


def few(shape):
    return None


def fails(shape, dtype, device):
    raise KeyError("window")


number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("code").mkdir()
    Path("code/mine.py").write_text(CODE)
    Path("code/helper.py").write_text("HALF = 0.5\n")
    photo(Path("p.png"), (24, 16))
    return tmp_path


@pytest.mark.parametrize("name", ["Rows", "wave", "both"])
def test_code(dmps: Dmps, folder: Path, name: str) -> None:
    """Degraded and restored; the sidecar alone is not enough, and its code is not run."""
    own = f"code/mine.py:{name}"
    made = dmps("degrade", "p.png", "--operator", own, "--sigma", "0.02", "-o", "y.png")
    assert (made.code, made.out) == (0, "y.png\n"), made.err
    assert f"{own}: linear, and At the transpose of A" in made.err
    sidecar = json.loads(Path("y.json").read_text())
    assert (sidecar["task"], sidecar["operator"]["operator"]["name"]) == ("operator", own)
    result = dmps("restore", "y.png", "--operator", own, "-o", "x.png", *FAST)
    assert result.code == 0, result.err
    assert pixels("x.png").shape == (16, 24, 3)
    assert len(json.loads(Path("x.json").read_text())["iterations"]) == 2
    Path("code/mine.py").write_text("import pathlib; pathlib.Path('run').touch()\n")
    for more in ((), ("--task", "denoise"), ("--task", "operator")):
        refused = dmps("restore", "y.png", *more, "-o", "z.png", *FAST)
        assert refused.code in (1, 2)
        assert not Path("run").exists()
        assert not Path("z.png").exists()
    assert "give --operator" in dmps("restore", "y.png", "-o", "z.png").err


def test_a_module_and_a_changed_file(dmps: Dmps, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("code")
    assert dmps("degrade", "../p.png", "--operator", "mine:Rows", "-o", "y.png").code == 0
    assert dmps("degrade", "../p.png", "--operator", "mine.py:Rows", "-o", "z.png").code == 0
    Path("mine.py").write_text(CODE + "\n# changed\n")
    result = dmps("restore", "z.png", "--operator", "mine.py:Rows", "-o", "x.png", *FAST)
    assert (result.code, "measured by another mine.py:Rows" in result.err) == (0, True)


@pytest.mark.parametrize(
    ("own", "said", "code"),
    [
        ("code/mine.py:square", "A is not linear", 1),
        ("code/mine.py:few", "takes (shape); expected (shape, dtype, device)", 1),
        ("code/mine.py:fails", "calling it raises KeyError: 'window'", 1),
        ("code/mine.py:number", "is an object of type int; expected a function", 1),
        ("code/mine.py:nothing", "there is no 'nothing'", 1),
        ("code/none.py:f", "No such file", 1),
        ("no_such_module:f", "ModuleNotFoundError", 1),
        ("code/mine.py", "expected FILE.py:NAME or package.module:NAME", 2),
    ],
)
def test_code_that_is_no_operator(dmps: Dmps, folder: Path, own: str, said: str, code: int) -> None:
    result = dmps("degrade", "p.png", "--operator", own, "-o", "y.png")
    assert (result.code, said in result.err, "Traceback" in result.err) == (code, True, False), result.err
    assert not list(Path().glob("y.*"))


def matrix(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, columns)) / np.sqrt(columns)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_matrix_and_floats_of_any_shape(dmps: Dmps, folder: Path, suffix: str, channels: int) -> None:
    """Of each channel or of all; y is K x of x.flatten() by NumPy, given as a bare array."""
    K = matrix(200, 16 * 24 * (3 if channels == 3 else 1))
    if suffix == ".npy":
        np.save("K.npy", K.astype(np.float32))
    else:
        sparse.save_npz("K.npz", sparse.coo_array(np.where(abs(K) > 0.02, K, 0.0)))
        K = sparse.load_npz("K.npz").toarray()
    own = ("--matrix", f"K{suffix}")
    x = (pixels("p.png").astype(np.float64) / 127.5 - 1.0).transpose(2, 0, 1)
    y = K @ x.flatten() if channels == 3 else x.reshape(3, -1) @ K.T
    assert dmps("degrade", "p.png", *own, "--sigma", "0", "-o", "m.png").code == 0
    np.testing.assert_allclose(np.load("m.npy"), y, atol=1e-4)
    np.save("y.npy", y.reshape(2, -1))
    shape = ("--image-shape", "3,16,24")
    result = dmps("restore", "y.npy", *own, *shape, "--sigma", "0.02", "-o", "x.png", *FAST)
    assert result.code == 0, result.err
    assert pixels("x.png").shape == (16, 24, 3)
    for arguments, said in (
        (("y.npy", *own, "--sigma", "0.02"), "say what x has with --image-shape"),
        (("y.npy", *own, *shape), "give --sigma"),
        (("y.npy", *own, "--image-shape", "3,16,25", "--sigma", "0.02"), "expected 1200 columns"),
        (("y.npy", *own, *shape, "--sigma", "0.02", "--task", "sr4"), "stands in place of a task"),
        (
            ("y.npy", *own, *shape, "--sigma", "0.02", "--method", "ddrm"),
            "needs a singular value decomposition, which this operator does not have; choose one of dmps",
        ),
    ):
        refused = dmps("restore", *arguments, "-o", "z.png", *FAST)
        assert (refused.code in (1, 2), said in refused.err) == (True, True), refused.err
        assert not Path("z.png").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("K.npy", np.full((4, 1152), np.nan), "NaN or infinity"),
        ("K.npy", np.zeros((4, 1152)), "A gives 0"),
        ("K.npy", np.ones(1152), "expected M x N real numbers"),
        ("K.npy", np.ones((4, 1152), dtype=complex), "expected M x N real numbers"),
        ("K.npz", b"PK\x03\x04 no archive", "is damaged"),
        ("K.txt", b"1 2 3", "expected .npz"),
    ],
)
def test_files_that_are_no_matrix(dmps: Dmps, folder: Path, name: str, content: np.ndarray | bytes, said: str) -> None:
    if isinstance(content, bytes):
        Path(name).write_bytes(content)
    else:
        np.save(name, content)
    result = dmps("degrade", "p.png", "--matrix", name, "-o", "y.png")
    assert (result.code in (1, 2), said in result.err, "Traceback" in result.err) == (True, True, False), result.err
    assert not list(Path().glob("y.*"))


def test_a_sparse_matrix_whose_indices_lie_outside(dmps: Dmps, folder: Path) -> None:
    good = sparse.csr_array(np.eye(4, 1152))
    np.savez("K.npz", format=b"csr", shape=good.shape, data=good.data, indices=good.indices + 5000, indptr=good.indptr)
    result = dmps("degrade", "p.png", "--matrix", "K.npz", "-o", "y.png")
    assert (result.code, "is damaged" in result.err) == (1, True), result.err


def test_noise_of_each_value(dmps: Dmps, folder: Path) -> None:
    """In grey levels of a picture, or as an array; in the sidecar afterwards; and by hand."""
    levels = np.full((16, 24), 4, np.uint8)
    levels[:, 12:] = 40
    from PIL import Image

    Image.fromarray(levels).save("s.png")
    assert dmps("degrade", "p.png", "-t", "denoise", "--sigma", "s.png", "-o", "y.png").code == 0
    clean = pixels("p.png").transpose(2, 0, 1) / 127.5 - 1.0
    noise = np.load("y.npy") - clean
    assert noise[..., :12].std() == pytest.approx(4 / 127.5, rel=0.1)
    assert noise[..., 12:].std() == pytest.approx(40 / 127.5, rel=0.1)
    Path("s.png").unlink()
    assert dmps("restore", "y.png", "-o", "x.png", "--preset", "fast").code == 0
    error = abs(pixels("x.png").transpose(2, 0, 1) / 127.5 - 1.0 - clean)
    assert error[..., :12].mean() < 0.5 * error[..., 12:].mean()
    facts = json.loads(Path("x.json").read_text())
    assert facts["sigma_origin"] == "of each value"
    np.save("s.npy", np.full((16, 24), 0.1))
    assert (
        dmps("restore", "p.png", "-t", "inpaint", "--fraction", "0.4", "--sigma", "s.npy", "-o", "i.png", *FAST).code
        == 0
    )
    for name, values, said in (
        ("zero.npy", np.zeros((3, 16, 24)), "holds 0; a standard deviation"),
        ("small.npy", np.ones((4, 5)), "and the measurement (3, 16, 24)"),
        ("nan.npy", np.full((3, 16, 24), np.nan), "expected finite real numbers"),
    ):
        np.save(name, values)
        refused = dmps("restore", "p.png", "-t", "denoise", "--sigma", name, "-o", "z.png", *FAST)
        assert (refused.code, said in refused.err) == (1, True), refused.err
        assert not Path("z.png").exists()
    assert dmps("restore", "p.png", "-t", "denoise", "--sigma", "none.npy", "-o", "z.png").code == 1


def test_eval_and_time_take_them(dmps: Dmps, folder: Path) -> None:
    Path("set").mkdir()
    photo(Path("set/p.png"), (16, 16))
    run = ("eval", "--dataset", "set", "--operator", "code/mine.py:Rows", "--no-images", "--json", *FAST)
    result = dmps(*run)
    assert result.code == 0, result.err
    (row,) = json.loads(result.out)["rows"]
    assert (row["task"], "Rows: linear" in result.err) == ("operator", True)
    few = ("--image-size", "16", "--repeats", "1", "--no-memory")
    timed = dmps("time", "--operator", "code/mine.py:Rows", *few, *FAST)
    assert (timed.code, "Rows: linear" in timed.err) == (0, True), timed.err
    assert dmps(*run, "--tasks", "sr4").code == 2


def test_an_operator_in_python(folder: Path) -> None:
    import dmps_cli as dmps

    A = dmps.operator("operator", (3, 16, 24), operator="code/mine.py:Rows")
    assert A.out_shape == (3, 8, 24)
    K = torch.randn(5, 384)
    np.save("K.npy", K.numpy())
    assert dmps.operator("matrix", (3, 16, 24), matrix="K.npy").out_shape == (3, 5)
