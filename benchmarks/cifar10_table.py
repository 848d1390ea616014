"""Where do the models here stand in the AGAVE paper's Table 1 (CIFAR-10, bits/dim) after half an hour of one core each?

Puts published figures, of days on GPUs, beside what `benchmarks/images.py NAME cifar10 DATA --minutes 30` and
`benchmarks/flows.py NAME DATA --minutes 30` have recorded. Rows that nothing here is a model of stay empty.

    python benchmarks/cifar10_table.py
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import Record

RESULTS = Path(__file__).parent / "results"
SIGNS = {"exact": "", "bound": "≤ "}


@dataclass(frozen=True)
class Entry:
    """A row: a model, what was published of it, and what a record of ours begins with, if there can be one."""

    model: str
    published: str
    record: str = ""

    def ours(self, rows: dict[str, Any]) -> tuple[str, str]:
        """Bits/dim and CPU-minutes, as far as recorded."""
        row = rows.get(f"{self.record}, 30 minutes, seed 0")
        return ("", "") if row is None else (f"{SIGNS[row['status']]}{row['bits_per_dim']:.2f}", f"{row['cpu_minutes']:.0f}")


ENTRIES = (
    Entry("NICE (Dinh et al. 2014)", "4.48", "nice"),
    Entry("Convolutional DRAW (Gregor et al. 2016)", "≤ 3.58"),
    Entry("Real NVP (Dinh et al. 2017)", "3.49", "real-nvp"),
    Entry("MatNet (Bachman 2016)", "≤ 3.24"),
    Entry("PixelCNN (van den Oord et al. 2016)", "3.14", "pixelcnn, cifar10"),
    Entry("VAE with inverse autoregressive flow (Kingma et al. 2016)", "≤ 3.11", "iaf-vae, cifar10"),
    Entry("Gated PixelCNN (van den Oord et al. 2016)", "3.03", "gated-pixelcnn, cifar10"),
    Entry("PixelRNN (van den Oord et al. 2016): theirs the Diagonal BiLSTM, here the Row LSTM", "3.00", "row-lstm, cifar10"),
    Entry("Auxiliary PixelCNN, grey (Kolesnikov & Lampert 2017)", "2.98", "two-stage, cifar10"),
    Entry("VLAE (Chen et al. 2017)", "≤ 2.95", "vlae, cifar10"),
    Entry("AGAVE (Lucas & Verbeek 2018): theirs at lambda 12", "≤ 2.92", "agave, cifar10"),
    Entry("PixelCNN++ (Salimans et al. 2017)", "2.92", "pixelcnn++, cifar10"),
)


def main() -> None:
    rows = Record(RESULTS / "images.json", "").content["rows"] | Record(RESULTS / "flows.json", "").content["rows"]
    print("| model | published | here | CPU-minutes |\n|---|---|---|---|")
    for entry in ENTRIES:
        print(f"| {entry.model} | {entry.published} | {' | '.join(entry.ours(rows))} |")


if __name__ == "__main__":
    main()
