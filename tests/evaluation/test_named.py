"""Named data sets: real parquet files on a host that plays the Hub, and what of them is fetched, written, refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from dmps_cli.errors import InputError, OutputError, WeightsError
from dmps_cli.evaluation import named
from dmps_cli.evaluation.data_cards import data_card, data_cards
from dmps_cli.evaluation.pictures import list_pictures
from dmps_cli.evaluation.shards import Link, shards
from dmps_cli.files.atomic import atomic_write
from dmps_cli.files.cache import cache_dir
from tests.shell import Dmps, Heard

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHARDS = [f"data/train-{k:05d}-of-00003-abcdef.parquet" for k in range(3)]
TABLE = """
[small]
about = "flat pictures"
repo = "owner/small"
split = "train"
licence = "free to all"
"""


def picture(row: int, kind: str = "PNG") -> bytes:
    """A flat picture of 24 x 16 px, another for each row."""
    file = io.BytesIO()
    Image.new("RGB", (24, 16), (row, 2 * row, 3 * row)).save(file, kind)
    return file.getvalue()


def shard(cells: list[Any], column: str = "image", **columns: list[Any]) -> bytes:
    """A parquet file as the Hub's have it: a struct of bytes and path; row groups of two."""
    if all(isinstance(cell, bytes) for cell in cells):
        cells = [{"bytes": cell, "path": f"{k}.png"} for k, cell in enumerate(cells)]
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({column: cells, **columns}), file, row_group_size=2)
    return file.getvalue()


