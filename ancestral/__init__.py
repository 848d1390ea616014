"""Autoregressive generative models, and VAEs with autoregressive decoders, for images, audio and text.

The public names, loaded when first used, so that ``import ancestral`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ancestral import causal as causal
    from ancestral import data as data
    from ancestral import families as families
    from ancestral import objectives as objectives
    from ancestral import testing as testing
    from ancestral.coding.codec import compress as compress
    from ancestral.coding.codec import decompress as decompress
    from ancestral.coding.errors import CodecError as CodecError
    from ancestral.core import Autoregressive as Autoregressive
    from ancestral.core import Conditional as Conditional
    from ancestral.core import Context as Context
    from ancestral.core import Family as Family
    from ancestral.core import Network as Network
    from ancestral.core import OrderError as OrderError
    from ancestral.core import State as State
    from ancestral.core import StateError as StateError
    from ancestral.core import Walk as Walk
    from ancestral.draw import Draw as Draw
    from ancestral.evaluation import Difference as Difference
    from ancestral.evaluation import Evaluation as Evaluation
    from ancestral.evaluation import compare as compare
    from ancestral.evaluation import complexity as complexity
    from ancestral.evaluation import evaluate as evaluate
    from ancestral.evaluation import score as score
    from ancestral.evaluation import separation as separation
    from ancestral.evaluation import surprisal as surprisal
    from ancestral.hub import load as load
    from ancestral.hub import save as save
    from ancestral.latent.configs import AgaveConfig as AgaveConfig
    from ancestral.latent.configs import BetaVaeConfig as BetaVaeConfig
    from ancestral.latent.configs import IafVaeConfig as IafVaeConfig
    from ancestral.latent.configs import VaeConfig as VaeConfig
    from ancestral.latent.latent import Latent as Latent
    from ancestral.models import build as build
    from ancestral.networks.configs import GatedPixelCNNConfig as GatedPixelCNNConfig
    from ancestral.sampling import arrange as arrange
    from ancestral.sampling import beam_search as beam_search
    from ancestral.sampling import complete as complete
    from ancestral.sampling import interpolate as interpolate
    from ancestral.sampling import log_probs as log_probs
    from ancestral.sampling import sample as sample
    from ancestral.sampling import speculative_sample as speculative_sample
    from ancestral.sampling import stream as stream
    from ancestral.sampling import traverse as traverse
    from ancestral.spec import DataSpec as DataSpec
    from ancestral.spec import Order as Order
    from ancestral.spec import Stage as Stage
    from ancestral.symbols import DataError as DataError
    from ancestral.training import fit as fit
    from ancestral.training import resume as resume

__version__ = "0.1.0"

_HOME = {
    "ancestral.coding.codec": "compress decompress",
    "ancestral.coding.errors": "CodecError",
    "ancestral.core": "Autoregressive Conditional Context Family Network OrderError State StateError Walk",
    "ancestral.draw": "Draw",
    "ancestral.evaluation": "Difference Evaluation compare complexity evaluate score separation surprisal",
    "ancestral.hub": "load save",
    "ancestral.latent.configs": "AgaveConfig BetaVaeConfig IafVaeConfig VaeConfig",
    "ancestral.latent.latent": "Latent",
    "ancestral.models": "build",
    "ancestral.networks.configs": "GatedPixelCNNConfig",
    "ancestral.sampling": "arrange beam_search complete interpolate log_probs sample speculative_sample stream traverse",
    "ancestral.spec": "DataSpec Order Stage",
    "ancestral.symbols": "DataError",
    "ancestral.training": "fit resume",
}
_WHERE = {name: module for module, names in _HOME.items() for name in names.split()}
_MODULES = ("causal", "data", "families", "objectives", "testing")

__all__ = [*sorted(_WHERE), *_MODULES]  # pyright: ignore


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"ancestral.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'ancestral' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
