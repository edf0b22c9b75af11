"""Every kind of input: a sound one, the commands that read it, and how it is spoiled."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from tests.fuzz.mutations import (
    LONG,
    NUMBERS,
    OUTSIDE,
    TEXTS,
    any_value,
    json_of,
    special,
    spoiled_bytes,
    spoiled_json,
    spoiled_png,
    spoiled_tree,
    toml_of,
)
from tests.fuzz.trials import Command, Reader, Trial
from tests.shell import photo

GOOD = "in/good.png"
DEGRADE = "--task sr2 --sigma 0.05 --overwrite"
FAST = "--nfe 1"


def dmps(line: str) -> None:
    """Runs a command that makes sound inputs."""
    from dmps_cli.cli.main import app

    try:
        app(line.split())
    except SystemExit as exc:
        if exc.code:
            raise RuntimeError(f"dmps {line}: exit code {exc.code}") from exc


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
            colour.convert("L").convert(mode) if mode.startswith(("I", "F")) else colour.convert(mode)
            shown = colour.convert("L").convert(mode) if mode.startswith(("I", "F")) else colour.convert(mode)
            shown.save(file, **{"format": "PNG", **options, **several})
        except (OSError, ValueError, KeyError, AttributeError, SystemError):
            continue
        return suffix, file.getvalue()
    return "png", Path(GOOD).read_bytes()


def spoil_picture(trial: Trial, rng: Random) -> None:
    os.chdir(trial.folder)
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


def build_pictures() -> None:
    photo(Path(GOOD), (16, 16))
    photo(Path("in/bad.png"), (16, 16), seed=1)


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
    os.chdir(trial.folder)
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

# --- Arrays


def build_arrays() -> None:
    build_pictures()
    values = np.random.default_rng(0).uniform(-1, 1, (3, 16, 16)).astype(np.float32)
    np.save("in/bad.npy", values)
    np.save("in/good.npy", values)


SHAPES = ("(3, 16, 16)", "(16, 16)", "(16, 16, 3)", "()", "(0,)", "(1, 3, 16, 16)", "(-1, 5)", "(99999999999, 99999999999)", "(3, 1, 1)")
SHAPES = (*SHAPES, "(200000, 20000)", "(3, 16, 16, 1, 1)", "(True,)", "(1.5,)", "'x'", "(9" * 2000, "[3, 16, 16]", "(" * 3000, "None")
TYPES = ("<f4", "<f8", ">f8", "<f2", "<i4", "|b1", "|O", "<c16", "|S5", "<U3", "<M8[s]", "|V4", "f16", "nonsense", "<f4,<f4", "<f9")


def spoil_array(trial: Trial, rng: Random) -> None:
    os.chdir(trial.folder)
    path = Path("in/bad.npy")
    change = rng.randrange(8)
    if change == 0:
        special(path, rng)
    elif change in (1, 2):
        path.write_bytes(spoiled_bytes(path.read_bytes(), rng))
    elif change == 3:
        header = f"{{'descr': {rng.choice(TYPES)!r}, 'fortran_order': {rng.choice(('False', 'True', '1'))}, 'shape': {rng.choice(SHAPES)}, }}"
        text = rng.choice((header, header[: rng.randrange(len(header))], "{" * 3000, "__import__('os')", "{'descr': [('a', 'b')]}"))
        version = rng.choice((b"\x01\0", b"\x02\0", b"\x03\0", b"\x09\0"))
        length = struct.pack("<H" if version[0] == 1 else "<I", min(len(text) + 1, 65535))
        path.write_bytes(b"\x93NUMPY" + version + length + text.encode() + b"\n" + b"\0" * rng.choice((0, 12, 3072, 4096)))
    elif change == 4:
        array = np.load("in/good.npy").astype(rng.choice(("f8", "f4", "f2", "i4", "c8", "u1", "bool")))
        if array.dtype.kind == "f" and rng.random() < 0.7:
            with np.errstate(all="ignore"):
                array.flat[rng.randrange(array.size)] = float(rng.choice([n for n in NUMBERS if isinstance(n, float)]))
        np.save(path, rng.choice((array, array[0], array.transpose(1, 2, 0), array[:2], array[:, :1, :1], array * 0)))
    elif change == 5:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(rng.choice(("a.npy", "../../outside/keep.png", "")), rng.choice((b"", path.name.encode(), b"\0" * 10**7)))
    elif change == 6:
        path.write_bytes(pickle.dumps({"a": 1}) if rng.random() < 0.5 else b"cos\nsystem\n(S'touch outside/pwned'\ntR.")
    else:
        np.savez(path.with_suffix(".x"), a=np.zeros(3))
        path.with_suffix(".x.npz").rename(path)


ARRAYS = Reader(
    name="array",
    build=build_arrays,
    commands=(
        Command(f"restore in/bad.npy in/good.npy --task denoise --sigma 0.1 {FAST} -o out/", keeps=("out/good_restored.png",)),
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
    os.chdir(trial.folder)
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
        Command(f"degrade in/y.png --task denoise -o out/x.png"),
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
    os.chdir(trial.folder)
    names = [rng.choice((*TEXTS, "good.png", "in/good.png", "./good.png", "bad.png", "*", "[", "**")) for _ in range(rng.choice((1, 2, 50)))]
    data = rng.choice(("\n", "\r\n", "\r", "\0", "\u2028")).join(names).encode(errors="surrogateescape" if rng.random() < 0.5 else "replace")
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

# --- Evaluations


def build_run() -> None:
    build_pictures()
    dmps(f"eval --dataset in --tasks denoise,inpaint --fraction 0.2 {FAST} --samples 2 --out out/run --quiet")


def mended_config(content: Any) -> Any:
    """With the hash that belongs to it."""
    from dmps_cli.runs import config_hash

    if isinstance(content, dict) and isinstance(content.get("config"), dict):
        try:
            content["config_sha256"] = config_hash(content["config"])
        except (ValueError, TypeError, RecursionError):
            pass
    return content


def spoil_run(trial: Trial, rng: Random) -> None:
    os.chdir(trial.folder)
    run = Path("out/run")
    change = rng.random()
    if change < 0.35:
        path = run / "config.json"
        path.write_bytes(spoiled_json(path.read_bytes(), rng, mended_config))
    elif change < 0.8:
        path = run / "rows.jsonl"
        lines = path.read_bytes().splitlines()
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(len(lines))
            if rng.random() < 0.3:
                row = json.loads(lines[at]) if lines[at].startswith(b"{") else {}
                row = row if isinstance(row, dict) else {}
                row[rng.choice(("image", "task", "method", "model", "image"))] = rng.choice((*OUTSIDE, *TEXTS))
                lines[at] = json_of(row).replace(b"\n", b" ")
            else:
                lines[at] = rng.choice((spoiled_json, spoiled_bytes))(lines[at] if lines[at].startswith(b"{") else b"{}", rng).replace(b"\n", b" ")
        path.write_bytes(b"\n".join(lines) + rng.choice((b"\n", b"\n", b"")))
        if rng.random() < 0.1:
            path.rename(run / rng.choice(("rows.1.jsonl", "rows.1of2.jsonl", "rows.9999999999of2.1.jsonl")))
    elif change < 0.88:
        path = run / "results.json"
        path.write_bytes(spoiled_json(path.read_bytes(), rng))
    else:
        special(rng.choice([*run.rglob("*.png"), run / "rows.jsonl", run / "config.json", run / "restored", run / "results.json"]), rng)


RUNS = Reader(
    name="run",
    build=build_run,
    commands=(
        Command("eval --merge out/run --out out/merged"),
        Command("eval --merge out/run --out out/merged --json"),
        Command("eval --merge out/run --compare paper"),
        Command(f"eval --dataset in --tasks denoise,inpaint --fraction 0.2 {FAST} --samples 2 --out out/run"),
        Command(f"eval --dataset in --tasks denoise {FAST} --out out/run --overwrite"),
    ),
    spoil=spoil_run,
    writes=("out/run", "out/merged"),
    weight=3.0,
)

# --- Tables

TABLE = {
    "x": {
        "about": "a",
        "architecture": "ncsnpp",
        "sampler": "flow",
        "config": {"image_size": 16, "nf": 16, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [8]},
        "path": "in/x.safetensors",
        "licence": "mine",
    },
    "y": {
        "about": "b",
        "architecture": "adm",
        "config": {"image_size": 32, "num_channels": 32, "num_res_blocks": 1, "attention_resolutions": "16", "channel_mult": "1,2"},
        "sources": [{"url": "https://127.0.0.1:9/y.pt"}, {"repo": "a/b", "file": "y.pt"}, {"gdrive": "abc"}],
        "sha256": "0" * 64,
        "size": 1000,
    },
}


def build_table() -> None:
    build_pictures()
    Path("w.toml").write_bytes(toml_of(TABLE))


def spoil_table(trial: Trial, rng: Random) -> None:
    os.chdir(trial.folder)
    path, change = Path("w.toml"), rng.random()
    if change < 0.05:
        special(path, rng)
    elif change < 0.2:
        path.write_bytes(spoiled_bytes(path.read_bytes(), rng))
    else:
        path.write_bytes(toml_of(spoiled_tree(json.loads(json.dumps(TABLE)), rng)))


TABLES = Reader(
    name="weights table",
    build=build_table,
    commands=(
        Command("models list --weights-file w.toml"),
        Command("models list --json --weights-file w.toml"),
        Command("models show x --weights-file w.toml"),
        Command("models show y --weights-file w.toml"),
        Command("models show natural --weights-file w.toml"),
        Command("time --model y --random-weights --image-size 32 --nfe 1 --repeats 1 --weights-file w.toml"),
    ),
    spoil=spoil_table,
    weight=2.0,
)

DATA = {"small": {"about": "flat", "repo": "owner/small", "split": "train", "column": "image", "licence": "free", "where": {"kind": 1}}}


def build_data() -> None:
    import pyarrow.parquet

    build_pictures()
    Path("d.toml").write_bytes(toml_of(DATA))
    os.environ["DMPS_DATASETS"] = "d.toml"
    from dmps_cli.hub_datasets import data_cards

    folder = data_cards()["small"].location
    cells = [{"bytes": Path(name).read_bytes(), "path": name} for name in (GOOD, "in/bad.png")]
    file = folder / "data/train-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.table({"image": cells, "kind": [1, 1]}), file)
    listing = {"id": "owner/small", "sha": "0" * 40, "siblings": [{"rfilename": "data/train-00000-of-00001.parquet"}]}
    (folder / "hub.json").write_text(json.dumps(listing))
    Path("where.txt").write_text(str(folder.relative_to(Path.cwd())))


def spoil_data(trial: Trial, rng: Random) -> None:
    os.chdir(trial.folder)
    folder = Path(Path("where.txt").read_text())
    change = rng.random()
    if change < 0.4:
        table = spoiled_bytes(Path("d.toml").read_bytes(), rng) if rng.random() < 0.2 else toml_of(spoiled_tree(json.loads(json.dumps(DATA)), rng))
        Path("d.toml").write_bytes(table)
    elif change < 0.6:
        path = folder / "hub.json"
        path.write_bytes(spoiled_json(path.read_bytes(), rng))
    elif change < 0.75:
        rows = json_of(spoiled_tree({"rows": 2, "kept": [0, 1]}, rng))
        (folder / "data/train-00000-of-00001.parquet.rows.json").write_bytes(rows)
    elif change < 0.92:
        path = folder / "data/train-00000-of-00001.parquet"
        path.write_bytes(spoiled_bytes(path.read_bytes(), rng))
    else:
        special(rng.choice((Path("d.toml"), folder / "hub.json", folder / "data/train-00000-of-00001.parquet")), rng)


DATASETS = Reader(
    name="data set",
    build=build_data,
    commands=(Command(f"eval --dataset small --tasks denoise --limit 1 {FAST} --offline --out out/run"),),
    spoil=spoil_data,
    environment={"DMPS_DATASETS": "d.toml"},
)

# --- Checkpoints


class Evil:
    """Pickled, it asks for a program to be run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch outside/pwned",)


