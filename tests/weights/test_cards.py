"""Checkpoints by name and by path: the table, downloads from a local host, the commands around them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from dmps_cli.errors import InputError
from dmps_cli.files.atomic import sha256_file
from dmps_cli.files.cache import cache_dir
from dmps_cli.files.images import load_rgb
from dmps_cli.methods.choice import resolve_sampling
from dmps_cli.nets.adm import ADM, ADMConfig
from dmps_cli.nets.ncsnpp import NCSNpp, NCSNppConfig
from dmps_cli.operators.measurement import Measurement
from dmps_cli.pipeline import restore
from dmps_cli.priors import DDPMPrior
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import build, resolve
from dmps_cli.weights import cards as weights
from dmps_cli.weights.building import network_of
from dmps_cli.weights.reading import safetensors_of
from tests.conftest import GOLDEN, golden_json
from tests.rule import rule_tensor
from tests.shell import Dmps, break_import, photo, pixels

ADM_1 = golden_json("nets/adm_1")
FAST = ("--nfe", "2", "--sigma", "0.05")


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder and remembers what was asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        """As the library does it."""
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[tuple[Path, str, list[str]]]:
    """(a folder, the address where it is served, the paths asked for)."""
    folder = tmp_path / "served"
    folder.mkdir()
    asked: list[str] = []
    handler = type("Served", (Handler,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMPS_CACHE", str(tmp_path / "cache"))
    for name in ("DMPS_WEIGHTS", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def adm_state() -> dict[str, torch.Tensor]:
    """Rule weights of the golden network."""
    return {key: rule_tensor(key, tuple(shape)) for key, shape in ADM_1["state_dict"].items()}


def toml(name: str, config: dict[str, Any], **entries: Any) -> str:
    """A table of a checkpoint."""
    lines = [f"[{name}]", 'about = "a test"', *(f"{key} = {json.dumps(value)}" for key, value in entries.items())]
    return "\n".join([*lines, f"[{name}.config]", *(f"{key} = {json.dumps(value)}" for key, value in config.items())])


def tiny_table(file: Path, **entries: Any) -> None:
    """mine.toml: the golden ADM as 'tiny'."""
    file.write_text(toml("tiny", ADM_1["config"], architecture="adm", image_size=32, clip_denoised=False, **entries))


# Downloads, end to end -----------------------------------------------------------------------------------------------


def test_a_named_checkpoint_is_fetched_and_used(dmps: Dmps, tmp_path: Path, host: tuple[Path, str, list[str]]) -> None:
    """The restoration is that of the golden network in this process; later runs need no host."""
    folder, address, asked = host
    torch.save(adm_state(), folder / "tiny.pt")
    source = f'sources = [{{ url = "{address}/tiny.pt" }}]\nwarning = "mind the cat"\n'
    tiny_table(tmp_path / "mine.toml")
    table = (tmp_path / "mine.toml").read_text().replace("[tiny.config]", source + "[tiny.config]")
    (tmp_path / "mine.toml").write_text(table)
    photo(tmp_path / "p.png", (32, 32))
    model = ("--model", "tiny", "--weights-file", "mine.toml")

    assert dmps("models", "path", "tiny", "--weights-file", "mine.toml").code == 1
    first = dmps("restore", "p.png", "--task", "denoise", "-o", "a.png", *model, *FAST)
    assert first.code == 0, first.err
    assert "mind the cat" in first.err
    assert asked == ["/tiny.pt"]
    listed = json.loads(dmps("models", "list", "--json", "--weights-file", "mine.toml").out)
    assert {row["name"]: row["state"] for row in listed["models"]}["tiny"] == "cached"
    sidecar = json.loads(Path("a.json").read_text())
    assert sidecar["model_sha256"] == sha256_file(folder / "tiny.pt")

    network = ADM(ADMConfig.from_reference(ADM_1["config"], "golden"))
    network.load_state_dict(adm_state())
    prior = DDPMPrior(network.eval(), learned_range=True, clip_denoised=False)
    op = build("denoise", resolve("denoise", OperatorOptions()), (3, 32, 32), dtype=torch.float32)
    y = load_rgb(tmp_path / "p.png").pixels[None]
    x = restore(Measurement(y, op, 0.05), prior, resolve_sampling(task="denoise", nfe=2), seed=0, keys=[(0, 0)])
    ours = torch.from_numpy(pixels("a.png").astype(np.float32)).permute(2, 0, 1) / 127.5 - 1.0
    torch.testing.assert_close(ours, x[0].clamp(-1, 1), rtol=0, atol=1.01 / 255)

    again = dmps("restore", "p.png", "--task", "denoise", "-o", "b.png", "--offline", *model, *FAST)
    assert again.code == 0, again.err
    assert asked == ["/tiny.pt"]
    np.testing.assert_array_equal(pixels("a.png"), pixels("b.png"))
    cached = tmp_path / "cache" / "tiny" / "tiny.pt"
    assert dmps("models", "path", "tiny", "--weights-file", "mine.toml").out.strip() == str(cached)
    assert dmps("models", "verify", "tiny", "--weights-file", "mine.toml").code == 0
    assert dmps("models", "fetch", "tiny", "--offline", "--weights-file", "mine.toml").code == 0
    cached.unlink()
    gone = dmps("restore", "p.png", "--task", "denoise", "-o", "c.png", "--offline", *model, *FAST)
    assert (gone.code, "dmps models fetch tiny" in gone.err) == (1, True)


def test_no_command_brings_a_file_of_ones_own(dmps: Dmps, tmp_path: Path) -> None:
    tiny_table(tmp_path / "mine.toml")
    table = (tmp_path / "mine.toml").read_text().replace("[tiny.config]", 'path = "mine.pt"\n[tiny.config]')
    (tmp_path / "mine.toml").write_text(table)
    for command in ("path", "verify", "fetch"):
        result = dmps("models", command, "tiny", "--weights-file", "mine.toml")
        assert (result.code, "mine.pt" in result.err, "fetch tiny brings" in result.err) == (1, True, False), result.err


def served(host: tuple[Path, str, list[str]], table: Path, name: str, state: dict[str, torch.Tensor]) -> None:
    """A checkpoint on the host, and mine.toml that names it as 'tiny'."""
    folder, address, _ = host
    torch.save(state, folder / name)
    tiny_table(table)
    source = f'sources = [{{ url = "{address}/{name}" }}]\n'
    table.write_text(table.read_text().replace("[tiny.config]", source + "[tiny.config]"))


def test_another_file_is_never_served(dmps: Dmps, tmp_path: Path, host: tuple[Path, str, list[str]]) -> None:
    """Not when the table names another source, nor when the cached file is replaced by hand."""
    photo(tmp_path / "p.png", (32, 32))
    table, other = tmp_path / "mine.toml", {key: 0.5 * value for key, value in adm_state().items()}
    flags = ("restore", "p.png", "--task", "denoise", "--model", "tiny", "--weights-file", "mine.toml", *FAST)
    served(host, table, "v1.pt", adm_state())
    assert dmps(*flags, "-o", "a.png").code == 0
    served(host, table, "v2.pt", other)
    assert dmps(*flags, "-o", "b.png").code == 0
    sidecars = [json.loads(Path(f"{name}.json").read_text()) for name in "ab"]
    assert [sidecar["model_sha256"] for sidecar in sidecars] == [
        sha256_file(host[0] / name) for name in ("v1.pt", "v2.pt")
    ]
    assert (pixels("a.png") != pixels("b.png")).any()
    cached = tmp_path / "cache" / "tiny" / "v2.pt"
    cached.write_bytes((host[0] / "v1.pt").read_bytes())
    refused = dmps(*flags, "-o", "c.png")
    assert (refused.code, "when it was first downloaded" in refused.err) == (1, True)
    cached.with_name("v2.pt.json").unlink()  # as the message says, if the new file is right
    assert dmps(*flags, "-o", "c.png").code == 0
    np.testing.assert_array_equal(pixels("a.png"), pixels("c.png"))


def test_a_users_file_that_changes_is_read_again(dmps: Dmps, tmp_path: Path) -> None:
    photo(tmp_path / "p.png", (32, 32))
    tiny_table(tmp_path / "mine.toml", path="net.pt")
    flags = ("restore", "p.png", "--task", "denoise", "--model", "tiny", "--weights-file", "mine.toml", *FAST)
    for name, factor in (("a", 1.0), ("b", 0.5)):
        torch.save({key: factor * value for key, value in adm_state().items()}, tmp_path / "net.pt")
        assert dmps(*flags, "-o", f"{name}.png").code == 0
        assert json.loads(Path(f"{name}.json").read_text())["model_sha256"] == sha256_file(tmp_path / "net.pt")
    assert (pixels("a.png") != pixels("b.png")).any()


@pytest.mark.parametrize("layout", ["flat", "pipeline"])
def test_a_diffusers_folder_of_the_hub(
    dmps: Dmps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: tuple[Path, str, list[str]], layout: str
) -> None:
    """Fetched file by file; the same pixels as from the folder itself, which a path names."""
    diffusers = pytest.importorskip("diffusers")
    folder, address, _ = host
    monkeypatch.setenv("HF_ENDPOINT", address)
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    net = diffusers.UNet2DModel(sample_size=16, block_out_channels=(32, 32), layers_per_block=1, **blocks)
    home = folder / "owner" / "net" / "resolve" / "main"
    unet, scheduler = (home / "unet", home / "scheduler") if layout == "pipeline" else (home, home)
    net.save_pretrained(unet)
    diffusers.DDPMScheduler().save_pretrained(scheduler)
    files = [str(path.relative_to(home)) for path in (unet / "config.json", scheduler / "scheduler_config.json")]
    files.append(str((unet / "diffusion_pytorch_model.safetensors").relative_to(home)))
    sources = 'sources = [{ repo = "owner/net" }]'
    table = f'[mine]\nabout = "x"\narchitecture = "diffusers"\nimage_size = 16\nfiles = {files}\n{sources}\n'
    (tmp_path / "mine.toml").write_text(table)
    photo(tmp_path / "p.png", (21, 13))
    flags = ("restore", "p.png", "--task", "denoise", *FAST)
    named = dmps(*flags, "--model", "mine", "--weights-file", "mine.toml", "-o", "a.png")
    assert named.code == 0, named.err
    by_path = dmps(*flags, "--model", str(home), "-o", "b.png")
    assert by_path.code == 0, by_path.err
    np.testing.assert_array_equal(pixels("a.png"), pixels("b.png"))
    assert dmps("models", "verify", "mine", "--weights-file", "mine.toml").code == 0


def test_verify_reads_a_file_through(dmps: Dmps, tmp_path: Path, host: tuple[Path, str, list[str]]) -> None:
    folder, address, _ = host
    torch.save(adm_state(), folder / "tiny.pt")
    tiny_table(tmp_path / "mine.toml")
    table = (tmp_path / "mine.toml").read_text()
    source = f'sources = [{{ url = "{address}/tiny.pt" }}]\n'
    (tmp_path / "mine.toml").write_text(table.replace("[tiny.config]", source + "[tiny.config]"))
    fetched = dmps("models", "fetch", "tiny", "--weights-file", "mine.toml")
    path = Path(fetched.out.strip())
    assert path.read_bytes() == (folder / "tiny.pt").read_bytes()
    assert dmps("models", "path", "tiny", "--weights-file", "mine.toml").out.strip() == str(path)
    good = dmps("models", "verify", "--weights-file", "mine.toml")
    assert (good.code, sha256_file(path) in good.out, "natural  ok" in good.out) == (0, True, True)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    bad = dmps("models", "verify", "tiny", "--weights-file", "mine.toml")
    assert bad.code == 1
    assert sha256_file(path) in bad.err
    assert sha256_file(folder / "tiny.pt") in bad.err


@pytest.mark.posix
def test_a_file_that_is_no_checkpoint_is_said(dmps: Dmps, tmp_path: Path) -> None:
    (tmp_path / "junk.pt").write_text("<html>not found</html>")
    photo(tmp_path / "p.png", (32, 32))
    result = dmps("restore", "p.png", "--task", "denoise", "--model", "junk.pt", *FAST)
    assert (result.code, "is a web page" in result.err) == (1, True)
    torch.save({"w": torch.zeros(3)}, tmp_path / "other.pt")
    result = dmps("restore", "p.png", "--task", "denoise", "--model", "other.pt", *FAST)
    assert (result.code, "none of the networks in the table" in result.err) == (1, True)
    torch.save({"w": torch.zeros(3), "x": Handler}, tmp_path / "evil.pt")  # asks for a class
    result = dmps("restore", "p.png", "--task", "denoise", "--model", "evil.pt", *FAST)
    assert (result.code, "refused" in result.err, "save the weights alone" in result.err) == (1, True, True)
    for name in ("", "/dev/null"):
        assert dmps("restore", "p.png", "--task", "denoise", "--model", name, *FAST).code == 2
    result = dmps("restore", "p.png", "--task", "denoise", "--model", "missing.pt", *FAST)
    assert (result.code, "no file or folder" in result.err) == (2, True)


# Paths ---------------------------------------------------------------------------------------------------------------


def test_a_file_is_recognised_by_its_tensors(dmps: Dmps, tmp_path: Path) -> None:
    """A pickle whose network a table describes; a copy of the bundled prior. Sizes that are not the network's work."""
    torch.save({"state_dict": adm_state()}, tmp_path / "faces.pt")
    tiny_table(tmp_path / "mine.toml", path="elsewhere.pt")
    photo(tmp_path / "large.png", (53, 41))
    photo(tmp_path / "small.png", (20, 28))
    table = ("--weights-file", "mine.toml")
    for name, size in (("large", (41, 53)), ("small", (28, 20))):
        result = dmps("restore", f"{name}.png", "--task", "denoise", "--model", "faces.pt", *table, *FAST)
        assert result.code == 0, result.err
        assert pixels(f"{name}_restored.png").shape[:2] == size
    assert dmps("restore", "small.png", "-t", "denoise", "--model", "natural", "-o", "a.png", *FAST).code == 0
    bundled = weights.card("natural").location
    (tmp_path / "copy.safetensors").write_bytes(bundled.read_bytes())
    own = safetensors_of(bundled)[0]
    torch.save({"model": {f"module.{name}": 0.5 * value for name, value in own.items()}, "ema": own}, tmp_path / "n.pt")
    for model in ("./copy.safetensors", "n.pt"):
        result = dmps("restore", "small.png", "-t", "denoise", "--model", model, "-o", "b.png", "--overwrite", *FAST)
        assert result.code == 0, result.err
        np.testing.assert_array_equal(pixels("a.png"), pixels("b.png"))
    assert "dmps: n.pt: its averaged weights (EMA) are read, of entry 'ema'; those of entry 'model', " in result.err


