"""Decoder dropout: in training the decoder does not read some of the symbols, so that it needs z for what they would have told.

After the word dropout of Bowman et al. 2016, "Generating Sentences from a Continuous Space", section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor

from ancestral.causal.embedding import Embedding
from ancestral.core import Autoregressive, Context, Network
from ancestral.draw import uniforms
from ancestral.networks.factorised import Factorised

HIDDEN = 2**36  # stream of the uniforms that choose what is not read; it never changes, nor do the numbers that come of it


class Blindfold(Network):
    """A network that does not read some symbols: in their place it is given the middle of the alphabet.

    Networks of images scale that to zero, which is also what they find beyond the border; real values are standardised, so
    that zero is in the middle.

    Args:
        network: what reads the rest.
        hidden: (n, *shape) booleans, True where a symbol is not to be read.
        levels: the alphabet, None for real values.
    """

    def __init__(self, network: Network, hidden: Tensor, levels: int | None) -> None:
        super().__init__(tuple(network.shape), network.discrete)
        self.network, self.hidden, self.middle = network, hidden, 0.0 if levels is None else (levels - 1) / 2

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        return self.network(x.to(self.network.anchor.dtype).masked_fill(self.hidden, self.middle), context)  # type: ignore[no-any-return]


def readable(network: Network) -> bool:
    """Whether a network reads symbols, and as numbers, so that the middle of the alphabet can stand for one that is missing."""
    return not isinstance(network, Factorised) and not any(isinstance(module, Embedding) for module in network.modules())


def blindfolded(likelihood: Autoregressive, x: Tensor, dropout: float, seed: int, rows: Sequence[int]) -> Autoregressive:
    """The likelihood of (n, *shape) symbols that reads each of them with probability 1 - dropout; of a pixel all colours or none.

    Which it reads is a pure function of (seed, row, place). It still predicts all of them.

    Raises:
        ValueError: its network reads no symbols, or looks them up in a table, which has no row for none.
    """
    network, spec = likelihood.network, likelihood.spec
    if not readable(network):
        what = "sees z alone" if isinstance(network, Factorised) else "looks them up in a table"
        raise ValueError(f"decoder dropout is for decoders that read their symbols as numbers; this one {what}, so leave it out")
    shape = (1, *x.shape[2:]) if spec.kind == "image" else tuple(x.shape[1:])
    hidden = (uniforms(seed, rows, prod(shape), HIDDEN) < dropout).view(-1, *shape).to(x.device)
    return Autoregressive(Blindfold(network, hidden, spec.levels), likelihood.family, spec)
