"""Where do the models here stand in the AGAVE paper's Table 1 (CIFAR-10, bits/dim) after half an hour of one core each?

Puts published figures, of days on GPUs, beside what `benchmarks/images.py NAME cifar10 DATA --minutes 30` and
`benchmarks/flows.py NAME DATA --minutes 30` have recorded. Rows that nothing here is a model of stay empty.

    python benchmarks/cifar10_table.py
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
SIGNS = {"exact": "", "bound": "≤ "}


@dataclass(frozen=True)
class Entry:
    """A row: a model, what was published of it, and where a run of ours is recorded, if there can be one."""

    model: str
    published: str
    name: str = ""
    results: str = "images"

    def ours(self) -> tuple[str, str]:
        """Bits/dim and CPU-minutes, as far as recorded."""
        path = RESULTS / f"{self.results}.json"
        rows = json.loads(path.read_text())["rows"] if self.name and path.exists() else {}
        key = f"{self.name}, seed 0" if self.results == "flows" else f"{self.name}, cifar10, 30 minutes, seed 0"
        if key not in rows:
            return "", ""
        row = rows[key]
        return f"{SIGNS[row['status']]}{row['bits_per_dim']:.2f}", f"{row['cpu_minutes']:.0f}"


ENTRIES = (
    Entry("NICE (Dinh et al. 2014)", "4.48", "nice", "flows"),
    Entry("Convolutional DRAW (Gregor et al. 2016)", "≤ 3.58"),
    Entry("Real NVP (Dinh et al. 2017)", "3.49", "real-nvp", "flows"),
    Entry("MatNet (Bachman 2016)", "≤ 3.24"),
    Entry("PixelCNN (van den Oord et al. 2016)", "3.14", "pixelcnn"),
    Entry("VAE with inverse autoregressive flow (Kingma et al. 2016)", "≤ 3.11", "iaf-vae"),
    Entry("Gated PixelCNN (van den Oord et al. 2016)", "3.03", "gated-pixelcnn"),
    Entry("PixelRNN (van den Oord et al. 2016): theirs the Diagonal BiLSTM, here the Row LSTM", "3.00", "row-lstm"),
    Entry("Auxiliary PixelCNN, grey (Kolesnikov & Lampert 2017)", "2.98", "two-stage"),
    Entry("VLAE (Chen et al. 2017)", "≤ 2.95", "vlae"),
    Entry("AGAVE (Lucas & Verbeek 2018): theirs at lambda 12", "≤ 2.92", "agave"),
    Entry("PixelCNN++ (Salimans et al. 2017)", "2.92", "pixelcnn++"),
)


def main() -> None:
    print("| model | published | here | CPU-minutes |\n|---|---|---|---|")
    for entry in ENTRIES:
        print(f"| {entry.model} | {entry.published} | {' | '.join(entry.ours())} |")


if __name__ == "__main__":
    main()
