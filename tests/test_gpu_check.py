"""benchmarks/gpu_check.py: parts that fail, hang or find a fault leave what they found, and the next ones run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import gpu_check
from benchmarks.gpu_check import PARTS, Findings, Settings, run_all

CHILD = """
import pathlib, signal, sys

part, answer = sys.argv[2], pathlib.Path(sys.argv[4])
if part == "environment":
    answer.write_text('{"half": 1, "failures": []}')
    print("begun", flush=True)
    signal.pause()
if part == "doctor":
    answer.write_text('{"some": 2, "failures": []}')
    raise RuntimeError("broken")
if part == "agreement":
    answer.write_text('{"failures": ["a is not b"]}')
if part == "rerun":
    answer.write_text('{"all": 3, "failures": []}')
"""


def test_every_part_says_what_became_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    monkeypatch.setattr(gpu_check, "__file__", str(tmp_path / "child.py"))
    monkeypatch.setitem(PARTS, "environment", replace(PARTS["environment"], seconds=1.0))
    names = ("environment", "doctor", "agreement", "rerun")
    found = run_all(names, Settings(device="cpu", tiny=False), 100.0)
    assert [found["parts"][name]["status"] for name in names] == ["timed out", "error", "failed", "ok"]
    assert [found["parts"][name].get(fact) for name, fact in zip(names, ("half", "some", "x", "all"), strict=True)] == [
        1,
        2,
        None,
        3,
    ]
    texts = [found["parts"][name]["error"] for name in names]
    assert "begun" in texts[0]
    assert "RuntimeError: broken" in texts[1]
    assert texts[2:] == ["a is not b", None]
    assert found["ok"] is False
    cut = run_all(names, Settings(device="cpu", tiny=False), 0.5)
    assert [part["status"] for part in cut["parts"].values()] == ["not run"] * 4
    json.dumps(found | cut)


def test_a_machine_without_the_device_still_gets_its_object() -> None:
    command = [sys.executable, gpu_check.__file__, "--device", "cuda:99", "--only", "environment"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert (done.returncode, found["parts"]["environment"]["status"]) == (1, "error")
    assert "device 'cuda:99' is not available here" in found["parts"]["environment"]["error"]


@pytest.mark.parametrize("name", ["agreement", "rerun", "batches", "noise", "profile"])
def test_parts_run_and_find_nothing_on_the_cpu_itself(name: str, tmp_path: Path) -> None:
    findings = Findings(tmp_path / "found.json")
    PARTS[name].run(Settings(device="cpu", tiny=True), findings)
    assert findings.failures == []
    assert json.loads(findings.path.read_text()) == json.loads(json.dumps(findings.facts)) | {"failures": []}