def build_checkpoints() -> None:
    import torch
    from safetensors.torch import save_file

    from dmps_cli.checkpoints import random_state

    build_pictures()
    table = {name: dict(TABLE["y"]) for name in ("zip", "legacy", "safe")}
    state = random_state("adm", TABLE["y"]["config"], "y")  # type: ignore[arg-type]
    for name, path in {"zip": "in/x.pt", "legacy": "in/x.pth", "safe": "in/x.safetensors"}.items():
        for key in ("sources", "sha256", "size"):
            table[name].pop(key)
        table[name]["path"] = path
    Path("w.toml").write_bytes(toml_of(table))
    small = {name: value * 0.02 for name, value in state.items()}
    torch.save({"ema": small, "step": 1}, "in/x.pt")
    torch.save({"state_dict": small}, "in/x.pth", _use_new_zipfile_serialization=False)
    save_file(small, "in/x.safetensors", {"terms": "mine"})


def _checkpoint(trial: Trial) -> Path:
    names = {"zip": "in/x.pt", "legacy": "in/x.pth", "safe": "in/x.safetensors"}
    return Path(next((names[argument] for argument in trial.arguments if argument in names), "in/x.safetensors"))


def spoil_checkpoint(trial: Trial, rng: Random) -> None:
    os.chdir(trial.folder)
    path = _checkpoint(trial)
    data = path.read_bytes()
    if rng.random() < 0.05:
        special(path, rng)
    elif path.suffix == ".safetensors" and rng.random() < 0.7:
        (length,) = struct.unpack("<Q", data[:8])
        header = json_of(_spoiled_header(json.loads(data[8 : 8 + length]), rng))
        path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
    elif path.suffix == ".pt" and rng.random() < 0.8:
        path.write_bytes(_spoiled_zip(data, rng))
    elif rng.random() < 0.15:
        import torch

        torch.save(rng.choice(({"ema": Evil()}, Evil(), [], None, {"state_dict": {"a": 1}}, {"model": [Evil()]})), path, _use_new_zipfile_serialization=path.suffix != ".pth")
    else:
        path.write_bytes(spoiled_bytes(data, rng))


