"""The laws that every ancestral model obeys, as a check that anyone can run on a model of their own.

    report = ancestral.testing.check(model)
    report.raise_if_failed()

A law holds of the structure, not of the weights: it is tested on a copy in float64 whose weights are moved a little, so
that a layer that starts at zero cannot hide a leak. A law is never loosened to pass.
"""

from ancestral.testing.checking import LAWS as LAWS
from ancestral.testing.checking import Outcome as Outcome
from ancestral.testing.checking import Report as Report
from ancestral.testing.checking import check as check
from ancestral.testing.distributions import bound as bound
from ancestral.testing.distributions import normalised as normalised
from ancestral.testing.distributions import sampled as sampled
from ancestral.testing.distributions import table as table
from ancestral.testing.files import exact as exact
from ancestral.testing.files import lossless as lossless
from ancestral.testing.structure import batch as batch
from ancestral.testing.structure import causal as causal
from ancestral.testing.structure import context as context
from ancestral.testing.structure import lowered as lowered
from ancestral.testing.structure import stepwise as stepwise
from ancestral.testing.subjects import ENUMERABLE as ENUMERABLE
from ancestral.testing.subjects import EXACT as EXACT
from ancestral.testing.subjects import LawBroken as LawBroken
from ancestral.testing.subjects import NotApplicable as NotApplicable
from ancestral.testing.subjects import Subject as Subject
from ancestral.testing.subjects import random_symbols as random_symbols
from ancestral.testing.subjects import require as require
from ancestral.testing.subjects import subject as subject
