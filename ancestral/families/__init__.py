"""Families: parameters in, one scalar distribution out.

A network says k numbers about every site; a family reads them. Discrete families own symbols 0 .. levels - 1, so they have
probabilities, integer tables and files; continuous ones have densities, and ``Binned`` makes any of them discrete.
Families hold no weights: they are plain values, equal where their fields are equal.
"""

from ancestral.families.base import Continuous as Continuous
from ancestral.families.base import Discrete as Discrete
from ancestral.families.bernoulli import Bernoulli as Bernoulli
from ancestral.families.binned import Binned as Binned
from ancestral.families.categorical import Categorical as Categorical
from ancestral.families.columns import Columns as Columns
from ancestral.families.integer import EqualMassBins as EqualMassBins
from ancestral.families.integer import Integer as Integer
from ancestral.families.integer import IntegerBernoulli as IntegerBernoulli
from ancestral.families.integer import IntegerBins as IntegerBins
from ancestral.families.integer import IntegerCategorical as IntegerCategorical
from ancestral.families.laplace import LaplaceMixture as LaplaceMixture
from ancestral.families.logistic import Logistic as Logistic
from ancestral.families.logistic import LogisticMixture as LogisticMixture
from ancestral.families.logistic import logistic_log_prob as logistic_log_prob
from ancestral.families.normal import Normal as Normal
from ancestral.families.normal import NormalMixture as NormalMixture
from ancestral.families.tables import leaky_table as leaky_table