def test_a_table_says_where_in_the_file_the_weights_lie(dmps: Dmps, tmp_path: Path) -> None:
    """Of two networks in a file, the one that the table names; without a note, since nothing was chosen for anybody."""
    photo(tmp_path / "p.png", (32, 32))
    other = {name: 0.5 * value for name, value in adm_state().items()}
    torch.save(other, tmp_path / "other.pt")
    torch.save(
        {"gen": {f"net.{name}": value for name, value in other.items()}, "ema": adm_state()}, tmp_path / "two.pt"
    )
    for output, entries in (("a", {"path": "other.pt"}), ("b", {"path": "two.pt", "entry": "gen", "prefix": "net."})):
        tiny_table(tmp_path / "mine.toml", **entries)
        flags = ("--model", "tiny", "--weights-file", "mine.toml", "-o", f"{output}.png")
        result = dmps("restore", "p.png", "--task", "denoise", *flags, *FAST)
        assert (result.code, "EMA" in result.err) == (0, False), result.err
    np.testing.assert_array_equal(pixels("a.png"), pixels("b.png"))
    tiny_table(tmp_path / "mine.toml", path="two.pt", entry="net")
    result = dmps("restore", "p.png", "--task", "denoise", "--overwrite", *flags, *FAST)
    assert (result.code, "has no entry 'net': where 'net' is expected, there is gen, ema" in result.err) == (1, True)


