"""Work done ahead of its use, in a thread: what a CPU prepares while the device computes."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """The results of make(first), make(first + 1), .. in their order, each made by one thread a few before its turn.

    count: how many will be taken, None if that is open. wait_seconds: how long `take` had to wait for those that were
    not ready.
    """

    DEPTH = 4

    def __init__(self, make: Callable[[int], T], first: int = 0, count: int | None = None) -> None:
        self.make, self.wait_seconds = make, 0.0
        self.ready: queue.Queue[T | Exception] = queue.Queue(self.DEPTH)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(first, count), daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()

    def _run(self, first: int, count: int | None) -> None:
        number = first
        while not self.stopped.is_set() and (count is None or number < first + count):
            item: T | Exception
            try:
                item = self.make(number)
            except Exception as exc:  # noqa: BLE001 - raised again in the thread that takes it
                item = exc
            self._put(item)
            number += 1

    def _put(self, item: T | Exception) -> None:
        while not self.stopped.is_set():
            try:
                self.ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def take(self) -> T:
        """Returns the next result. Raises what making it raised."""
        start = time.perf_counter()
        item = self.ready.get()
        self.wait_seconds += time.perf_counter() - start
        if isinstance(item, Exception):
            raise item
        return item
