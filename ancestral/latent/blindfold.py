"""Decoder dropout: in training the decoder does not read some of the symbols, so that it needs z for what they would have told.

After the word dropout of Bowman et al. 2016, "Generating Sentences from a Continuous Space", section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from ancestral.causal.embedding import Embedding
from ancestral.core import Autoregressive, Context, Network
from ancestral.draw import uniforms
from ancestral.networks.factorised import Factorised

HIDDEN = 2**36  # stream of the uniforms that choose what is not read; it never changes, nor do the numbers that come of it

NONE = -1.0  # in the place of a symbol that would be looked up; see `Embedding`


class Blindfold(Network):
    """A network that does not read some symbols: in their place it is given the middle of the alphabet, or no row of a table.

    Networks that read symbols as numbers scale the middle to zero, which is also what they find beyond the border; real values
    are standardised, so that zero is in the middle. Those that look symbols up find zeros in the place of a row.

    Args:
        network: what reads the rest.
        hidden: (n, *shape) booleans, True where a symbol is not to be read.
        levels: the alphabet, None for real values.
    """

    def __init__(self, network: Network, hidden: Tensor, levels: int | None) -> None:
        super().__init__(tuple(network.shape), network.discrete)
        looked_up = any(isinstance(module, Embedding) for module in network.modules())
        self.network, self.hidden, self.anchor = network, hidden, network.anchor
        self.stand_in = NONE if looked_up else 0.0 if levels is None else (levels - 1) / 2
        self.dtype = torch.float32 if looked_up else network.anchor.dtype  # which holds large alphabets

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        return self.network(x.to(self.dtype).masked_fill(self.hidden, self.stand_in), context)  # type: ignore[no-any-return]


def readable(network: Network) -> bool:
    """Whether a network reads symbols at all."""
    return not isinstance(network, Factorised)


def blindfolded(likelihood: Autoregressive, x: Tensor, dropout: float, seed: int, rows: Sequence[int]) -> Autoregressive:
    """The likelihood of (n, *shape) symbols that reads each of them with probability 1 - dropout.

    Of a pixel it reads all colours or none, of a sample of sound all parts or none.

    Which it reads is a pure function of (seed, row, place). It still predicts all of them.

    Raises:
        ValueError: its network reads no symbols.
    """
    network, spec = likelihood.network, likelihood.spec
    if not readable(network):
        raise ValueError("decoder dropout is for decoders that read their symbols; this one sees z alone, so leave it out")
    if None in spec.shape and network.shape != x.shape[1:]:
        network = network.arrange(shape=tuple(x.shape[1:]))
    shape = (1, *x.shape[2:]) if spec.kind == "image" else (x.shape[1] // spec.parts, *x.shape[2:])
    hidden = (uniforms(seed, rows, prod(shape), HIDDEN) < dropout).view(-1, *shape).to(x.device)
    hidden = hidden.repeat_interleave(spec.parts, 1) if spec.parts > 1 else hidden
    return Autoregressive(Blindfold(network, hidden, spec.levels), likelihood.family, spec)
