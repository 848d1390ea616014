"""``info``: what a compressed file says of itself, without a model."""

from __future__ import annotations

from typing import Any

from ancestral.cli.coded import HINT, PLAIN, VERSION, about, amount, cost, in_words, listing, per_unit
from ancestral.cli.commands import Answer, Info
from ancestral.coding.codec import spec_of
from ancestral.coding.container import STORED
from ancestral.coding.labelled import labelled_header
from ancestral.coding.lossy import latent_bytes
from ancestral.coding.reader import Reader
from ancestral.coding.schemes import LATENTS
from ancestral.walking.twin import TWO_PART


def info(command: Info) -> Answer:
    """What the header and the blocks of a file say."""
    with about(command.file), command.file.open("rb") as file:
        found = Reader(file, "skip").info()
        file.seek(0)
        of_z = latent_bytes(Reader(file, "skip"))
        header, spec = found.header, spec_of(found.header)
        manifest = listing(header, spec, command.file)
    two = header.get("scheme") == TWO_PART
    stored = [(items, size) for kind, items, size in found.blocks.values() if two and kind == STORED and items]
    damage = [each.reason for each in found.damage]
    per = None if damage else cost(manifest, found.size, header.get(PLAIN))
    values = {
        "file": command.file,
        "bytes": found.size,
        "whole": not damage,
        "damage": damage,
        "files": [item.target for item in manifest.items],
        "pictures": manifest.examples,
        "items": header.get("items"),
        "spec": spec.to_dict(),
        "labels": labelled_header(header, spec),
        "scheme": header.get("scheme"),
        "model": header.get("model"),
        "run": header.get(HINT),
        "version": header.get(VERSION),
        "blocks": len(found.blocks),
        "payload_bytes": found.payload,
        "latent_bytes": of_z,
        "stored_items": sum(items for items, _ in stored),
        "stored_bytes": sum(size for _, size in stored),
        "kept_bytes": found.kept,
        "overhead_bytes": None if damage else found.overhead,
        "unread_bytes": found.overhead if damage else 0,
        "model_bytes": found.weights,
        **per_unit(per),
    }
    return Answer(values, _told(values, amount(manifest, manifest.examples), in_words(per)))


def _latents(values: dict[str, Any]) -> dict[str, str]:
    """What z takes of a file, where it stands by itself; nothing of a damaged one, since who knows what is missing."""
    of_z, stored = values["latent_bytes"], values["stored_items"]
    n = values["items"] - stored
    if of_z is None or not values["items"] or not values["whole"]:
        return {}
    raw = f"{stored:,} items are stored as they are, which takes less"
    if not n:
        return {"bits": raw}
    rest = 8 * (values["payload_bytes"] - values["kept_bytes"] - values["stored_bytes"] - of_z) / n
    given = "nothing else is kept" if values["scheme"] == LATENTS else f"x given z {rest:.1f}"
    return {"bits": f"an item on average: z {8 * of_z / n:.1f}, {given}{f'; {raw}' if stored else ''}"}


def _told(values: dict[str, Any], what: str, per: str) -> list[str]:
    spec, embedded = values["spec"], values["model_bytes"]
    shape, files, items = "x".join(map(str, spec["shape"])), len(values["files"]), values["items"]
    over = (
        f"{values['overhead_bytes']:,} of overhead"
        if values["whole"]
        else f"{values['unread_bytes']:,} of headers, lost or unread"
    )
    kept = f", {values['kept_bytes']:,} of them kept beside the symbols" if values["kept_bytes"] else ""
    rows = {
        "holds": f"{what} in {files:,} file{'s' * (files != 1)}, {items:,} item{'s' * (items != 1)}",
        "items": f"{spec['kind']} {shape}, {spec['levels']} levels{', with labels' if values['labels'] else ''}",
        "model": f"{values['model']}, of run {values['run'] or 'unknown'}",
        "scheme": f"{values['scheme']}, ancestral {values['version'] or 'of unknown version'}",
        "blocks": f"{values['blocks']:,}, {values['payload_bytes']:,} bytes of payload{kept}",
        **_latents(values),
        "bytes": f"{values['bytes']:,}: {over}, {embedded:,} of an embedded model",
        **({"in all": per} if per else {}),
        "whole": "yes" if values["whole"] else f"no: {'; '.join(values['damage'])}",
    }
    return [f"{name:<10}{words}" for name, words in rows.items()]
