"""Readers of pictures, masks, kernels, arrays, sidecars and lists of names."""

from __future__ import annotations

import base64
import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from tests.fuzz.mutations import (
    NUMBERS,
    TEXTS,
    json_of,
    special,
    spoiled_bytes,
    spoiled_json,
    spoiled_png,
)
from tests.fuzz.sound import DEGRADE, FAST, GOOD, build_pictures, dmps
from tests.fuzz.trials import Command, Reader, Trial

# --- Pictures

FORMATS: dict[str, dict[str, Any]] = {
    "png": {},
    "jpg": {"format": "JPEG", "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
    "jfif": {"format": "JPEG", "progressive": True},
    "webp": {"format": "WEBP"},
    "tif": {"format": "TIFF"},
    "tiff": {"format": "TIFF", "compression": "tiff_deflate"},
    "bmp": {"format": "BMP"},
    "gif": {"format": "GIF"},
    "ppm": {"format": "PPM"},
    "tga": {"format": "TGA"},
    "jp2": {"format": "JPEG2000"},
    "avif": {"format": "AVIF"},
    "ico": {"format": "ICO"},
    "pcx": {"format": "PCX"},
    "sgi": {"format": "SGI"},
    "dds": {"format": "DDS"},
    "im": {"format": "IM"},
    "msp": {"format": "MSP"},
    "xbm": {"format": "XBM"},
    "icns": {"format": "ICNS"},
    "mpo": {"format": "MPO"},
    "eps": {"format": "EPS"},
    "pdf": {"format": "PDF"},
    "spi": {"format": "SPIDER"},
}
MODES = ("RGB", "RGB", "L", "1", "P", "LA", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr", "LAB")


def encoded(rng: Random) -> tuple[str, bytes]:
    """(suffix, bytes) of a small picture in some format and mode."""
    colour = Image.open(GOOD).convert("RGB").resize((rng.choice((1, 2, 15, 16)), 16))
    for _ in range(20):
        suffix, options = rng.choice([*FORMATS.items()])
        mode, file = rng.choice(MODES), io.BytesIO()
        try:
            several = {"save_all": True, "append_images": [colour]} if rng.random() < 0.1 else {}
            shown = colour.convert("L").convert(mode) if mode.startswith(("I", "F")) else colour.convert(mode)
            shown.save(file, **{"format": "PNG", **options, **several})
        except (OSError, ValueError, KeyError, AttributeError, SystemError):
            continue
        return suffix, file.getvalue()
    return "png", Path(GOOD).read_bytes()


def spoil_picture(trial: Trial, rng: Random) -> None:
    suffix, data = encoded(rng)
    path = Path(f"in/bad.{suffix}")
    change = rng.random()
    spoil = spoiled_png if suffix == "png" and change < 0.7 else spoiled_bytes
    path.write_bytes(data if change < 0.05 else spoil(data, rng))
    if rng.random() < 0.05:
        special(path, rng)
    if rng.random() < 0.05:
        wrong = path.with_suffix("." + rng.choice([*FORMATS, "npy", "json", "txt"]))
        path.rename(wrong) if wrong != path else None
        path = wrong
    trial.arguments = [str(path) if argument == "in/bad.png" else argument for argument in trial.arguments]
    for name in ("in/bad.png", "in/bad.png.json"):
        if Path(name) != path:
            Path(name).unlink(missing_ok=True)


PICTURES = Reader(
    name="picture",
    build=build_pictures,
    commands=(
        Command(f"degrade in/bad.png {GOOD} {DEGRADE} -o out/", keeps=("out/good_sr2.png",)),
        Command(f"degrade in/bad.png {GOOD} {DEGRADE} -o out/", keeps=("out/good_sr2.png",)),
        Command(f"degrade in/bad.png {GOOD} {DEGRADE} -o out/", keeps=("out/good_sr2.png",)),
        Command(f"restore in/bad.png {GOOD} --task denoise {FAST} -o out/", keeps=("out/good_restored.png",)),
        Command(f"restore {GOOD} --task denoise --reference in/bad.png {FAST} -o out/x.png"),
        Command(f"eval --dataset in --tasks denoise {FAST} --out out/run", keeps=("out/run/restored",)),
    ),
    spoil=spoil_picture,
    weight=4.0,
)


# --- Masks


def build_mask() -> None:
    build_pictures()
    keep = np.ones((16, 16), dtype=bool)
    keep[3:7, 4:9] = False
    Image.fromarray(keep).save("in/mask.png")


def spoil_mask(trial: Trial, rng: Random) -> None:
    path = Path("in/mask.png")
    if rng.random() < 0.1:
        special(path, rng)
        return
    suffix, data = (".png", path.read_bytes()) if rng.random() < 0.6 else encoded(rng)
    path.write_bytes(spoiled_png(data, rng) if suffix == ".png" and rng.random() < 0.7 else spoiled_bytes(data, rng))


MASKS = Reader(
    name="mask",
    build=build_mask,
    commands=(
        Command(f"degrade {GOOD} --task inpaint --mask in/mask.png --overwrite -o out/y.png"),
        Command(f"restore {GOOD} --task inpaint --mask in/mask.png {FAST} -o out/x.png"),
    ),
    spoil=spoil_mask,
)


# --- Kernels

KERNELS = ("gauss:3", "uniform:9", "aniso:20,1", "motion:15,30", "defocus:4.5")


def build_kernels() -> None:
    from scipy.io import savemat

    build_pictures()
    kernel = np.outer(*[np.hanning(7)] * 2) + 0.01
    np.save("in/k.npy", kernel)
    np.savez("in/k.npz", k=kernel, other=kernel[:3, :3])
    savemat("in/k.mat", {"k": kernel, "other": kernel[:3, :3]})
    savemat("in/k4.mat", {"k": kernel}, format="4")
    Image.fromarray((255 * kernel / kernel.max()).astype(np.uint8)).save("in/k.png")


def spoil_kernel(trial: Trial, rng: Random) -> None:
    at = trial.arguments.index("--kernel") + 1
    path = Path(trial.arguments[at].partition(":")[0])
    change = rng.random()
    if change < 0.1:
        special(path, rng)
    elif change < 0.25:
        kind = rng.choice(KERNELS).partition(":")[0]
        numbers = [
            str(rng.choice((*(n for n in NUMBERS if isinstance(n, float)), 3, 30, 10**9)))
            for _ in range(rng.choice((0, 1, 2, 3)))
        ]
        trial.arguments[at] = f"{kind}:{','.join(numbers)}"
    elif change < 0.45 and path.suffix == ".npy":
        kernel = np.load(path)
        kernel.flat[rng.randrange(kernel.size)] = rng.choice([n for n in NUMBERS if isinstance(n, float)])
        np.save(
            path,
            rng.choice(
                (
                    kernel,
                    kernel[:0],
                    kernel[:6, :6],
                    kernel * 0,
                    -kernel,
                    kernel[0],
                    np.ones((300, 1)),
                    kernel.astype("c8"),
                )
            ),
        )
    elif path.suffix == ".png" and change < 0.8:
        path.write_bytes(spoiled_png(path.read_bytes(), rng))
    else:
        path.write_bytes(spoiled_bytes(path.read_bytes(), rng))
    if rng.random() < 0.2:
        trial.arguments += ["--boundary", rng.choice(("valid", "zero", "reflect", "replicate", "circular"))]


KERNEL_FILES = Reader(
    name="kernel",
    build=build_kernels,
    commands=(
        *(
            Command(f"degrade {GOOD} --task blur --kernel in/{name} -o out/y.png")
            for name in ("k.png", "k.npy", "k.npz:k", "k.mat:k", "k4.mat")
        ),
        Command(f"restore {GOOD} --task blur --kernel in/k.png {FAST} -o out/x.png"),
        Command(f"degrade {GOOD} --task blur --kernel in/k.npy --kernel-as-is -o out/y.png"),
    ),
    spoil=spoil_kernel,
)


# --- Arrays


def build_arrays() -> None:
    build_pictures()
    values = np.random.default_rng(0).uniform(-1, 1, (3, 16, 16)).astype(np.float32)
    np.save("in/bad.npy", values)
    np.save("in/good.npy", values)


SHAPES = (
    *("(3, 16, 16)", "(16, 16)", "(16, 16, 3)", "()", "(0,)", "(1, 3, 16, 16)", "(-1, 5)", "(3, 1, 1)", "(True,)"),
    *("(99999999999, 99999999999)", "(200000, 20000)", "(3, 16, 16, 1, 1)", "(1.5,)", "'x'", "[3, 16, 16]", "None"),
    *("(9" * 2000, "(" * 3000),
)
TYPES = (
    *("<f4", "<f8", ">f8", "<f2", "<i4", "|b1", "|O", "<c16", "|S5", "<U3", "<M8[s]", "|V4", "f16", "nonsense"),
    *("<f4,<f4", "<f9"),
)


def spoil_array(trial: Trial, rng: Random) -> None:
    path = Path("in/bad.npy")
    change = rng.randrange(8)
    if change == 0:
        special(path, rng)
    elif change in (1, 2):
        path.write_bytes(spoiled_bytes(path.read_bytes(), rng))
    elif change == 3:
        facts = (f"'descr': {rng.choice(TYPES)!r}", "'fortran_order': " + rng.choice(("False", "True", "1")))
        header = f"{{{', '.join(facts)}, 'shape': {rng.choice(SHAPES)}, }}"
        text = rng.choice(
            (header, header[: rng.randrange(len(header))], "{" * 3000, "__import__('os')", "{'descr': [('a', 'b')]}")
        )
        version = rng.choice((b"\x01\0", b"\x02\0", b"\x03\0", b"\x09\0"))
        length = struct.pack("<H" if version[0] == 1 else "<I", min(len(text) + 1, 65535))
        path.write_bytes(
            b"\x93NUMPY" + version + length + text.encode() + b"\n" + b"\0" * rng.choice((0, 12, 3072, 4096))
        )
    elif change == 4:
        array = np.load("in/good.npy").astype(rng.choice(("f8", "f4", "f2", "i4", "c8", "u1", "bool")))
        if array.dtype.kind == "f" and rng.random() < 0.7:
            with np.errstate(all="ignore"):
                array.flat[rng.randrange(array.size)] = float(rng.choice([n for n in NUMBERS if isinstance(n, float)]))
        np.save(path, rng.choice((array, array[0], array.transpose(1, 2, 0), array[:2], array[:, :1, :1], array * 0)))
    elif change == 5:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(
                rng.choice(("a.npy", "../../outside/keep.png")), rng.choice((b"", path.name.encode(), b"\0" * 10**7))
            )
    elif change == 6:
        path.write_bytes(pickle.dumps({"a": 1}) if rng.random() < 0.5 else b"cos\nsystem\n(S'touch outside/pwned'\ntR.")
    else:
        np.savez(path.with_suffix(".x"), a=np.zeros(3))
        path.with_suffix(".x.npz").rename(path)


ARRAYS = Reader(
    name="array",
    build=build_arrays,
    commands=(
        Command(
            f"restore in/bad.npy in/good.npy --task denoise --sigma 0.1 {FAST} -o out/",
            keeps=("out/good_restored.png",),
        ),
        Command(f"restore in/bad.npy --task inpaint --box 2,2,4,4 {FAST} -o out/x.png"),
    ),
    spoil=spoil_array,
    weight=2.0,
)


# --- Sidecars


def build_sidecar() -> None:
    build_mask()
    dmps(f"degrade {GOOD} --task inpaint --mask in/mask.png -o in/y.png --quiet")
    dmps(f"degrade {GOOD} --task sr2 -o in/good_y.png --quiet")


def spoil_sidecar(trial: Trial, rng: Random) -> None:
    path = Path("in/y.json")
    change = rng.random()
    if change < 0.06:
        special(Path(rng.choice(("in/y.json", "in/y.npy", "in/y.png"))), rng)
    elif change < 0.2:
        content = json.loads(path.read_bytes())
        mask = spoiled_png(base64.b64decode(content["mask"]), rng)
        content["mask"] = rng.choice((base64.b64encode(mask).decode(), "!" + content["mask"], content["mask"] * 50))
        path.write_bytes(json_of(content))
    elif change < 0.3:
        Path("in/y.npy").write_bytes(spoiled_bytes(Path("in/y.npy").read_bytes(), rng))
    else:
        path.write_bytes(spoiled_json(path.read_bytes(), rng))


SIDECARS = Reader(
    name="sidecar",
    build=build_sidecar,
    commands=(
        Command(f"restore in/y.png in/good_y.png {FAST} -o out/", keeps=("out/good_y_restored.png",)),
        Command(f"restore in/y.npy in/good_y.npy {FAST} -o out/", keeps=("out/good_y_restored.png",)),
        Command(f"restore in/y.json {FAST} -o out/x.png"),
        Command(f"restore in/y.png --reference {GOOD} --sigma 0.1 {FAST} -o out/x.png --json"),
        Command("degrade in/y.png --task denoise -o out/x.png"),
        Command(f"restore in {FAST} --task denoise -o out/ --skip-existing"),
    ),
    spoil=spoil_sidecar,
    weight=3.0,
)


# --- Lists


def build_list() -> None:
    build_pictures()
    Path("list.txt").write_text("good.png\nbad.png\n")


def spoil_list(trial: Trial, rng: Random) -> None:
    names = [
        rng.choice((*TEXTS, "good.png", "in/good.png", "./good.png", "bad.png", "*", "[", "**"))
        for _ in range(rng.choice((1, 2, 50)))
    ]
    between = rng.choice(("\n", "\n", "\r\n", "\r", "\0", "\u2028"))
    data = between.join(names).encode(errors="surrogatepass" if rng.random() < 0.5 else "replace")
    if rng.random() < 0.1:
        data = b"good.png\n" * 200_000
    trial.stdin = data
    if rng.random() < 0.15:
        special(Path("list.txt"), rng)
    else:
        Path("list.txt").write_bytes(data)


LISTS = Reader(
    name="list",
    build=build_list,
    commands=(
        Command(f"eval --dataset in --list list.txt --tasks denoise {FAST} --out out/run"),
        Command(f"degrade {GOOD} - --task sr2 -o out/ --skip-existing"),
    ),
    spoil=spoil_list,
    stdin=b"in/bad.png\n",
)
