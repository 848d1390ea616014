"""Ctrl-C, and requests to terminate, as an event that work under way looks at."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interruptions(again: Callable[[], BaseException]) -> Iterator[threading.Event]:
    """An event that the first signal sets, so that what is under way can be finished.

    Elsewhere than in the main thread, where no signals arrive, the event is never set.

    Args:
        again: makes what the next signal raises, at once.
    """
    asked = threading.Event()

    def ask(number: int, frame: object) -> None:
        if asked.is_set():
            raise again()
        asked.set()

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM) if main}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