def _spoiled_header(header: dict[str, Any], rng: Random) -> Any:
    names = [name for name in header if name != "__metadata__"]
    few = {name: header[name] for name in rng.sample(names, 3)}
    spoiled = spoiled_tree({**few, "__metadata__": dict(header["__metadata__"])}, rng)
    return {**header, **spoiled} if isinstance(spoiled, dict) and rng.random() < 0.8 else spoiled


def _spoiled_zip(data: bytes, rng: Random) -> bytes:
    """The archive with members spoiled, swapped, blown up, named otherwise."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in members if name.endswith("data.pkl"))
    change = rng.randrange(7)
    if change in (0, 1):
        members[pickled] = spoiled_bytes(members[pickled], rng)
    elif change == 2:
        members[pickled] = rng.choice((pickle.dumps(Evil(), 2), b"\x80\x02c__builtin__\neval\nX\x01\0\0\0a\x85R.", b"\x80\x02" + b"(" * 10**6, b""))
    elif change == 3:
        members[rng.choice(sorted(members))] = b"\0" * rng.choice((0, 3, 10**8))
    elif change == 4:
        members = {name.replace("archive", rng.choice(("../outside", "/tmp", "", "a/b"))): body for name, body in members.items()}
    elif change == 5:
        del members[rng.choice(sorted(members))]
    else:
        name = rng.choice(sorted(members))
        members[name] = spoiled_bytes(members[name] or b"\0", rng)
    file, packing = io.BytesIO(), rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, body in members.items():
            archive.writestr(name or "x", body)
    return file.getvalue()


CHECKPOINTS = Reader(
    name="checkpoint",
    build=build_checkpoints,
    commands=(
        *(Command(f"models show {name} --weights-file w.toml") for name in ("zip", "safe")),
        *(Command(f"restore {GOOD} --task denoise --model {name} --weights-file w.toml {FAST} -o out/x.png") for name in ("zip", "legacy", "safe", "zip")),
        Command("models show in/x.safetensors --weights-file w.toml"),
        Command("models show in/x.pt --weights-file w.toml"),
        Command("models verify safe --weights-file w.toml"),
    ),
    spoil=spoil_checkpoint,
    weight=2.0,
)


def build_folder() -> None:
    import diffusers

    build_pictures()
    net = diffusers.UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    net.save_pretrained("in/net")
    diffusers.DDPMScheduler().save_pretrained("in/net")


def spoil_folder(trial: Trial, rng: Random) -> None:
    os.chdir(trial.folder)
    folder = Path("in/net")
    name = rng.choice(("config.json", "config.json", "scheduler_config.json", "scheduler_config.json", "diffusion_pytorch_model.safetensors"))
    path = folder / name
    if rng.random() < 0.06:
        special(path, rng)
    elif name.endswith(".json"):
        path.write_bytes(spoiled_json(path.read_bytes(), rng))
    else:
        path.write_bytes(spoiled_bytes(path.read_bytes(), rng))


FOLDERS = Reader(
    name="diffusers folder",
    build=build_folder,
    commands=(
        Command("models show in/net"),
        Command(f"restore {GOOD} --task denoise --model in/net {FAST} -o out/x.png"),
    ),
    spoil=spoil_folder,
)

# --- Training


def build_large_pictures() -> None:
    build_pictures()
    for k in range(2, 5):
        photo(Path(f"in/{k}.png"), (40, 40), seed=k)


def build_training() -> None:
    build_large_pictures()
    dmps("train in -o out/t.safetensors --minutes 0.004 --size small --batch 1 --crop 32 --quiet")


def spoil_training(trial: Trial, rng: Random) -> None:
    os.chdir(trial.folder)
    path = Path(rng.choice(("out/t.safetensors", "out/t.safetensors.state", "out/t.safetensors.state", "in/3.png")))
    data = path.read_bytes()
    if rng.random() < 0.08:
        special(path, rng)
    elif path.suffix == ".png" or rng.random() < 0.3:
        path.write_bytes(spoiled_bytes(data, rng))
    else:
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        facts = header["__metadata__"]
        name = rng.choice(sorted(facts))
        try:
            facts[name] = spoiled_json(facts[name].encode(), rng).decode(errors="replace")
        except ValueError:
            facts[name] = rng.choice(TEXTS)[:500]
        spoiled = json_of(header if rng.random() < 0.7 else _spoiled_header(header, rng))
        path.write_bytes(struct.pack("<Q", len(spoiled)) + spoiled + data[8 + length :])


TRAININGS = Reader(
    name="training",
    build=build_training,
    commands=(
        Command("train in --resume out/t.safetensors --minutes 0.005"),
        Command("train in --init out/t.safetensors -o out/u.safetensors --minutes 0.002 --batch 1 --crop 32"),
    ),
    spoil=spoil_training,
    weight=0.5,
)

# --- Names


def spoil_names(trial: Trial, rng: Random) -> None:
    os.chdir(trial.folder)
    stem = rng.choice((*TEXTS, "=cmd", "-rf", "--help", "*", "[a]", "a b", "\x1b]0;t\x07", "\udcff\udcfe", "good_restored"))[:200]
    name = (stem.replace("/", "_").replace("\0", "") or "x") + rng.choice((".png", ".PNG", ".jpg", ""))
    try:
        Path("in/bad.png").rename(Path("in") / os.fsdecode(os.fsencode(name)))
    except (OSError, UnicodeEncodeError):
        return
    named = str(Path("in") / name)
    trial.arguments = [named if argument == "in/bad.png" else argument for argument in trial.arguments]


NAMES = Reader(
    name="name",
    build=build_pictures,
    commands=(
        Command(f"degrade in/bad.png {GOOD} {DEGRADE} -o out/"),
        Command(f"degrade in {DEGRADE} -o out/"),
        Command(f"restore in --task denoise {FAST} --reference in -o out/"),
        Command(f"eval --dataset in --tasks denoise {FAST} --out out/run", keeps=("out/run/restored",)),
    ),
    spoil=spoil_names,
)

# --- Options and environment

BARE = (
    f"degrade {GOOD} -o out/y.png --task sr4",
    f"degrade {GOOD} -o out/y.png --task denoise",
    f"degrade {GOOD} -o out/y.png --task inpaint --fraction 0.5",
    f"restore {GOOD} -o out/x.png --task denoise {FAST}",
    f"restore {GOOD} -o out/x.png --task deblur {FAST}",
    f"eval --dataset in --tasks sr2,denoise {FAST} --out out/run",
    "time --image-size 32 --nfe 1 --repeats 1",
    "models list",
    "models show natural",
    "models path natural",
    "models verify natural",
    "models fetch natural",
    "train in -o out/t.safetensors --minutes 0.002 --size small --batch 1 --crop 32",
    "tasks",
    "doctor",
    "demo -o out/demo --nfe 1",
)
SMALL_TEXTS = tuple(text for text in TEXTS if "\0" not in text and len(text) < 100_000)


def _options(command: str) -> list[Any]:
    """The options of a command, as Typer has them."""
    import typer

    from dmps_cli.cli.main import app

    group: Any = typer.main.get_command(app)
    words = command.split()
    found = group.commands[words[0]]
    found = found.commands[words[1]] if hasattr(found, "commands") else found
    return [option for option in found.params if option.param_type_name == "option" and option.name not in ("help", "minutes", "steps")]


def spoil_options(trial: Trial, rng: Random) -> None:
    os.chdir(trial.folder)
    options = _options(" ".join(trial.arguments))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not options:
            break
        option = rng.choice(options)
        value = rng.choice((*SMALL_TEXTS, *(str(n) if n != LONG else "9" * 5000 for n in NUMBERS if n != LONG and abs(n) < 10**31 or n == LONG)))
        value = value.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") if "\ud800" not in value else "x"
        is_flag = getattr(option, "is_flag", False)
        trial.arguments += [option.opts[0]] if is_flag else [option.opts[0], value]
    if rng.random() < 0.1:
        trial.arguments.insert(rng.randrange(len(trial.arguments) + 1), rng.choice(SMALL_TEXTS).replace("\ud800", ""))


OPTIONS = Reader(
    name="option",
    build=build_large_pictures,
    commands=tuple(Command(line) for line in BARE if not line.startswith(("doctor", "demo"))),
    spoil=spoil_options,
    weight=3.0,
)

VARIABLES = (
    *("DMPS_CACHE", "DMPS_WEIGHTS", "DMPS_DATASETS", "DMPS_MAX_PIXELS", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN", "HF_HOME", "HOME"),
    *("XDG_CACHE_HOME", "TMPDIR", "TORCH_HOME", "COLUMNS", "LINES", "TERM", "NO_COLOR", "FORCE_COLOR", "LANG", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "_TYPER_STANDARD_TRACEBACK"),
)


def spoil_environment(trial: Trial, rng: Random) -> None:
    os.chdir(trial.folder)
    for _ in range(rng.choice((1, 1, 2))):
        value = rng.choice((*SMALL_TEXTS, "1", "2", "out/new", "/proc/self/nothing", "in/good.png", "http://127.0.0.1:9")).replace("\ud800", "")
        trial.environment[rng.choice(VARIABLES)] = value
    if "WORLD_SIZE" not in trial.environment and rng.random() < 0.2:
        trial.environment["TORCHELASTIC_RUN_ID"] = "x"


ENVIRONMENTS = Reader(
    name="environment",
    build=build_pictures,
    commands=(
        Command(f"degrade {GOOD} -o out/y.png --task sr4"),
        Command(f"restore {GOOD} -o out/x.png --task denoise {FAST} --model natural"),
        Command(f"eval --dataset in --tasks sr2 {FAST} --out out/run"),
        Command("models list"),
        Command("models path natural"),
        Command("models show natural"),
    ),
    spoil=spoil_environment,
)

# --- Hosts


def build_host() -> None:
    build_pictures()
    Path("w.toml").write_bytes(toml_of({"x": {**TABLE["x"], "path": "in/good.png"}}))
    Path("d.toml").write_bytes(toml_of(DATA))


def spoil_host(trial: Trial, rng: Random) -> None:
    os.chdir(trial.folder)
    seed, host = rng.randrange(10**9), f"http://127.0.0.1:{os.environ['FUZZ_PORT']}"
    name = rng.choice(("x.pt", "x\u00e9.pt", "..", "x%2f..%2fy.pt", "x?a=/../y"))
    sources = [{"url": f"{host}/{seed}/{name}"}, {"repo": f"a/b{seed}", "file": "y.pt"}]
    rng.shuffle(sources)
    table = {key: value for key, value in TABLE["x"].items() if key != "path"}
    folder = {"about": "c", "architecture": "diffusers", "sources": [{"repo": f"a/b{seed}"}], "files": ["config.json", "x.safetensors"]}
    Path("w.toml").write_bytes(toml_of({"x": {**table, "sources": sources[: rng.choice((1, 2))]}, "folder": folder}))
    Path("d.toml").write_bytes(toml_of({"small": {**DATA["small"], "repo": f"owner/small{seed}"}}))
    trial.environment |= {"HF_ENDPOINT": host, "HF_HUB_OFFLINE": "0", "DMPS_DATASETS": "d.toml"}
    line = rng.choice(
        (
            "models fetch x --weights-file w.toml",
            "models fetch x --weights-file w.toml",
            "models fetch folder --weights-file w.toml",
            f"eval --dataset small --tasks denoise --limit 1 {FAST} --out out/run",
        )
    )
    trial.arguments = line.split()


HOSTS = Reader(
    name="host",
    build=build_host,
    commands=(Command("models list --weights-file w.toml"),),
    spoil=spoil_host,
    weight=2.0,
)

READERS = {
    reader.name: reader
    for reader in (PICTURES, MASKS, ARRAYS, SIDECARS, LISTS, RUNS, TABLES, DATASETS, CHECKPOINTS, FOLDERS, TRAININGS, NAMES, OPTIONS, ENVIRONMENTS, HOSTS)
}
