"""Readers of evaluations, tables of checkpoints and of data sets."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutations import (
    OUTSIDE,
    TEXTS,
    json_of,
    special,
    spoiled_bytes,
    spoiled_json,
    spoiled_tree,
    toml_of,
)
from tests.fuzz.sound import FAST, GOOD, build_pictures, dmps
from tests.fuzz.trials import Command, Reader, Trial

# --- Evaluations


def build_run() -> None:
    build_pictures()
    dmps(f"eval --dataset in --tasks denoise,inpaint --fraction 0.2 {FAST} --samples 2 --out out/run --quiet")


def mended_config(content: Any) -> Any:
    """With the hash that belongs to it."""
    from dmps_cli.evaluation.configuration import config_hash

    if isinstance(content, dict) and isinstance(content.get("config"), dict):
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            content["config_sha256"] = config_hash(content["config"])
    return content


def _spoiled_row(line: bytes, rng: Random) -> bytes:
    change = rng.random()
    if change < 0.3:
        name = rng.choice(("image", "task", "method", "model", "image"))
        return json_of({**json.loads(line), name: rng.choice((*OUTSIDE, *TEXTS))})
    return spoiled_json(line, rng) if change < 0.8 else spoiled_bytes(line, rng)


def spoil_run(trial: Trial, rng: Random) -> None:
    run = Path("out/run")
    change = rng.random()
    if change < 0.35:
        path = run / "config.json"
        path.write_bytes(spoiled_json(path.read_bytes(), rng, mended_config))
    elif change < 0.8:
        path = run / "rows.jsonl"
        lines = path.read_bytes().splitlines()
        for at in rng.sample(range(len(lines)), rng.choice((1, 1, 2, 3))):
            lines[at] = _spoiled_row(lines[at], rng).replace(b"\n", b" ")
        path.write_bytes(b"\n".join(lines) + rng.choice((b"\n", b"\n", b"")))
        if rng.random() < 0.1:
            path.rename(run / rng.choice(("rows.1.jsonl", "rows.1of2.jsonl", "rows.9999999999of2.1.jsonl")))
    elif change < 0.88:
        path = run / "results.json"
        path.write_bytes(spoiled_json(path.read_bytes(), rng))
    else:
        special(
            rng.choice(
                [*run.rglob("*.png"), run / "rows.jsonl", run / "config.json", run / "restored", run / "results.json"]
            ),
            rng,
        )


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
        "config": {
            "image_size": 32,
            "num_channels": 32,
            "num_res_blocks": 1,
            "attention_resolutions": "16",
            "channel_mult": "1,2",
        },
        "sources": [{"url": "https://127.0.0.1:9/y.pt"}, {"repo": "a/b", "file": "y.pt"}, {"gdrive": "abc"}],
        "sha256": "0" * 64,
        "size": 1000,
    },
}


def build_table() -> None:
    build_pictures()
    Path("w.toml").write_bytes(toml_of(TABLE))


def spoil_table(trial: Trial, rng: Random) -> None:
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

DATA = {
    "small": {
        "about": "flat",
        "repo": "owner/small",
        "split": "train",
        "column": "image",
        "licence": "free",
        "where": {"kind": 1},
    }
}


def build_data() -> None:
    import pyarrow.parquet

    build_pictures()
    Path("d.toml").write_bytes(toml_of(DATA))
    os.environ["DMPS_DATASETS"] = "d.toml"
    from dmps_cli.evaluation.data_cards import data_cards

    folder = data_cards()["small"].location
    cells = [{"bytes": Path(name).read_bytes(), "path": name} for name in (GOOD, "in/bad.png")]
    file = folder / "data/train-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.table({"image": cells, "kind": [1, 1]}), file)
    listing = {"id": "owner/small", "sha": "0" * 40, "siblings": [{"rfilename": "data/train-00000-of-00001.parquet"}]}
    (folder / "hub.json").write_text(json.dumps(listing))
    Path("where.txt").write_text(str(folder.relative_to(Path.cwd())))


def spoil_data(trial: Trial, rng: Random) -> None:
    folder = Path(Path("where.txt").read_text())
    change = rng.random()
    if change < 0.4:
        table = (
            spoiled_bytes(Path("d.toml").read_bytes(), rng)
            if rng.random() < 0.2
            else toml_of(spoiled_tree(json.loads(json.dumps(DATA)), rng))
        )
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
