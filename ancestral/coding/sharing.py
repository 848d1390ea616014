"""Work that threads share: blocks of a file are coded side by side, and come out in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def shared_out(work: Callable[[T], U], items: Iterable[T], threads: int) -> Iterator[tuple[T, U]]:
    """Every item with what is made of it, in order; threads work ahead by as many items as there are of them."""
    if threads == 1:
        yield from ((item, work(item)) for item in items)
        return
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[tuple[T, Future[U]]] = deque()
        for item in items:
            ahead.append((item, pool.submit(work, item)))
            if len(ahead) > threads:
                item, made = ahead.popleft()
                yield item, made.result()
        yield from ((item, made.result()) for item, made in ahead)
