"""HTML, a few functions deep: everything a page shows is inside it, and what it is handed as text is escaped."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from io import StringIO
from itertools import count

import numpy as np
from matplotlib.figure import Figure

from ancestral.data.images import png
from ancestral.report.figures import FAINT, FIRST, INK, SECOND
from ancestral.report.images import Pixels, grid

THEME = {INK: "var(--ink)", FAINT: "var(--line)", FIRST: "var(--first)", SECOND: "var(--second)"}


CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {127: 0x2421}


def visible(text: str) -> str:
    """Text with the pictures of control characters in their place, which a page would drop or change."""
    return text.translate(CONTROLS)


def tag(name: str, *body: str, **attributes: str) -> str:
    """An element around pieces of HTML; ``class_`` stands for class, and attribute values are escaped."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return f"<{name}{written}>{''.join(body)}</{name}>"


def paragraph(text: str, class_: str = "") -> str:
    """Plain text as a paragraph."""
    return tag("p", escape(text), **({"class_": class_} if class_ else {}))


def badge(status: str) -> str:
    """The status of a figure: exact, bound or approximate."""
    return tag("span", escape(status), class_=f"badge {status}")


def picture(images: Pixels, columns: int, alt: str) -> str:
    """(n, H, W, C) bytes as one sheet whose gaps let the page shine through."""
    side = min(images.shape[1:3])
    scale = max(1, round(48 / side))
    gap = max(2, side * scale // 16)
    sheet = grid(images, columns, scale=scale, padding=gap)
    opaque = grid(np.full_like(images[..., :1], 255), columns, scale=scale, padding=gap, background=0)
    colour = sheet if sheet.shape[2] == 3 else sheet.repeat(3, 2)
    content = png(np.concatenate([colour, opaque], 2) if (opaque == 0).any() else sheet)
    height, width = sheet.shape[:2]
    return (
        f'<img src="data:image/png;base64,{b64encode(content).decode()}" width="{width}" height="{height}" alt="{escape(alt)}">'
    )


def drawing(figure: Figure, alt: str) -> str:
    """A matplotlib figure as inline SVG in the colours of the page's theme."""
    memory = StringIO()
    figure.savefig(memory, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = memory.getvalue()
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg[svg.index("<svg") :])
    for colour, variable in THEME.items():
        svg = svg.replace(colour, variable)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)


def own_ids(html: str) -> str:
    """The same page with the ids of its drawings numbered anew: matplotlib names parts alike, and differently each time."""
    numbers = count()

    def renamed(drawing: re.Match[str]) -> str:
        names = {name: f"i{next(numbers)}" for name in dict.fromkeys(re.findall(r' id="([^"]+)"', drawing[0]))}
        return re.sub(r'( id="|href="#|url\(#)([^")]+)', lambda found: found[1] + names.get(found[2], found[2]), drawing[0])

    return re.sub(r"<svg.*?</svg>", renamed, html, flags=re.DOTALL)


def figure(body: str, caption: str, class_: str = "sheet") -> str:
    """A picture with the sentence that says what one sees; ``plot`` stands for class where it need not fill the page."""
    return tag("figure", body, tag("figcaption", escape(caption)), class_=class_)


def strips(rows: Sequence[tuple[str, Pixels]], alt: str) -> str:
    """Rows of images below one another, column by column comparable, each with its label."""
    tallest = max(images.shape[1] for _, images in rows)
    cells = []
    for label, images in rows:
        enlarged = images.repeat(tallest // images.shape[1], 1).repeat(tallest // images.shape[1], 2)
        cells.append(tag("span", escape(label), class_="label") + picture(enlarged, len(images), f"{alt}: {label}"))
    return tag("div", *cells, class_="strips")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of HTML cells: the first names the row, the second is its number, the last is a note."""
    body = []
    for first, number, *others in rows:
        middle = [tag("td", cell, class_="unit") for cell in others[:-1]]
        last = [tag("td", cell, class_="note") for cell in others[-1:]]
        body.append(tag("tr", tag("th", first, scope="row"), tag("td", number, class_="number"), *middle, *last))
    header = tag("thead", tag("tr", *(tag("th", escape(name), scope="col") for name in head)))
    return tag("table", header, tag("tbody", *body), class_="figures")


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values, as text."""
    body = [tag("tr", tag("th", escape(name), scope="row"), tag("td", tag("code", escape(value)))) for name, value in rows]
    return tag("table", tag("tbody", *body), class_="pairs")


def section(title: str, *body: str) -> str:
    """A heading and what is under it; nothing at all where nothing is."""
    present = [piece for piece in body if piece]
    return tag("section", tag("h2", escape(title)), *present) if present else ""


def document(title: str, *body: str) -> str:
    """The whole page."""
    style = files("ancestral.report").joinpath("style.css").read_text(encoding="utf-8")
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'{tag("title", escape(title))}<link rel="icon" href="data:,">{tag("style", style)}'
    )
    content = own_ids("\n".join(piece for piece in body if piece))
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n<main>\n{content}\n</main>\n</body>\n</html>\n'