@dataclass(kw_only=True)
class Host:
    """The Hub with one data set; counts what is asked for."""

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    seen: list[tuple[str, str | None]] = field(default_factory=list)  # (file or "listing", Range)
    sent: Counter[str] = field(default_factory=Counter)  # bytes of each file
    cuts: dict[str, int] = field(default_factory=dict)  # so many bytes, then the connection is cut, once
    has_ranges: bool = True
    refusal: str = ""
    paths: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)

    def put(self, *shards: bytes) -> None:
        self.files |= dict(zip(SHARDS, shards, strict=True))

    @property
    def fetched(self) -> list[str]:
        """The shards of which anything was sent, in their order."""
        return list(dict.fromkeys(file for file, _ in self.seen if file != "listing"))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host: Host

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        host = self.host
        host.paths.append(self.path)
        host.tokens.add(self.headers.get("Authorization"))
        asked = self.headers.get("Range")
        if self.path == "/api/datasets/owner/small/revision/main?blobs=true":
            host.seen.append(("listing", asked))
            self.send(json.dumps({"id": "owner/small", "sha": COMMIT, "siblings": self.siblings()}).encode(), {})
            return
        if host.refusal:
            self.send(b"", {"X-Error-Code": host.refusal}, 403)
            return
        if self.path.startswith(f"/api/datasets/owner/small/revision/{COMMIT}"):
            self.send(json.dumps({"id": "owner/small", "sha": COMMIT}).encode(), {})
            return
        if tree := re.match(rf"/api/datasets/owner/small/tree/{COMMIT}/?([^?]*)", self.path):
            self.send(json.dumps(self.tree(unquote(tree[1]))).encode(), {"Content-Type": "application/json"})
            return
        file = self.path.removeprefix(f"/datasets/owner/small/resolve/{COMMIT}/")
        host.seen.append((file, asked))
        if file not in host.files:
            self.send(b"", {}, 404)
            return
        content = host.files[file]
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        begin, end = map(int, asked.removeprefix("bytes=").split("-")) if asked and host.has_ranges else (0, 10**9)
        body = content[begin : end + 1]
        if len(body) < len(content):
            headers["Content-Range"] = f"bytes {begin}-{begin + len(body) - 1}/{len(content)}"
        host.sent[file] += len(body)
        self.send(body, headers, 206 if len(body) < len(content) else 200, host.cuts.pop(file, None))

    def tree(self, folder: str) -> list[dict[str, Any]]:
        """As the Hub lists a folder at a commit."""
        return [
            {
                "type": "file",
                "path": file,
                "size": len(content),
                "oid": "1",
                "lfs": {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 100},
            }
            for file, content in self.host.files.items()
            if str(Path(file).parent) == (folder or ".")
        ]

    def siblings(self) -> list[dict[str, Any]]:
        """A small file is not in the large-file store, and the Hub knows no sha256 of it."""
        large = [
            {
                "rfilename": file,
                "size": len(content),
                "lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 100},
            }
            for file, content in self.host.files.items()
        ]
        return [{"rfilename": "README.md", "size": 10, "blobId": "1"}, *reversed(large)]

    def send(self, body: bytes, headers: dict[str, str], status: int = 200, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:cut])
        self.close_connection = cut is not None


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Three shards of four rows, the table that names them, and no home folder, proxy or token."""
    from huggingface_hub import constants

    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("HF_", "DMPS_", "XDG_CACHE")):
            monkeypatch.delenv(name)
    served = Host()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"host": served})) as server:
        served.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        for name, value in (
            ("HF_ENDPOINT", f"http://127.0.0.1:{served.port}"),
            ("DMPS_CACHE", str(tmp_path / "cache")),
        ):
            monkeypatch.setenv(name, value)
        for name in ("HF_HOME", "HF_HUB_CACHE", "HF_TOKEN_PATH"):
            monkeypatch.setattr(constants, name, str(tmp_path / name))
        (tmp_path / "mine.toml").write_text(TABLE)
        monkeypatch.setenv("DMPS_DATASETS", str(tmp_path / "mine.toml"))
        monkeypatch.chdir(tmp_path)
        served.put(*(shard([picture(row) for row in range(start, start + 4)]) for start in (0, 4, 8)))
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def table(host: Host, tmp_path: Path) -> Callable[[str], None]:
    """Adds lines to the table of the data set."""

    def add(lines: str) -> None:
        (tmp_path / "mine.toml").write_text(TABLE + lines)

    return add


def listed(tmp_path: Path, *names: str) -> Path:
    path = tmp_path / "list.txt"
    path.write_text("\n".join(names))
    return path


# Rows and shards


def test_all_rows_are_written_byte_for_byte(host: Host) -> None:
    pictures = list_pictures("small")
    assert [*pictures] == [f"{row:05d}.png" for row in range(12)]
    assert [path.read_bytes() for path in pictures.values()] == [picture(row) for row in range(12)]
    assert host.fetched == SHARDS


@pytest.mark.parametrize(("limit", "num_shards"), [(1, 1), (4, 1), (5, 2), (9, 3), (99, 3)])
def test_a_limit_fetches_the_shards_of_its_rows(host: Host, limit: int, num_shards: int) -> None:
    assert [*list_pictures("small", limit=limit)] == [f"{row:05d}.png" for row in range(min(limit, 12))]
    assert host.fetched == SHARDS[:num_shards]
    assert len([*cache_dir().rglob("*.png")]) == min(limit, 12)


def test_rows_of_the_table(host: Host, table: Callable[[str], None]) -> None:
    table("rows = [2, 5]")
    assert [*list_pictures("small")] == [f"{row:05d}.png" for row in range(2, 6)]
    assert host.fetched == SHARDS[:2]
    table("rows = [12, 13]")
    with pytest.raises(InputError, match=r"has none of the rows .* it has 12 in all"):
        list_pictures("small")


def test_a_condition_keeps_its_rows(host: Host, table: Callable[[str], None]) -> None:
    host.put(*(shard([picture(k) for k in range(start, start + 4)], label=[0, 1, 1, 0]) for start in (0, 4, 8)))
    table("where = { label = 0 }")
    assert [*list_pictures("small", limit=3)] == ["00000.png", "00003.png", "00004.png"]
    assert host.fetched == SHARDS[:2]
    table("where = { class = 0 }")
    with pytest.raises(InputError, match=r"no column 'class' in train-00000.*it has image, label"):
        list_pictures("small")


def test_a_list_fetches_up_to_its_last_row(host: Host, tmp_path: Path) -> None:
    names = listed(tmp_path, "00006.png", "00001.png")
    pictures = list_pictures("small", names)
    assert [*pictures] == ["00001.png", "00006.png"]
    assert pictures["00006.png"].read_bytes() == picture(6)
    assert host.fetched == SHARDS[:2]
    assert [*list_pictures("small", names, limit=1)] == ["00001.png"]


@pytest.mark.parametrize("name", ["cat.png", "1.png", "00012.gif.png"])
def test_a_name_that_cannot_be_there_costs_no_download(host: Host, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' is no picture of small; they are named by their rows, 00000.png"):
        list_pictures("small", listed(tmp_path, "00001.png", name))
    assert not host.seen


@pytest.mark.parametrize("name", ["00012.png", "00001.jpg"])
def test_a_name_that_is_not_there(host: Host, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' is no picture of small"):
        list_pictures("small", listed(tmp_path, "00001.png", name))


def test_suffixes_follow_the_bytes(host: Host) -> None:
    kinds = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif", "GIF": "gif"}
    host.files = {"train.parquet": shard([picture(5, kind) for kind in kinds])}
    assert [*list_pictures("small")] == [f"{k:05d}.{suffix}" for k, suffix in enumerate(kinds.values())]


def test_a_column_of_bytes(host: Host, table: Callable[[str], None]) -> None:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"png": [picture(3), picture(4)]}), file)
    host.files = {"default/train/0000.parquet": file.getvalue()}
    table('column = "png"')
    assert [path.read_bytes() for path in list_pictures("small").values()] == [picture(3), picture(4)]


# Which shards


def test_several_kinds_of_a_split_must_be_told_apart(host: Host, table: Callable[[str], None]) -> None:
    host.files |= {"raw/train-00000-of-00001.parquet": shard([picture(9)])}
    with pytest.raises(InputError, match=r"several kinds of 'train'; say with the key `files`"):
        list_pictures("small")
    table('files = "raw/*.parquet"')
    assert [path.read_bytes() for path in list_pictures("small").values()] == [picture(9)]


def test_a_shard_that_the_listing_lacks(host: Host) -> None:
    del host.files[SHARDS[1]]
    with pytest.raises(InputError, match=r"lists 2 of 3 shards of 'train'"):
        list_pictures("small")


def test_a_split_that_is_not_there(host: Host) -> None:
    Path(os.environ["DMPS_DATASETS"]).write_text(TABLE.replace("train", "test"))
    with pytest.raises(InputError, match=r"no shards of the split 'test'; its parquet files: data/train-00002"):
        list_pictures("small")


# Once, again, without network


def test_a_second_time_nothing_is_asked_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    first = list_pictures("small", limit=6)
    host.seen.clear()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for parquet in cache_dir().rglob("*.parquet"):
        parquet.unlink()  # the pictures are enough
    assert list_pictures("small", limit=6, link=Link(offline=True)) == first
    assert list_pictures("small", limit=2) == {name: first[name] for name in ("00000.png", "00001.png")}
    assert not host.seen


def test_more_rows_of_a_shard_need_what_holds_them(host: Host) -> None:
    """Row groups of two: the second row is there in the first's, which is read anew; the third needs another."""
    list_pictures("small", limit=1)
    before = host.sent.total()
    list_pictures("small", limit=2)
    again = host.sent.total() - before
    list_pictures("small", limit=4)
    assert 0 < again < before + again < host.sent.total()
    host.seen.clear()
    assert len(list_pictures("small", limit=4, link=Link(offline=True))) == 4
    assert not host.seen


