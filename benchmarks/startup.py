"""Lists what each command imports, and fails where it imports a package it does not need; `make check` runs it.

    python benchmarks/startup.py

Each runs in a process of its own, on a picture of 16 x 16. `eval` ends where it first needs a metric: LPIPS brings all
of these packages, and PSNR and SSIM bring torchvision.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

SLOW = ("torch._dynamo", "torch._inductor", "sympy", "torchvision", "lpips", "scipy", "diffusers", "matplotlib")
"""Half a second each, or seconds."""

COMMANDS = {
    "help": ["--help"],
    "degrade": ["degrade", "photos/a.png", "--task", "denoise", "--quiet", "-o", "y.png"],
    "restore": ["restore", "y.png", "-o", "x.png", "--nfe", "1", "--quiet"],
    "eval": ["eval", "--dataset", "photos", "--tasks", "denoise", "--nfe", "1", "--out", "run", "--quiet"],
}
WITHOUT_TORCH = ("help",)
METRIC_PACKAGES = ("piq", "lpips")

PROGRAM = """
import json, sys
command, metrics = json.loads(sys.argv[1])
class Ends:
    def find_spec(self, name, path=None, target=None):
        if name in metrics:
            raise SystemExit(0)
sys.meta_path.insert(0, Ends())
from dmps_cli.cli.main import app
try:
    app(command)
except SystemExit as exc:
    assert not exc.code, exc.code
print()
print(json.dumps(sorted(sys.modules)))
"""


def modules(folder: Path, command: list[str]) -> set[str]:
    """Returns the names of the modules that a command has imported when it ends, or first needs a metric."""
    arguments = [sys.executable, "-c", PROGRAM, json.dumps([command, METRIC_PACKAGES])]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"dmps {' '.join(command)} failed:\n{done.stderr}")
    return {*json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Prints a line for each command; exits with 1 if one imports too much."""
    failed = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        Image.linear_gradient("L").resize((16, 16)).convert("RGB").save(folder / "photos" / "a.png")
        for title, command in COMMANDS.items():
            loaded = modules(folder, command)
            unwanted = [module for module in (*SLOW, *["torch"] * (title in WITHOUT_TORCH)) if module in loaded]
            packages = sorted({module.split(".")[0] for module in loaded} - sys.stdlib_module_names)
            print(f"{title}: {len(loaded)} modules; {', '.join(p for p in packages if not p.startswith('_'))}")
            failed += [f"{title} imports {module}" for module in unwanted]
    if failed:
        raise SystemExit("; ".join(failed))


if __name__ == "__main__":
    main()
