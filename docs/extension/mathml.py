"""Equations as MathML, which browsers draw by themselves: no script, and nothing fetched from elsewhere."""

from __future__ import annotations

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

NAMES = re.compile(r"\\(log|exp|ln|max|min)(?![a-zA-Z])(?!\s*(?:[_^(\[{]|\\[bB]ig|\\left))")


def _mathml(latex: str, display: str) -> str:
    return convert(NAMES.sub(r"\\\1\\,", latex), display=display)  # the converter leaves no space after a function's name


def _inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="equation">{_mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def _departed(translator: HTML5Translator, node: nodes.Node) -> None:
    """The visitors skip it."""


def setup(app: Sphinx) -> None:
    """Draw math as MathML."""
    app.add_html_math_renderer("mathml", (_inline, _departed), (_block, _departed))
