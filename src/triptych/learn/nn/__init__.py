"""Building blocks with no loss inside."""

from triptych.learn.nn.attention import SelfAttention
from triptych.learn.nn.block import Block
from triptych.learn.nn.cache import KeyValueCache
from triptych.learn.nn.conv import Downward, Upward
from triptych.learn.nn.mask import Mask
from triptych.learn.nn.mlp import MLP
from triptych.learn.nn.quantizer import FiniteScalarQuantizer, MovingQuantizer, Quantizer, VectorQuantizer
from triptych.learn.nn.rotary import Rotary

__all__ = [
    "MLP",
    "Block",
    "Downward",
    "FiniteScalarQuantizer",
    "KeyValueCache",
    "Mask",
    "MovingQuantizer",
    "Quantizer",
    "Rotary",
    "SelfAttention",
    "Upward",
    "VectorQuantizer",
]
