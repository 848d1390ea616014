"""What the latent-variable models of text and sound share: the pass over their latents, and the auxiliary loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ancestral.core import Context, OrderError
from ancestral.latent.configs import check_share
from ancestral.latent.encoders import Handed, evened
from ancestral.latent.generation import Decoding, Generator
from ancestral.latent.posteriors import posterior_of
from ancestral.latent.priors import prior_of
from ancestral.latent.sequence_configs import SequenceVaeFields
from ancestral.latent.sequence_encoders import Places, PlacesDecoder, Pool, SequenceEncoder, halved
from ancestral.latent.topdown import Choose, Descent, Group, TopDown, rows_of, seen
from ancestral.spec import DataSpec


class Level(nn.Module):
    """One group of latents.

    Args:
        name: of the group.
        shape: (d,) of a vector, (d, P, 1) of a grid.
        fields: posterior, prior and sizes.
        vector: size of a label's vector, 0 for none.
        merge: (z above, z, label vector) to what comes next; see `generation.Stage`.
    """

    def __init__(self, name: str, shape: tuple[int, ...], fields: SequenceVaeFields, vector: int, merge: nn.Module) -> None:
        super().__init__()
        self.name, self.shape, self.merge = name, shape, merge
        self.posterior, self.prior = posterior_of(fields, shape), prior_of(fields, shape, vector)
        head = Pool if len(shape) == 1 else Places
        self.head = head(fields.width, self.posterior.outputs)


class SequenceTopDown(TopDown):
    """A vector z of a whole sequence, a grid of them along it, or the vector above the grid; all read features of x.

    Args:
        spec: the data.
        fields: sizes, posterior and prior.
        vector: size of a label's vector, 0 for none.
        whole: whether there is the vector, which is handed on as it is.
        maps: features that the grid is decoded to, 0 where there is none.

    Raises:
        ValueError: the data are no sequences of integers, sizes make no sense, or a grid is to go with lengths that vary.
    """

    def __init__(self, spec: DataSpec, fields: SequenceVaeFields, vector: int, whole: bool, maps: int = 0) -> None:
        super().__init__()
        self._check(spec, fields, maps)
        self.encoder = SequenceEncoder(spec, fields.width, fields.blocks, fields.halvings, vector)
        levels = []
        if whole:
            levels.append(Level("z", (fields.latent,), fields, vector, Decoding(Handed(0 if maps else vector))))
        if maps:
            above = fields.latent if whole else 0
            decoder = PlacesDecoder(maps, fields.latent, fields.width, fields.blocks, above, vector)
            evened(decoder)
            shape = (fields.latent, halved((spec.shape[0] or 0) // spec.parts, fields.halvings), 1)
            levels.append(Level("local" if whole else "z", shape, fields, vector, decoder))
        self.levels = nn.ModuleList(levels)
        self.anchor = nn.Buffer(torch.zeros(()), persistent=False)  # tells device and type

    @staticmethod
    def _check(spec: DataSpec, fields: SequenceVaeFields, maps: int) -> None:
        if not spec.sequence or spec.levels is None:
            raise ValueError(f"this model is of text or sound in whole numbers, not of {spec.kind} with levels={spec.levels}")
        if fields.spatial:
            raise ValueError("spatial is of images: z along a sequence is a matter of the form")
        if maps and None in spec.shape:
            raise ValueError(
                "a grid of z needs examples of one length: cut the data into blocks (pieces='blocks', --pieces blocks), or take"
                " form='global'"
            )

    @property
    def groups(self) -> Sequence[Level]:
        """The groups, from the top."""
        return list(self.levels)  # type: ignore[arg-type]

    def descend(
        self, choose: Choose, evidence: Tensor | None = None, context: Context | None = None, n: int | None = None
    ) -> Descent:
        vector = context.vector if context else None
        rows = rows_of(evidence, vector, n)
        encoded, groups, h = None if evidence is None else self.encoder(evidence, vector), list[Group](), None
        for level in self.groups:
            prior = level.prior(self.anchor.expand(rows, *level.shape), vector)
            posterior: Distribution | None = (
                None if encoded is None else level.posterior(level.head(*encoded).to(self.anchor.dtype))
            )
            z = choose(level.name, prior, posterior)
            groups.append(Group(level.name, z, prior, posterior))
            h = level.merge(h, z, vector)
        return Descent(Context() if h is None else seen(h, vector), groups)

    def generator(self) -> Generator:
        return Generator(tuple(level.prior.stage(level.name, level.shape, level.merge) for level in self.groups))

    def arranged(self, shape: tuple[int, ...]) -> TopDown:
        if any(len(level.shape) > 1 for level in self.groups):
            spec = self.encoder.spec
            own, other = ((size or 0) // spec.parts for size in (spec.shape[0], shape[0]))
            raise OrderError(
                f"the grid of latents of this model belongs to the length {own}, not {other}: ask for that one (--length {own}),"
                " or train a model with form='global', which takes any"
            )
        return self


def labels_of(config: SequenceVaeFields, spec: DataSpec, conditional: bool, beside: bool) -> int:
    """Size of a label's vector, 0 for none.

    Args:
        conditional: whether the model is told labels.
        beside: whether its decoder reads them and z as one vector.

    Raises:
        ValueError: stages are asked for that the model does not have, or a share that is none.
    """
    stages = ("both", "vae", config.pretrained)
    if config.pretrain not in stages:
        raise ValueError(f"pretrain is {config.pretrain!r}; it is one of {', '.join(stages)}")
    check_share("pretraining", config.pretraining)
    if config.pretraining and not config.auxiliary:
        raise ValueError("pretraining is of a model with an auxiliary loss: give auxiliary=True, or leave it out")
    if config.pretraining and conditional and beside:
        raise ValueError("a decoder that reads the label beside z cannot be trained without z: leave pretraining out")
    return (spec.classes or 0) if conditional else 0