def test_tiles_restore_like_the_whole(dmps: Dmps, tmp_path: Path) -> None:
    """The bundled prior looks at its surroundings only: tiles change less than half of what another seed does."""
    photo(tmp_path / "p.png", (150, 100))
    flags = ("restore", "p.png", "--task", "denoise", "--sigma", "0.1", "--nfe", "4")
    for name, more in (("a", ()), ("b", ("--tile", "96")), ("c", ("--seed", "1"))):
        assert dmps(*flags, "-o", f"{name}.png", *more).code == 0
    whole, tiled, other = (pixels(f"{name}.png").astype(int) for name in "abc")
    assert 0.0 < np.abs(whole - tiled).mean() < 0.5 * np.abs(whole - other).mean()
    assert dmps(*flags, "--tile", "8").code == 2
    assert dmps(*flags, "-o", "d.png", "--tile", "1024").code == 0  # larger than the picture
    np.testing.assert_array_equal(pixels("a.png"), pixels("d.png"))


# The table -----------------------------------------------------------------------------------------------------------

PUBLISHED = {
    "ffhq": "keys_adm_ffhq256",
    "imagenet": "keys_adm_imagenet256_uncond",
    "lsun-bedroom": "keys_adm_lsun256",
    "lsun-cat": "keys_adm_lsun256",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_adm_tables_build_the_published_networks(name: str) -> None:
    expected = golden_json(f"nets/{PUBLISHED[name]}")["state_dict"]
    with torch.device("meta"):
        network = ADM(ADMConfig.from_reference(weights.card(name).config, name))
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == expected


@pytest.mark.parametrize("name", ["celebahq-flow", "afhq-cat-flow", "bedroom-flow", "church-flow"])
def test_flow_tables_build_the_published_network(name: str) -> None:
    recorded = golden_json("nets/keys_ncsnpp_celebahq256")
    entry = weights.card(name)
    with torch.device("meta"):
        network = NCSNpp(NCSNppConfig.from_reference(entry.config, name))
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert shapes == {key: shape for key, shape in recorded["state_dict"].items() if key != "sigmas"}
    assert network_of(network).trainable == recorded["ema_shadow_params_order"]
    assert (entry.prior, entry.sampler, entry.image_size) == ("flow", "flow", 256)


def test_the_bundled_file_is_the_one_of_the_table() -> None:
    entry = weights.card("natural")
    assert sha256_file(entry.location) == entry.sha256


def test_a_models_own_sampler_is_the_default(dmps: Dmps, tmp_path: Path) -> None:
    (tmp_path / "flow.pth").write_bytes((GOLDEN / "nets" / "ncsnpp_ckpt_1.pth").read_bytes())
    config = golden_json("nets/ncsnpp_ckpt_1")["config"]
    flat = {key: value for section in config.values() for key, value in section.items()}
    table = toml("mine", flat, architecture="ncsnpp", sampler="flow", image_size=flat["image_size"], path="flow.pth")
    (tmp_path / "mine.toml").write_text(table)
    photo(tmp_path / "p.png", (32, 32))
    for model in ("mine", "./flow.pth"):
        flags = ("--model", model, "--weights-file", "mine.toml", "--overwrite")
        result = dmps("restore", "p.png", "--task", "denoise", *flags, *FAST)
        assert result.code == 0, result.err
        assert "flow levels (uniform)" in result.err


def test_the_documented_table_works(dmps: Dmps, tmp_path: Path) -> None:
    """The example of docs/checkpoints.md, with the golden network that it describes."""
    text = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(re.findall(r"```toml\n(.*?)```", text, flags=re.S)[0])
    state = {key: rule_tensor(key, tuple(shape)) for key, shape in golden_json("nets/adm_2")["state_dict"].items()}
    torch.save(state, tmp_path / "my_scans.pt")
    photo(tmp_path / "p.png", (64, 64))
    result = dmps("restore", "p.png", "--task", "sr2", "--model", "my-scans", "--weights-file", "mine.toml", *FAST)
    assert result.code == 0, result.err
    documented = {key for row in re.findall(r"^\| (`.*?`) \|", text, flags=re.M) for key in re.findall(r"`(.*?)`", row)}
    assert documented == {*weights.Table.__struct_fields__} - {"bundled"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a", "cannot read"),
        ("a = 3", "it is 3; expected a table"),
        ('[a]\nabout = "x"', "architecture is missing"),
        ('[a]\nabout = "x"\narchitecture = "adn"\npath = "x"', "architecture is 'adn'"),
        ('[a]\nabout = "x"\narchitecture = "adm"', "give path or sources"),
        ('[a]\nabout = "x"\narchitecture = "adm"\npath = "x"\nprior = "flow"', "that of adm is ddpm"),
        ('[a]\nabout = "x"\narchitecture = "adm"\npath = "x"\nsampler = "edm"', "sampler is 'edm'"),
        ('[a]\nabout = "x"\narchitecture = "adm"\npath = "x"\nsize = "big"', "size is 'big'"),
        ('[a]\nabout = "x"\narchitecture = "adm"\npath = "x"\nsize = true', "size is True"),
        ('[a]\nabout = "x"\narchitecture = "adm"\npath = "x"\ncolour = 1', "unknown key colour"),
        ('[a]\nabout = "x"\narchitecture = "adm"\nsources = ["x"]', "[a]"),
        ('[a]\nabout = "x"\narchitecture = "adm"\nsources = [{ ftp = "x" }]', "a source needs"),
        ('[a]\nabout = "x"\narchitecture = "diffusers"\nsources = [{ repo = "a/b" }]', "files is missing"),
        ('["../a"]\nabout = "x"\narchitecture = "adm"\npath = "x"', "name is '../a'; expected letters, digits"),
        ('[a]\nabout = "x"\narchitecture = "natural"\nbundled = "../x"', "bundled is '../x'; expected the path"),
        ('[a]\nabout = "x"\narchitecture = "adm"\npath = "x"\nsha256 = "abc"', "sha256 is 'abc'; expected a sha256"),
        (
            '[a]\nabout = "x"\narchitecture = "adm"\npath = "x"\nsize = -1',
            "size is -1; expected a whole number, at least 1",
        ),
        ('[a]\nabout = "x"\narchitecture = "adm"\npath = "x"\nschedule = "cosine"', "schedule is 'cosine'"),
        ('[a]\nabout = "x"\narchitecture = "adm"\npath = "x"\naligned_faces = true', "needs image_size"),
        ('[a]\nabout = "x"\narchitecture = "adm"\npath = "~nosuchuser/x"', "no such home folder"),
        ('[a]\nabout = "x"\narchitecture = "adm"\npath = "a\\u0000b"', "expected a path"),
        ('[a]\nabout = "x"\narchitecture = "adm"\nsources = [{ url = "https://a/\\u0000" }]', "a source's url is"),
        ('[a]\nabout = "x"\narchitecture = "diffusers"\nsources = [{ repo = "a/b" }]\nfiles = ["../c"]', "files[0] is"),
        ('[a]\nabout = "x"\narchitecture = 3\npath = "x"', "architecture is 3; expected a text"),
        ('[a]\nabout = "x"\narchitecture = "adm"\nsources = 3', "sources is 3; expected a list"),
    ],
)
def test_a_wrong_table_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(said)):
        weights.card("../a" if "../a" in text else "a", path)