def test_of_a_large_shard_only_the_rows_needed_are_read(host: Host, table: Callable[[str], None]) -> None:
    """120 row groups of two pictures of 20,000 bytes: for one picture a group and the footer; labels are read apart."""
    pictures = [picture(k) + random.Random(k).randbytes(20_000) for k in range(240)]
    content = shard(pictures, label=[int(k == 101) for k in range(240)])
    host.files = {"train.parquet": content}
    told: list[tuple[int, int | None]] = []
    listener = Heard(told=lambda done, total: told.append((done, total)))
    (first,) = list_pictures("small", limit=1, link=Link(listener=listener)).values()
    assert first.read_bytes() == pictures[0]
    assert 40_000 < host.sent.total() < 2 * 65_536 + 50_000  # two footers
    assert len(content) > 4_800_000
    assert told[-1][0] == told[-1][1]
    host.sent.clear()
    table("where = { label = 1 }")
    assert [path.read_bytes() for path in list_pictures("small").values()] == [pictures[101]]
    assert 40_000 < host.sent.total() < 2 * 65_536 + 50_000


def test_a_whole_shard_that_is_here_is_used(host: Host) -> None:
    """As a copy by hand; another than the one listed is said, and left alone."""
    list_pictures("small", limit=1)
    (folder,) = (cache_dir() / "datasets").iterdir()
    whole = folder / SHARDS[1]
    whole.write_bytes(host.files[SHARDS[1]])
    host.seen.clear()
    assert len(list_pictures("small", limit=8)) == 8
    assert host.fetched == SHARDS[:1]
    (folder / SHARDS[2]).write_bytes(b"PAR1")
    with pytest.raises(WeightsError, match=r"train-00002.* has 4 bytes, \d+ are due; delete it"):
        list_pictures("small")


