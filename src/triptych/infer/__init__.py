"""Run a bundle on the CPU, without torch.

::

    engine = triptych.load("my-vae")
    engine.sample(16, seed=0)                    # numpy, shape (16, *sample_shape)
    engine.encode(x), engine.decode(z)           # also reconstruct, interpolate, traversal, log_prob
    engine.run("decode", {"z": z})               # named arrays in, named arrays out
    engine.generate("To be", max_tokens=200)     # text: .text, .token_ids, .finish_reason, .logprobs
"""

from __future__ import annotations

from triptych.infer.decoding import DecodeLoop, TokenEvent
from triptych.infer.engine import Engine
from triptych.infer.generation import Generation, GenerationStream
from triptych.infer.latents import Posterior
from triptych.infer.loading import load
from triptych.infer.request import GenerationRequest

__all__ = [
    "DecodeLoop",
    "Engine",
    "Generation",
    "GenerationRequest",
    "GenerationStream",
    "Posterior",
    "TokenEvent",
    "load",
]
