"""By what an engine computes it is known whether two machines give the same bytes."""

from __future__ import annotations

import hashlib

import numpy as np

from triptych import __version__
from triptych.bundle.manifest import TextSampler
from triptych.infer import Engine, machine

ROWS, TOKENS = 8, 16


def fingerprint(engine: Engine) -> bytes:
    """A digest of how `engine` computes and of what comes out: engines and their versions, and the bytes of a
    fixed batch.

    Settings alone do not tell: `auto` may choose otherwise on another processor, and one processor's kernels
    may round otherwise than another's.
    """
    how = f"{__version__} {engine.backend.name} {engine.token_graph} {machine.versions()}"
    digest = hashlib.sha256(how.encode())
    if isinstance(engine.manifest.sampler, TextSampler):
        text = engine.generate((0,), max_tokens=TOKENS, seed=0, logprobs=True)
        digest.update(np.asarray(text.token_ids, np.int64).tobytes())
        digest.update(np.asarray(text.logprobs, np.float64).tobytes())
    else:
        digest.update(np.ascontiguousarray(engine.sample(ROWS, seed=0)).tobytes())
    return digest.digest()
