"""Building blocks with no loss inside."""

from triptych.learn.nn.attention import SelfAttention
from triptych.learn.nn.block import Block
from triptych.learn.nn.cache import KeyValueCache
from triptych.learn.nn.mask import Mask
from triptych.learn.nn.mlp import MLP
from triptych.learn.nn.rotary import Rotary

__all__ = ["MLP", "Block", "KeyValueCache", "Mask", "Rotary", "SelfAttention"]
