"""The page of a sweep, and of several on one set of axes: figures, one table, what failed, and the commands."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ancestral.evaluation.bits import Mean
from ancestral.files import write_whole
from ancestral.hub import versions
from ancestral.report.facts import details, with_error
from ancestral.report.page import badge, document, drawing, figure, pairs, paragraph, section, tag
from ancestral.report.sweeps import Point, Record, bounds_in_words, value_in_words, values_in_words
from ancestral.report.tradeoff import Line, cost_split, rate_distortion

COLUMNS = {
    "nats": "nats",
    "bits/dim": "bits_per_dim",
    "rate": "rate",
    "distortion": "distortion",
    "IWAE": "iwae",
    "shuffle cost": "shuffle_cost",
    "I(x; z)": "mutual_information",
}
FORMATS = (".svg", ".png", ".pdf")
Row = tuple[str, Point, str]  # name, point, verdict


@dataclass(frozen=True)
class Family:
    """What one sweep, or one run, brings to a figure.

    Attributes:
        name: what the figure calls it.
        lines: its points, joined along the first setting.
        rows: the same for the table.
    """

    name: str
    lines: Sequence[Line]
    rows: Sequence[Row]


def family_of(record: Record, name: str) -> Family:
    """The points of a sweep: joined along its first setting, a line for all values of the others."""
    first = record.axes[0] if record.axes else None
    lines = dict[str, list[tuple[str, Point]]]()
    for point in record.points:
        others = {axis: value for axis, value in point.values.items() if axis != first}
        label = ", ".join(part for part in (name, values_in_words(others).replace(",", ", ")) if part)
        lines.setdefault(label, []).append((value_in_words(point.values[first]) if first else "", point))
    verdicts = {
        values_in_words(trial.values): str((trial.evaluation or {}).get("verdict") or "") for trial in reversed(record.done)
    }  # of several runs the first one's
    rows = [(values_in_words(point.values), point, verdicts[values_in_words(point.values)]) for point in record.points]
    setting = first.rstrip("_") if first else ""
    return Family(name, [Line(label, points, setting) for label, points in lines.items()], rows)


def figures_of(families: Sequence[Family]) -> dict[str, Figure]:
    """By name: rate against distortion, where a model has latents; and of one family the cost over its setting."""
    lines = [line for family in families for line in family.lines]
    found = dict[str, Figure]()
    if any("rate" in point.figures for line in lines for _, point in line.points):
        found["rate against distortion"] = rate_distortion(lines)
    if not found or (len(families) == 1 and lines[0].setting):
        found["cost over the setting"] = cost_split(lines)
    return found


CAPTIONS = {
    "rate against distortion": (
        "What z costs against what x costs given z, both in nats an example, with standard errors. On the thin lines their sum,"
        " minus the ELBO, is the same: towards the lower left is better. At rate 0 nothing is carried by z."
    ),
    "cost over the setting": "The cost of x in bits/dim with standard errors; the shaded part is what z costs.",
}


def sweep_page(record: Record) -> str:
    """The page of a sweep."""
    families = [family_of(record, "")]
    title = f"Sweep of {record.model} on {record.data['name']}"
    swept = "; ".join(f"{axis.rstrip('_')} {_values(record, axis)}" for axis in record.axes) or "its seeds"
    return document(
        title,
        tag("header", tag("h1", escape(title)), paragraph(f"Swept: {swept}. Judged on the {record.split} set.", "soft")),
        _drawn(figures_of(families)) if record.points else "",
        _table(families),
        section("Failed", pairs([(trial.run, str(trial.error)) for trial in record.failed])) if record.failed else "",
        _provenance(record.data, [trial.command for trial in record.trials]),
    )


def families_page(families: Sequence[Family], data: Mapping[str, Any]) -> str:
    """The page of several sweeps and runs on one set of axes."""
    title = f"{', '.join(family.name for family in families)} on {data['name']}"
    header = tag("header", tag("h1", escape(title)), paragraph(f"Judged on the {data['split']} set.", "soft"))
    return document(title, header, _drawn(figures_of(families)), _table(families), _provenance(data, []))


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure on white, as SVG, PNG or PDF by the ending of its name, whole or not at all.

    Raises:
        ValueError: the name ends otherwise.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"cannot draw into {path}: name a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file")
    memory = io.BytesIO()
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    figure.savefig(memory, format=path.suffix[1:], facecolor="white", dpi=160, metadata=metadata)
    write_whole(path, memory.getvalue())


def _values(record: Record, axis: str) -> str:
    return ", ".join(dict.fromkeys(value_in_words(trial.values[axis]) for trial in record.trials))


def _drawn(figures: Mapping[str, Figure]) -> str:
    drawn = [figure(drawing(each, name), CAPTIONS[name], "plot") for name, each in figures.items()]
    return tag("div", *drawn, class_="cards")


def table_of(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and cells of a table of points, in words; columns that are empty all the way are left out."""
    several = len(_bounds(rows)) > 1
    every = [{"": _spaced(name), **_cells(point, several)} for name, point, _ in rows]
    head = [name for name in every[0] if not name or any(cells[name] for cells in every)]
    return head, [[cells[name] for name in head] for cells in every]


