"""The closed set of causal primitives, each with a parallel and a stepwise meaning. See `layer` for the contract."""

from ancestral.causal.context import Once as Once
from ancestral.causal.layer import CausalityError as CausalityError
from ancestral.causal.layer import Clock as Clock
from ancestral.causal.layer import Input as Input
from ancestral.causal.layer import Labels as Labels
from ancestral.causal.layer import Layer as Layer
from ancestral.causal.layer import Pointwise as Pointwise
from ancestral.causal.layer import Reach as Reach
from ancestral.causal.layer import Signal as Signal
from ancestral.causal.network import CausalNetwork as CausalNetwork
from ancestral.causal.pointwise import Scale as Scale
from ancestral.causal.pointwise import gate as gate
from ancestral.causal.pointwise import relu as relu
from ancestral.causal.window2d import AboveAffine as AboveAffine
from ancestral.causal.window2d import LeftAffine as LeftAffine
from ancestral.causal.window2d import spread as spread
