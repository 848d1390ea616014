"""Which sites a network with a limited receptive field can settle together: pixels whose inputs are all settled.

Pixel (r, w) takes its turn at time w + slope r, so that a slanted front moves over the image. The slope is chosen such that time
grows along every dependence: Lamport's hyperplane method ("The Parallel Execution of DO Loops", CACM 17(2), 1974)::

      0 1 2 3 4      slope 2: what a pixel reads to the left, straight above, or above and
      2 3 4 5 6      one column to the right has an earlier number, so that equal numbers
      4 5 6 7 8      can go together

Rows and columns are those of the network's layout, in which its order is the raster order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ancestral.causal import CausalNetwork
from ancestral.core import Network
from ancestral.networks.nade import SiteNetwork

Field = set[tuple[int, int]]  # (rows, columns) from a pixel to those that it reads


def slope(field: Field, layout: tuple[int, int, int]) -> int:
    """The smallest whole number s >= 0 with which w + s r grows along every dependence within an image of (C, H, W).

    A pixel that reads dr rows above and dc columns to the right needs s dr > dc. Offsets as long as the image is high or wide
    always lead out of it.

    Example:
        >>> slope({(0, -1), (-1, 1), (-2, 4)}, (1, 28, 28))
        3
    """
    _, height, width = layout
    return max([0, *(column // -row + 1 for row, column in field if -height < row < 0 and column < width)])


def fronts(field: Field, layout: tuple[int, int, int]) -> list[Tensor]:
    """Numbers of sites in the raster order of (C, H, W): those of one tensor can be settled once all before it are.

    There are (slope (H - 1) + W) C fronts: the colours of a pixel come one after the other, as each may read those before it.

    Args:
        field: offsets in rows above, or to the left in the pixel's own row; (0, 0) stands for its own earlier colours.
        layout: (C, H, W).

    Example:
        >>> [numbers.tolist() for numbers in fronts({(0, -1), (-1, 0)}, (1, 2, 3))]
        [[0], [1, 3], [2, 4], [5]]
    """
    channels, height, width = layout
    time = (torch.arange(width) + slope(field, layout) * torch.arange(height)[:, None]).flatten()
    together = [(time == t).nonzero().flatten() for t in range(int(time[-1]) + 1)]
    return [pixels * channels + channel for pixels in together for channel in range(channels)]


def schedule(network: Network) -> list[Tensor]:
    """The sites of a network by their places in a flattened example, front by front.

    Raises:
        ValueError: its receptive field is not known, or not the same everywhere, or so wide that no two pixels could be settled
            together.
    """
    otherwise = "take method='parallel' or method='cached'"
    if not isinstance(network, CausalNetwork):
        raise ValueError(f"{type(network).__name__} does not tell its receptive field, which a wavefront needs; {otherwise}")
    if isinstance(network, SiteNetwork):
        raise ValueError(f"every symbol depends on all before it, so no two can be settled together; {otherwise}")
    program = network.lowered()
    if program.recurrent or program.coarsest > 1:
        what = "recurrences" if program.recurrent else "coarse layers"
        raise ValueError(f"a network with {what} has not the receptive field at every pixel that a wavefront needs; {otherwise}")
    _, height, width = network.layout
    found = fronts(network.receptive_field(), network.layout)
    if len(found) == len(network.order.sites):
        raise ValueError(
            f"the receptive field reaches so far to the right in the rows above that no two pixels of {height} x {width} can be"
            f" settled together, so a wavefront gains nothing; {otherwise}"
        )
    places = torch.tensor(network.order.sites)
    return [places[numbers] for numbers in found]
