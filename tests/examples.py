"""The examples in Markdown files: fenced blocks under their headings, and the ``ancestral`` commands in them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path


def blocks(page: Path, *languages: str) -> Iterator[tuple[str, int, str]]:
    """(heading, line, text) of a page's fenced blocks in these languages; the heading is the last ``##`` above."""
    heading, start, body = "top", 0, list[str]()
    language: str | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            if language in languages:
                yield heading, start, "\n".join(body)
            language, start, body = (line[3:].strip() if language is None else None), number, []
        elif language is not None:
            body.append(line)
        elif line.startswith("## "):
            heading = line[3:]


def commands(page: Path) -> list[list[str]]:
    """The ``ancestral`` commands of a page's shell blocks, in words, up to a pipe, a redirection or ``&&``."""
    found = []
    for _, _, text in blocks(page, "bash", "console", "sh", "shell"):
        for line in text.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
            lexer.whitespace_split = True  # otherwise pixelcnn++ would be three words
            words = list(lexer)
            end = next((i for i, word in enumerate(words) if set(word) <= set("|&;<>()")), len(words))
            if words[:1] in (["ancestral"], [".venv/bin/ancestral"]):
                found.append(words[1:end])
    return found