def _spaced(name: str) -> str:
    """A name with one space after every comma.

    >>> _spaced("runs, lambda=2,seed=0")
    'runs, lambda=2, seed=0'
    """
    return ", ".join(part.strip() for part in name.split(","))


def _bounds(rows: Sequence[Row]) -> list[str]:
    """Which importance-weighted bounds there are."""
    return list(dict.fromkeys(point.bound for _, point, _ in rows if point.bound))


def _cells(point: Point, several: bool) -> dict[str, str]:
    """The cells of a point by their titles; that of IWAE says which it is where there are several."""
    found = {title: point.figures.get(name) for title, name in COLUMNS.items()}
    shown = {title: "" if mean is None else _in_words(title, mean) for title, mean in found.items()}
    shown["IWAE"] += f", {point.bound}" if several and point.bound else ""
    active = point.figures.get("active_units")
    return {
        **{title: shown.pop(title) for title in ("nats", "bits/dim")},
        "status": point.status,
        **shown,
        "active units": "" if active is None else f"{active.value:.{0 if point.runs == 1 else 1}f} of {point.units}",
        "runs": str(point.runs),
    }


def _in_words(title: str, mean: Mean) -> str:
    """IWAE as a cost, like the others."""
    return with_error(-mean.value if title == "IWAE" else mean.value, mean.error, 4 if title == "bits/dim" else 2)


def notes_of(rows: Sequence[Row]) -> str:
    """What the cells of a table are."""
    several = any(point.runs > 1 for _, point, _ in rows)
    over = "the runs, which differ in their seeds, where there are several, else over the examples" if several else "the examples"
    bounds, subset = _bounds(rows), ""
    if bounds:
        subset = f" IWAE and shuffle cost on a subset: {bounds_in_words(bounds)}."
    return f"Costs in nats an example where nothing else is said.{subset} ± is the standard error over {over}."


def _table(families: Sequence[Family]) -> str:
    rows = [
        (", ".join(part for part in (family.name, name) if part), point, verdict)
        for family in families
        for name, point, verdict in family.rows
    ]
    if not rows:
        return ""
    head, cells = table_of(rows)
    place = head.index("status")
    marked = [[badge(cell) if i == place else escape(cell) for i, cell in enumerate(row)] for row in cells]
    body = [tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in others)) for first, *others in marked]
    header = tag("thead", tag("tr", *(tag("th", escape(name), scope="col") for name in head)))
    whole = tag("div", tag("table", header, tag("tbody", *body), class_="points"), class_="wide")
    verdicts = [(_spaced(name), verdict) for name, _, verdict in rows if verdict]
    said = section("What z carries", tag("dl", *(tag("dt", escape(name)) + tag("dd", escape(words)) for name, words in verdicts)))
    return section("Figures", whole, paragraph(notes_of(rows), "soft")) + (said if verdicts else "")


def _provenance(data: Mapping[str, Any], commands: Sequence[str]) -> str:
    rows = [
        ("data", str(data["note"])),
        ("hash of the data", str(data["hash"])),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions().items())),
    ]
    again = details("Commands of the runs", tag("pre", tag("code", escape("\n".join(commands))))) if commands else ""
    return section("Provenance", pairs(rows), again)