BAD_BESIDE_GOOD = """
[good]
about = "mine"
architecture = "natural"
path = "x.safetensors"

[bad]
about = "mine"
architecture = "natural"
path = "~nosuchuser/x"
"""


def test_one_bad_row_leaves_the_others(dmps: Dmps, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(BAD_BESIDE_GOOD)
    listed = dmps("models", "list", "--weights-file", "mine.toml", "--json")
    rows = {row["name"]: row for row in json.loads(listed.out)["models"]}
    assert (listed.code, rows["good"]["state"], rows["natural"]["state"]) == (0, "not here", "bundled")
    assert (rows["bad"]["state"], listed.err.count("\n")) == ("bad", 1)
    assert "mine.toml, [bad]: ~nosuchuser/x: there is no such home folder" in rows["bad"]["about"]
    assert "bad" in dmps("models", "list", "--weights-file", "mine.toml").out
    assert dmps("models", "show", "good", "--weights-file", "mine.toml").code == 0
    refused = dmps("models", "show", "bad", "--weights-file", "mine.toml")
    assert (refused.code, refused.err.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    "address", ["https://a/..", "https://a/", "https://a/" + "n" * 300, "https://a/.", "https://a/x/../.."]
)
def test_a_download_stays_in_its_folder(tmp_path: Path, address: str) -> None:
    """Whatever its address ends with."""
    (tmp_path / "mine.toml").write_text(
        f'[mine]\nabout = "x"\narchitecture = "adm"\nsources = [{{ url = "{address}" }}]\n'
    )
    assert weights.card("mine", tmp_path / "mine.toml").location.parent == cache_dir() / "mine"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("channel_mult", "1,x"),
        ("attention_resolutions", "0"),
        ("attention_resolutions", ""),
        ("num_channels", "abc"),
        ("num_channels", 33),
        ("num_channels", -32),
        ("num_channels", 0),
        ("num_res_blocks", 1.5),
        ("num_res_blocks", 10_000_000),
        ("num_channels", 10**30),
        ("channel_mult", [1] * 1000),
        ("channel_mult", "1e300"),
        ("channel_mult", [10**400]),
        ("learn_sigma", "False"),
        ("num_heads", 0),
        ("colour", 1),
    ],
)
def test_a_wrong_network_option_is_one_sentence(dmps: Dmps, tmp_path: Path, option: str, value: object) -> None:
    config = ADM_1["config"] | {option: value}
    (tmp_path / "mine.toml").write_text(toml("tiny", config, architecture="adm", path="net.pt"))
    torch.save(adm_state(), tmp_path / "net.pt")
    photo(tmp_path / "p.png", (32, 32))
    flags = ("--model", "tiny", "--weights-file", "mine.toml")
    result = dmps("restore", "p.png", "--task", "denoise", *flags, *FAST)
    assert (result.code, result.err.count("\n")) == (1, 1), result.err


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("dmps restore --model ff", "ffhq"),
        ("dmps restore --sampler fl", "flow"),
        ("dmps restore --method dm", "dmps"),
        ("dmps restore --task deblur-a", "deblur-aniso"),
        ("dmps models fetch celebahq-f", "celebahq-flow"),
        ("dmps eval --methods dmps,dd", "dmps,ddrm"),
        ("dmps eval --samplers ddpm,", "ddpm,flow"),
        ("dmps eval --tasks sr4,sr8,deblur-a", "sr4,sr8,deblur-aniso"),
        ("dmps eval --compare ", "paper"),
        ("dmps restore --dtype b", "bfloat16"),
    ],
)
def test_completion_of_names(line: str, found: str) -> None:
    """As bash asks for it; without torch."""
    code = "import sys; from dmps_cli.cli.main import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    variables = {"_DMPS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    command = [sys.executable, "-c", f"import sys; sys.argv = ['dmps']; {code}"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert found in done.stdout.split(), done.stderr


# The other commands --------------------------------------------------------------------------------------------------


def test_show_prints_the_model_card(dmps: Dmps) -> None:
    shown = dmps("models", "show", "natural")
    page, flat = shown.out.splitlines(), "".join(shown.out.split())
    assert max(map(len, page[: page.index("# Model card: natural")])) <= 100  # then the card, as it is
    assert re.search(r"^ state +bundled$", shown.out, re.MULTILINE)
    with safe_open(weights.card("natural").location, "pt") as file:
        said = file.metadata()
    for name in ("steps", "photographs_sha256", "licence", "psnr_15"):
        assert "".join(f"{name} (its file) {said[name]}".split()) in flat, name
    assert json.loads(dmps("models", "show", "ffhq", "--json").out)["sources"][0] == (
        "Hub deepinv/diffunet/diffusion_ffhq_10m.pt@6b0a2cf45dec"
    )
    assert (dmps("models", "show", "ffgq").code, "did you mean 'ffhq'" in dmps("models", "show", "ffgq").err) == (
        2,
        True,
    )


def test_doctor_says_what_cannot_be_measured(dmps: Dmps, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torchvision of another torch fails as it is imported, with a RuntimeError."""
    break_import(monkeypatch, "lpips", RuntimeError("operator torchvision::nms does not exist"))
    result = dmps("doctor", "--device", "cpu")
    assert result.code == 1
    assert "torchvision that fits torch" in result.out
    assert "pip install --force-reinstall torch torchvision" in result.out
    assert result.out.rstrip().endswith("verdict: LPIPS cannot be measured")


def test_doctor_compares_half_precision_with_float32(dmps: Dmps) -> None:
    """Rounding to 8 bits of mantissa must show, and not be much; to 11 bits less."""
    result = dmps("doctor", "--device", "cpu", "--json")
    assert result.code == 0, result.err
    rows = {row["dtype"]: row for row in json.loads(result.out)["rows"]}
    assert rows.keys() == {"bfloat16", "float16"}
    for column in ("noisy", "clean", "5 steps"):
        assert 0.0 < rows["float16"][column] < rows["bfloat16"][column] < 16.0
