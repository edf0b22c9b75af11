"""`python -m tests.mutants [MODULE ..]`: which mistakes in the heart no test notices.

The tests are collected once, and each mistake has a process of its own, split off from there: its code is put in the
place of the true one, and the tests that run its line are asked until one fails: those that noticed most so far first,
then the quickest. What is known to change nothing stands in known.toml, with the reason.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage

from tests.mutants.changes import Change, changes
from tests.mutants.placing import put_in_place

TESTS = Path(__file__).parents[1]
SOURCE = TESTS.parent / "src" / "dmps_cli"
KNOWN = Path(__file__).with_name("known.toml")
BASELINES = ("ddnm", "ddrm", "diffpir", "dps", "ot_ode", "pgdm", "posterior", "tweedie")
POINTWISE = ("pointwise", "weighted", "hadamard", "grey", "separable")
CONVOLUTIONS = ("circular", "convolution", "kernels", "inside")
HEART: dict[tuple[str, ...], tuple[str, ...]] = {
    ("levels", "sampling", "priors"): ("test_levels.py", "test_sampling.py", "test_priors.py", "test_fields.py"),
    ("linalg", "windows"): ("test_linalg.py", "test_windows.py", "test_fields.py", "methods/test_solver.py"),
    ("methods/dmps",): ("methods/test_dmps.py", "test_appendix_a.py"),
    ("methods/counted", "methods/solver"): ("methods/test_counted.py", "methods/test_solver.py"),
    tuple(f"methods/{name}" for name in BASELINES): ("methods/test_baselines.py",),
    tuple(f"operators/{name}" for name in POINTWISE): (
        *("operators/test_operators.py", "operators/test_grey.py", "tasks/test_table.py", "tasks/test_chain.py"),
    ),
    tuple(f"operators/{name}" for name in CONVOLUTIONS): ("operators/test_convolution.py", "test_windows.py"),
    ("operators/composed", "operators/decimation"): ("operators/test_composed.py", "operators/test_operators.py"),
    ("operators/base", "operators/banded"): ("operators/test_operators.py", "operators/test_banded.py"),
}
"""Modules of the heart, and the tests that belong to them."""

PATIENCE = 5.0
"""Seconds of CPU beyond ten times its own that a test may take before it counts as failed: an endless loop."""

STANDSTILL = 8.0
"""Seconds by the clock for each second of CPU: a test that waits for a thread uses none."""

MEMORY = 3 * 2**30
"""Bytes that a mistake may take beyond what is there."""


FAULT = 70
"""Exit code of a process in which this program itself failed."""


class Mutants:
    """A plugin of pytest that runs the tests of each mistake in place of the tests."""

    def __init__(self, modules: list[str], every: int) -> None:
        self.modules, self.every = modules, every
        self.caches: list[Any] = []
        self.reached: dict[str, dict[int, list[int]]] = {}  # by path and line
        self.seconds: list[float] = []
        self.noticed: Counter[int] = Counter()  # mistakes by each test
        self.is_failed = False
        self.survivors: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes that a test failed."""
        self.is_failed = self.is_failed or report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Runs all tests once as the code is, and then those of each mistake."""
        for module in self.modules:
            importlib.import_module("dmps_cli." + module.replace("/", "."))
        self.caches = [found for found in gc.get_objects() if type(found) is functools._lru_cache_wrapper]
        as_it_is = _in_child(lambda: self._as_it_is(session.items))
        self.seconds = as_it_is["seconds"]
        self.reached = {p: {int(k): v for k, v in lines.items()} for p, lines in as_it_is["reached"].items()}
        print(f"{len(session.items)} tests, {sum(self.seconds):.0f} s", *as_it_is["failed"], flush=True)
        known = tomllib.loads(KNOWN.read_text())
        for module in self.modules:
            self._module(module, session.items, {line for entry in known.get(module, []) for line in entry["mistakes"]})
        return True

    def _as_it_is(self, items: list[pytest.Item]) -> dict[str, Any]:
        """Runs every test: which lines of the modules it reaches, its seconds, whether it fails."""
        paths = [str(SOURCE / f"{module}.py") for module in self.modules]
        coverage = Coverage(data_file=None, include=paths, config_file=False, messages=False)
        seconds, failed = [], []
        with coverage.collect():
            for number, item in enumerate(items):
                coverage.switch_context(str(number))
                start = time.process_time()
                if self._fails(item, 600.0):
                    failed.append(item.nodeid)
                    seconds.append(float("inf"))
                else:
                    seconds.append(time.process_time() - start)
        data = coverage.get_data()
        reached = {
            path: {line: [int(number) for number in numbers if number] for line, numbers in by_line.items()}
            for path, by_line in ((path, data.contexts_by_lineno(path)) for path in data.measured_files())
        }
        return {"reached": reached, "seconds": seconds, "failed": failed}

    def _module(self, module: str, items: list[pytest.Item], known: set[str]) -> None:
        path, num_known, survivors = SOURCE / f"{module}.py", 0, 0
        everything = list(changes(path.read_text()))
        for entry in known - {str(change) for change in everything}:
            self.survivors.append(f"{module}: {entry}")
            print(f"known.toml has a mistake that cannot be made: {self.survivors[-1]}", flush=True)
        found = everything[:: self.every]
        for change in found:
            if str(change) in known:
                num_known += 1
            elif (asked := self._unnoticed(change, str(path), items)) is not None:
                survivors += 1
                self.survivors.append(f"{module}:{change.line} {change}")
                print(f"not noticed by {asked} tests: {self.survivors[-1]}", flush=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"{module}: {len(found)} mistakes, {len(found) - num_known - survivors} noticed, {num_known} known to "
            f"change nothing, {survivors} not noticed; {used.ru_utime + used.ru_stime:.0f} s so far",
            flush=True,
        )

    def _unnoticed(self, change: Change, path: str, items: list[pytest.Item]) -> int | None:
        """Returns None if a test fails of the change; else how many were asked."""
        by_line = self.reached.get(path, {})
        numbers = (by_line.get(change.line) if change.scope else None) or {k for ks in by_line.values() for k in ks}
        chosen = sorted(numbers, key=lambda k: (-self.noticed[k], self.seconds[k]))
        chosen = [k for k in chosen if self.seconds[k] < float("inf")]
        killer = _in_child(lambda: self._killer(change, path, {k: items[k] for k in chosen}))
        if isinstance(killer, int):
            self.noticed[killer] += 1
        return len(chosen) if killer is None else None

    def _killer(self, change: Change, path: str, items: dict[int, pytest.Item]) -> int | str | None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        try:
            put_in_place(change, path)
        except (ArithmeticError, ValueError) as exc:  # a constant that cannot be computed
            return repr(exc)
        return next((k for k, item in items.items() if self._fails(item, 10.0 * self.seconds[k] + PATIENCE)), None)

    def _fails(self, item: pytest.Item, limit: float) -> bool:
        for cache in self.caches:  # what the true code gave is not what is asked for
            cache.cache_clear()
        self.is_failed = False
        signal.setitimer(signal.ITIMER_PROF, limit)
        signal.setitimer(signal.ITIMER_REAL, STANDSTILL * limit)
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        except TimeoutError:
            self.is_failed = True
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        return self.is_failed


def _in_child(work: Callable[[], Any]) -> Any:
    """Returns what a function comes to in a process of its own, silent; 'died' if that has no end of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = os.dup(2)
        try:
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            signal.signal(signal.SIGPROF, _give_up)
            signal.signal(signal.SIGALRM, _give_up)
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(json.dumps(work()).encode())
        except BaseException:  # noqa: BLE001 (a fault of this program)
            os.write(said, traceback.format_exc().encode())
            os._exit(FAULT)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == FAULT:
        raise RuntimeError("a process of one mistake failed, as said above")
    return json.loads(text) if text else "died"


def _give_up(*_: object) -> None:
    raise TimeoutError


def main() -> int:
    """Asks for every mistake in the modules named, or in all of the heart; 1 if one is new that no test notices."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("modules", nargs="*", help="such as levels, methods/dmps; default: all of the heart")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th mistake alone")
    asked = parser.parse_args()
    survivors: list[str] = []
    for modules, tests in HEART.items():
        if chosen := [module for module in modules if module in asked.modules or not asked.modules]:
            mutants = Mutants(chosen, asked.every)
            options = ["-q", "-s", "-p", "no:cacheprovider", "-n", "0"]
            if os.fork() == 0:
                pytest.main([*options, *(str(TESTS / name) for name in tests)], plugins=[mutants])
                sys.stdout.flush()
                os._exit(int(bool(mutants.survivors)))
            survivors += ["some"] * bool(os.wait()[1])
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
