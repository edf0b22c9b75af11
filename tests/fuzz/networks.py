"""Readers of checkpoints, diffusers folders and trainings."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutations import (
    TEXTS,
    json_of,
    special,
    spoiled_bytes,
    spoiled_json,
    spoiled_tree,
    toml_of,
)
from tests.fuzz.sound import FAST, GOOD, build_large_pictures, build_pictures, dmps
from tests.fuzz.tables import TABLE
from tests.fuzz.trials import Command, Reader, Trial

# --- Checkpoints


class Evil:
    """Pickled, it asks for a program to be run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch outside/pwned",)


def build_checkpoints() -> None:
    import torch
    from safetensors.torch import save_file

    from dmps_cli.weights.building import random_state

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

        torch.save(
            rng.choice(({"ema": Evil()}, Evil(), [], None, {"state_dict": {"a": 1}}, {"model": [Evil()]})),
            path,
            _use_new_zipfile_serialization=path.suffix != ".pth",
        )
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
        members[pickled] = rng.choice(
            (
                pickle.dumps(Evil(), 2),
                b"\x80\x02c__builtin__\neval\nX\x01\0\0\0a\x85R.",
                b"\x80\x02" + b"(" * 10**6,
                b"",
            )
        )
    elif change == 3:
        members[rng.choice(sorted(members))] = b"\0" * rng.choice((0, 3, 10**8))
    elif change == 4:
        members = {
            name.replace("archive", rng.choice(("../outside", "/tmp", "", "a/b"))): body
            for name, body in members.items()
        }
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
        *(
            Command(f"restore {GOOD} --task denoise --model {name} --weights-file w.toml {FAST} -o out/x.png")
            for name in ("zip", "legacy", "safe", "zip")
        ),
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
    folder = Path("in/net")
    name = rng.choice(
        (
            "config.json",
            "config.json",
            "scheduler_config.json",
            "scheduler_config.json",
            "diffusion_pytorch_model.safetensors",
        )
    )
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


def build_training() -> None:
    build_large_pictures()
    dmps("train in -o out/t.safetensors --steps 3 --size small --batch 1 --crop 32 --quiet")


def spoil_training(trial: Trial, rng: Random) -> None:
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
        Command("train in --resume out/t.safetensors --steps 5"),
        Command("train in --init out/t.safetensors -o out/u.safetensors --steps 2 --batch 1 --crop 32"),
    ),
    spoil=spoil_training,
    weight=0.5,
)
