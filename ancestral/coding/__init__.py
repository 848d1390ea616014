"""Lossless coding: an entropy coder whose tables are integers, and a file format that checks itself."""

from ancestral.coding.coder import PRECISION as PRECISION
from ancestral.coding.coder import SLOTS as SLOTS
from ancestral.coding.coder import Stack as Stack
from ancestral.coding.container import CODED as CODED
from ancestral.coding.container import STORED as STORED
from ancestral.coding.container import Block as Block
from ancestral.coding.container import Writer as Writer
from ancestral.coding.container import digest as digest
from ancestral.coding.errors import CodecError as CodecError
from ancestral.coding.errors import CorruptBlock as CorruptBlock
from ancestral.coding.errors import CorruptHeader as CorruptHeader
from ancestral.coding.errors import CorruptTrailer as CorruptTrailer
from ancestral.coding.errors import DecodeMismatch as DecodeMismatch
from ancestral.coding.errors import NotAnAncFile as NotAnAncFile
from ancestral.coding.errors import NumericsError as NumericsError
from ancestral.coding.errors import TruncatedFile as TruncatedFile
from ancestral.coding.errors import UnsupportedVersion as UnsupportedVersion
from ancestral.coding.errors import WrongModel as WrongModel
from ancestral.coding.reader import Damage as Damage
from ancestral.coding.reader import Info as Info
from ancestral.coding.reader import Reader as Reader