def test_of_two_that_ask_at_once_one_reads(host: Host) -> None:
    found: list[dict[str, Path]] = []
    asking = [threading.Thread(target=lambda: found.append(list_pictures("small", limit=4))) for _ in range(2)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert found[0] == found[1]
    pictures = [asked for file, asked in host.seen if file == SHARDS[0] and asked and asked.startswith("bytes=4-")]
    assert len(pictures) == 1


def test_offline_says_what_is_missing(host: Host) -> None:
    with pytest.raises(WeightsError, match=r"hub.json is not there and offline was asked for; run `dmps eval"):
        list_pictures("small", link=Link(offline=True))
    list_pictures("small", limit=4)
    with pytest.raises(WeightsError, match=r"train-00001-of-00003-abcdef.parquet is not there and offline was asked"):
        list_pictures("small", limit=5, link=Link(offline=True))
    assert host.fetched == SHARDS[:1]


def test_a_read_that_is_cut_is_asked_for_again(host: Host) -> None:
    host.cuts[SHARDS[0]] = 300
    notes: list[str] = []
    list_pictures("small", limit=1, link=Link(listener=Heard(notes.append)))
    asked = [asked for file, asked in host.seen if file == SHARDS[0]]
    assert asked[0] == asked[1]
    assert notes[0].startswith(
        "small: 1 pictures of owner/small/data/train-00000-of-00003-abcdef.parquet (0.0 MB); free"
    )


def test_a_commit_that_moves_on_does_not_move_the_rows(host: Host) -> None:
    before = list_pictures("small", limit=1)
    host.put(*(shard([picture(99)] * 4) for _ in range(3)))
    assert list_pictures("small", limit=1) == before
    with pytest.raises(WeightsError, match=r"bytes there|sha256"):
        list_pictures("small", limit=5)


def test_killed_between_two_pictures(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def killed(target: Path, content: bytes, *, overwrite: bool) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        atomic_write(target, content, overwrite=overwrite)
        written.extend([target] if target.suffix == ".png" else [])

    with monkeypatch.context() as patch:
        patch.setattr(named, "atomic_write", killed)
        with pytest.raises(KeyboardInterrupt):
            list_pictures("small", limit=4)
    assert sorted(path.name for path in written[0].parent.iterdir()) == ["00000.png", "00001.png"]
    assert [path.read_bytes() for path in list_pictures("small", limit=4).values()] == [picture(k) for k in range(4)]


def test_the_token_is_sent(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    list_pictures("small", limit=1)
    assert host.tokens == {"Bearer hf_secret"}


# What is refused


def test_a_wrong_column(host: Host, table: Callable[[str], None]) -> None:
    table('column = "picture"')
    with pytest.raises(InputError, match=r"no column 'picture' in train-00000.*; it has image; correct its table"):
        list_pictures("small")


@pytest.mark.parametrize("cell", [b"no picture", None, 7, {"bytes": None, "path": "a.png"}])
def test_a_cell_that_is_no_picture(host: Host, cell: object) -> None:
    cells = {"bytes": cell, "path": "a.png"} if isinstance(cell, bytes) else cell
    host.files = {"train.parquet": shard([cells])}
    with pytest.raises(InputError, match=r"row 0 of the data set small is no picture in 'image'"):
        list_pictures("small")


def test_a_shard_that_is_no_parquet_file(host: Host) -> None:
    host.put(b"PAR1 not", *(host.files[name] for name in SHARDS[1:]))
    with pytest.raises(InputError, match=r"cannot read the parquet file Hub owner/.*train-00000.*: .*magic bytes"):
        list_pictures("small")


def test_a_host_that_sends_no_ranges(host: Host) -> None:
    host.has_ranges = False
    with pytest.raises((InputError, WeightsError), match=r"^cannot read .*Hub owner/small/data/train-00000.*"):
        list_pictures("small")
    assert not [*cache_dir().rglob("*.png")]


def test_what_the_hub_refuses(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the listing and the reading."""
    card = data_card("small")
    assert card is not None
    shards(card, Link())
    monkeypatch.setattr(Handler, "tree", lambda self, folder: [])
    with pytest.raises(WeightsError, match=r"cannot read Hub owner/small/data/train-00000.*: the Hub does not have it"):
        list_pictures("small", limit=1)
    monkeypatch.setattr(Handler, "tree", lambda self, folder: [{"type": "file"}])
    with pytest.raises(WeightsError, match=r"cannot read Hub owner/.*: the Hub's listing is damaged"):
        list_pictures("small", limit=1)
    host.refusal = "GatedRepo"
    with pytest.raises(
        WeightsError, match=r"HTTP 403, the repository is gated; accept its terms on .*owner/small, then"
    ):
        list_pictures("small", limit=1)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"cannot read Hub owner/small.*onnection refused.*; run `dmps eval"):
        list_pictures("small", limit=1)


def test_a_listing_that_is_none(host: Host) -> None:
    list_pictures("small", limit=1)
    (path,) = cache_dir().rglob("hub.json")
    path.with_name("hub.json.json").unlink()
    path.write_text("[]")
    with pytest.raises(InputError, match=r"hub\.json is no listing of the Hub; delete it"):
        list_pictures("small", limit=1)


def test_without_pyarrow_nothing_is_downloaded(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        InputError, match=r"the data set small needs pyarrow to read parquet files: pip install pyarrow"
    ):
        list_pictures("small")
    assert not host.fetched


def test_a_data_set_that_the_hub_does_not_have(host: Host) -> None:
    Path(os.environ["DMPS_DATASETS"]).write_text(TABLE.replace("owner/small", "owner/none"))
    with pytest.raises(WeightsError, match=r"cannot download hub.json: Hub owner/none: HTTP 404, no such data set"):
        list_pictures("small")


def test_a_cache_that_cannot_be_written(host: Host, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(OutputError, match=r"DMPS_CACHE"):
        list_pictures("small")


# The table


def test_the_table_that_comes_with_dmps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DMPS_DATASETS", raising=False)
    cards = data_cards()
    assert {"ffhq", "celebahq"} <= cards.keys()
    assert (cards["ffhq"].repo, cards["ffhq"].rows) == ("merkol/ffhq-256", (0, 999))
    assert (cards["celebahq"].repo, cards["celebahq"].split) == ("mattymchen/celeba-hq", "validation")
    assert all(card.source.startswith("https://") and card.licence for card in cards.values())
    assert all(len(card.revision) == 40 for card in cards.values())


def test_a_table_of_ones_own_adds_and_replaces(host: Host, table: Callable[[str], None]) -> None:
    table('[ffhq]\nabout = "mine"\nrepo = "me/faces"\nsplit = "test"')
    cards = data_cards()
    assert (cards["ffhq"].repo, cards["small"].column) == ("me/faces", "image")
    assert "celebahq" in cards


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("rows = [3, 1]", r"\[small\]: rows is \[3, 1\]"),
        ("rows = [true, 1]", r"rows\[0\] is True"),
        ('colum = "x"', "unknown key colum; known are about, column"),
        ("column = 3", "column is 3"),
        ('where = { label = ["a"] }', "a value of where is wrong"),
        ("[other]\nabout = 'x'\nrepo = 'a/b'", r"\[other\]: split is missing"),
        ("[other]\nabout = 'x'\nsplit = 'x'\nrepo = '../b/c'", "repo is '../b/c'"),
        ("[samples]\nabout = 'x'\nsplit = 'x'\nrepo = 'a/b'", "and not 'samples'"),
        ("[x", "cannot read the data sets of"),
    ],
)
def test_a_table_is_checked(host: Host, table: Callable[[str], None], lines: str, said: str) -> None:
    table(lines)
    names = re.findall(r"\[(\w+)\]", lines) or ["small"]
    with pytest.raises(InputError, match=said):
        data_card(names[0])
    if said.startswith("cannot"):
        return
    assert names[0] not in data_cards()
    assert "ffhq" in data_cards()
    with pytest.raises(InputError, match="is not a folder; name one, or samples, ffhq"):  # the others go on
        list_pictures("none")


# The command


EVAL = ("eval", "--tasks", "denoise", "--methods", "dmps", "--nfe", "2", "--json", "--quiet")


def test_a_name_goes_before_a_folder(host: Host, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "mine.png").write_bytes(picture(1))
    notes: list[str] = []
    assert [*list_pictures("small", limit=1, link=Link(listener=Heard(notes.append)))] == ["00000.png"]
    assert notes[0] == "small is the data set of that name; the folder is ./small"
    assert [*list_pictures("./small")] == ["mine.png"]


def test_an_unknown_name_lists_the_known(host: Host) -> None:
    with pytest.raises(
        InputError, match=r"the data set smal is not a folder; name one, or samples, ffhq, celebahq.*small"
    ):
        list_pictures("smal")


def test_eval_of_a_named_data_set(host: Host, dmps: Dmps) -> None:
    result = dmps(*EVAL, "--dataset", "small", "--limit", "3", "--shard", "1/2", "--image-size", "16", "--fit", "crop")
    assert result.code == 0
    content = json.loads(result.out)
    assert content["dataset"] == "small"
    assert content["dataset_origin"] == {"repo": "owner/small", "commit": COMMIT, "split": "train", "column": "image"}
    assert {row["image"] for row in content["rows"]} < {"00000.png", "00001.png", "00002.png"}
    assert host.fetched == SHARDS[:1]
    again = dmps(*EVAL, "--dataset", "small", "--limit", "3", "--image-size", "16", "--fit", "crop", "--offline")
    assert again.code == 0
    assert len(json.loads(again.out)["rows"]) == 3


def test_eval_offline_says_so_in_a_line(host: Host, dmps: Dmps) -> None:
    result = dmps(*EVAL, "--dataset", "small", "--offline")
    assert result.code == 1
    assert result.err.startswith("dmps: error: ")
    assert result.err.count("\n") == 1
    assert not host.seen
