"""Tasks one after another as text: how it is read, what it resolves to, files and folders named by it, the commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dmps_cli.errors import InputError, UsageError
from dmps_cli.methods.choice import resolve_sampling
from dmps_cli.tasks.chain import Link, normal, parsed, slug, split_tasks
from dmps_cli.tasks.geometry import crop_box, scene_shape, shown_size, source_shape
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.plan import make_plan
from dmps_cli.tasks.table import build, like, resolve, resolve_recorded, task
from tests.shell import Dmps, photo, pixels

CHAIN = "blur(gauss:1.6) | decimate(2) | mask(m.png)"


def test_a_value_without_a_name_may_hold_commas_and_comes_first() -> None:
    (link,) = parsed("blur( motion:15,30, boundary=reflect,kernel-as-is = true )")
    assert link == Link(name="blur", main="motion:15,30", options={"boundary": "reflect", "kernel_as_is": "true"})
    (box,) = parsed("inpaint(box=1,2,3,4, invert_mask=false)")
    assert box.options == {"box": "1,2,3,4", "invert_mask": "false"}
    assert parsed("mask(photo (1).png)")[0].main == "photo (1).png"


def test_spaces_do_not_count_and_commas_inside_parentheses_separate_no_tasks() -> None:
    assert normal("blur(gauss:1.6)|decimate( 2 ) |mask(m.png)") == CHAIN
    assert split_tasks(f"sr4, blur(motion:15,30)|sr2 ,sr4,{CHAIN}") == ["sr4", "blur(motion:15,30) | sr2", CHAIN]


def test_file_names_have_a_few_letters_and_a_hash() -> None:
    names = {slug(text) for text in (CHAIN, "blur(gauss:1.7) | decimate(2) | mask(m.png)", "sr2(/../x)")}
    assert len(names) == 3
    for name in names:
        assert len(name) <= 33
        assert not set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-")
        assert not name.startswith(".")
    assert slug("sr4") == "sr4"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("blur(gauss:2 | sr2", "a parenthesis is not closed"),
        ("blur)gauss:2( | sr2", "a parenthesis is not opened"),
        ("blur(gauss:2) | | sr2", "nothing, beside a bar"),
        ("blur(gauss:2) sr2", "is no task"),
        ("blur(gauss:2, foo=3)", "takes no foo; it takes kernel, kernel_as_is, boundary"),
        ("blur(boundary=zero, boundary=zero)", "is given twice"),
        ("sr4(2) | denoise", "'sr4' in 'sr4(2) | denoise' takes no bare value"),
        ("blur(gauss:2, kernel=gauss:3)", "takes no bare value"),
        ("sr4 | sr5", "unknown task 'sr5'"),
        ("sr(3.5) | denoise", "--scale is '3.5'"),
        ("mask(alpha) | denoise", "each picture's own"),
        ("denoise | " * 60 + "denoise", "characters"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(text, OperatorOptions())
    assert said in str(caught.value)


def test_links_have_the_options_that_tasks_have() -> None:
    text = "deblur-gauss(1.2, taps=7) | sr(3) | inpaint(fraction=0.25)"
    blur, smaller, mask = resolve(text, OperatorOptions())["links"]
    assert (blur["blur_std"], blur["taps"], smaller["scale"], mask["fraction"]) == (1.2, 7, 3, 0.25)
    assert resolve_recorded(text, json.loads(json.dumps(resolve(text, OperatorOptions())))) == {
        "links": [blur, smaller, mask]
    }
    with pytest.raises(UsageError, match="stands in parentheses"):
        resolve(text, OperatorOptions(scale=2))
    kept = resolve("blur(gauss:2) | blur(gauss:2, boundary=zero)", OperatorOptions(boundary="reflect"))["links"]
    assert [link["boundary"] for link in kept] == ["reflect", "zero"]


def test_a_random_pattern_follows_the_seed_unless_it_has_its_own() -> None:
    plan = make_plan("inpaint(fraction=0.5) | inpaint(fraction=0.5, operator_seed=3)", OperatorOptions(), None, 7)
    assert [link["operator_seed"] for link in plan.params["links"]] == [7, 3]


def test_what_a_chain_is_like() -> None:
    """Methods take the defaults of its blur, or of what else it is; its noise is that of its tasks."""
    assert [like(text) for text in ("sr4", "sr2 | blur(gauss:1)", "denoise | mask(m.png)", "denoise | denoise")] == [
        "sr4",
        "blur",
        "inpaint",
        "denoise",
    ]
    assert resolve_sampling(task="sr2 | blur(gauss:1)") == resolve_sampling(task="blur")
    assert task("denoise | sr2").sigma_y == task("sr2").sigma_y
    assert task("sr2 | cs(2)").is_picture is False
    assert task("colorize | sr2").needs_colour


@pytest.mark.parametrize(
    "text",
    [
        "blur(gauss:0.6,3, boundary=valid) | sr2",
        "decimate(2) | blur(aniso:0.4,0.2, boundary=valid)",
        "blur(gauss:0.6,3, boundary=valid) | decimate(2) | blur(gauss:0.6,5, boundary=valid) | decimate(3)",
    ],
)
def test_sizes_through_a_chain(text: str) -> None:
    """What source_shape says gives a picture of that size; what crop_box leaves of any image can be taken."""
    params = resolve(text, OperatorOptions())
    shape = source_shape(text, params, (9, 12), channels=1)
    op = build(text, params, shape, dtype=torch.float64)
    assert op.out_shape == (1, 9, 12)
    assert scene_shape(text, params, op.picture_size, channels=1) == shape
    for size in ((61, 47), (52, 53)):
        _, _, width, height = crop_box(text, params, size)
        assert build(text, params, (1, height, width), dtype=torch.float64).picture_size == shown_size(
            text, params, size
        )
        assert max(size[0] - height, size[1] - width) < 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sr2 | decimate(5)", "'decimate' in 'sr2 | decimate(5)': the picture is 8 x 8 px, not a multiple"),
        ("cs(2) | sr2", "'cs' in 'cs(2) | sr2': it gives no picture"),
        ("colorize | colorize", "'colorize' in 'colorize | colorize': it takes a picture in colour"),
        ("sr2 | blur(uniform:9)", "larger than the picture of 8 x 8"),
    ],
)
def test_a_chain_that_does_not_fit(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        build(text, resolve(text, OperatorOptions()), (3, 16, 16), dtype=torch.float32)
    assert said in str(caught.value)


# The commands --------------------------------------------------------------------------------------------------------


def test_degrade_and_restore(dmps: Dmps, tmp_path: Path) -> None:
    """The sidecar alone is enough, and no file that its text names is opened for it."""
    photo(Path("p.png"), (48, 32))
    keep = np.full((16, 24), 255, np.uint8)
    keep[3:8, 4:9] = 0
    Image.fromarray(keep).save("m.png")
    assert dmps("degrade", "p.png", "--task", CHAIN.replace(" ", ""), "--sigma", "0.02").code == 0
    (picture,) = Path().glob("p_*.png")
    assert picture.name == f"p_{slug(CHAIN)}.png"
    said = json.loads(picture.with_suffix(".json").read_text())
    assert said["task"] == CHAIN
    measured = np.load(picture.with_suffix(".npy"))
    assert measured.shape == (3, int((keep > 0).sum()))
    Path("m.png").unlink()
    result = dmps("restore", str(picture), "--nfe", "2", "-o", "x.png")
    assert result.code == 0, result.err
    assert json.loads(Path("x.json").read_text())["iterations"]
    refused = dmps("restore", str(picture), "--boundary", "zero", "-o", "x2.png")
    assert (refused.code, "name the whole --task" in refused.err) == (2, True)
    said["operator"]["links"][2]["mask"] = "/etc/hostname"
    picture.with_suffix(".json").write_text(json.dumps(said))
    spoilt = dmps("restore", str(picture), "--nfe", "2", "-o", "x3.png")
    assert (spoilt.code, "is damaged" in spoilt.err) == (1, True)


def test_a_found_picture(dmps: Dmps, tmp_path: Path) -> None:
    """Its scene goes on beyond the frame; a kernel must be said."""
    photo(Path("p.png"), (24, 24))
    task = "blur(gauss:0.6,5) | sr2"
    result = dmps("restore", "p.png", "-t", task, "--sigma", "0.05", "--nfe", "2", "-o", "x.png")
    assert result.code == 0, result.err
    assert pixels("x.png").shape == (48, 48, 3)
    assert json.loads(Path("x.json").read_text())["operator"]["links"][0]["boundary"] == "valid"
    assert dmps("restore", "p.png", "-t", "blur | sr2", "-o", "y.png").code == 2
    assert not Path("y.png").exists()


def test_eval_compares_chains(dmps: Dmps, tmp_path: Path) -> None:
    Path("set").mkdir()
    photo(Path("set/p.png"), (32, 32))
    tasks = "sr4,blur(motion:5,30)|decimate(2)"
    run = ("eval", "--dataset", "set", "--tasks", tasks, "--nfe", "2", "-o", "out")
    assert dmps(*run).code == 0
    names = {path.parent.name for path in Path("out").rglob("p*.png") if path.parent.parent.name == "truth"}
    assert names == {"sr4", slug(normal(tasks[4:]))}
    again = dmps(*run)
    assert again.code == 0, again.err
    merged = dmps("eval", "--merge", "out", "-o", "all", "--json")
    assert merged.code == 0, merged.err
    assert {row["task"] for row in json.loads(merged.out)["rows"]} == {"sr4", "blur(motion:5,30) | decimate(2)"}
