"""The native engine's compiler set to work before it is needed, or beside whatever else is done."""

from __future__ import annotations

from itertools import product
from threading import Thread

import numpy as np

from ancestral.causal.program import Program
from ancestral.walking.native.engine import CALLER, EXPONENTS, GATES, Work, apart, mixture_tables
from ancestral.walking.native.interpreter import Plan, Span, settle
from ancestral.walking.native.layout import OPERATION, seldom
from ancestral.walking.native.weights import KINDS, Array

LOADING = 2.0  # seconds, several times what is usual
_STARTED: dict[tuple[bool, bool, bool, bool], Thread] = {}  # by what is compiled apart; see ``warmup``


def warmup(exact: bool | None = None, rare: bool | None = None, tokens: bool | None = None, options: bool = False) -> None:
    """Compile everything that the engine needs, for one kind of numbers or both, unless it is on disk already.

    That takes some ten seconds for each kind, once a machine. Whatever runs first does the same without being asked.

    Args:
        exact: which kind of numbers; both by default.
        rare: with the operations that few networks have, or without; both by default.
        tokens: with the operations of networks of tokens, or without; both by default, where not all others are asked for too.
        options: for draws with a temperature, top-k, top-p or min-p.
    """
    who = CALLER._replace(options=1) if options else CALLER
    choices = product(*((False, True) if which is None else (which,) for which in (exact, rare, tokens)))
    for kind, few, words in choices:
        if few and words and None in (rare, tokens):
            continue  # no network of the package has both
        values, biases = KINDS[kind]
        table: Array = np.zeros(1, OPERATION)
        state: Array = np.zeros(0, values)
        runs, starts = np.zeros((0, 3), np.int64), np.zeros(2, np.int64)
        none: Array = np.zeros(0, biases)
        tables = table, runs, table, starts, table[None], table, state, none, GATES, EXPONENTS
        plan = Plan(*tables, mixture_tables(0), 0, 0, 0, 1, 1, *apart(few, words))
        Work(plan, state, who, result=np.zeros((0, 0, 0), values)).do(Span(0, 0, 0, 0, 0, 0))
        settle(plan, state, 0, 0, 0, np.zeros(0, np.int64))


def ready(program: Program, wait: bool, options: bool = False) -> bool:
    """Whether the engine is compiled for what a Program needs; if not, that begins now, beside whatever else is done.

    A program that ends earlier waits for it, so that the next one finds it done.

    Args:
        options: whether symbols are drawn with a temperature, top-k, top-p or min-p.
        wait: until it is. Otherwise the first call waits as long as code on disk takes to load, and later ones not at all.
    """
    patience, key = None if wait else 0.0, (program.exact, *seldom(program), options)
    if key not in _STARTED:
        _STARTED[key] = Thread(target=warmup, args=key, name="native compiler")
        _STARTED[key].start()
        patience = None if wait else LOADING
    _STARTED[key].join(patience)
    return not _STARTED[key].is_alive()
