"""One file per performance claim: the results are compared, then both sides are timed in one run.

A figure counts as a ratio: reference and ours take turns, the same number of threads each, and the median of
the pairwise ratios is what is said.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from triptych.bench.comparison import Comparison, Result


def infer() -> list[Comparison]:
    """Decoding latents: eager PyTorch beside the engine."""
    from triptych.bench.infer import compare_decoding

    return compare_decoding()


def generate() -> list[Comparison]:
    """Text, token by token: `transformers` beside the engine."""
    from triptych.bench.generate import compare_generation

    return compare_generation()


def train() -> list[Comparison]:
    """Training each family: the textbook loop beside the trainer."""
    from triptych.bench.train import compare_training
    from triptych.bench.train_gan import compare_gan_training
    from triptych.bench.train_text import compare_text_training

    return [*compare_training(), *compare_gan_training(), *compare_text_training()]


def serve() -> list[Comparison]:
    """Requests over HTTP: FastAPI with eager PyTorch beside `triptych serve`; a server asked for too much."""
    from triptych.bench.overload import compare_overload
    from triptych.bench.serve import compare_serving

    return [*compare_serving(), *compare_overload()]


def load() -> list[Comparison]:
    """From a bundle to its first sample, beside torch; to the command's help; to a server's first answer."""
    from triptych.bench.loading import compare_loading

    return compare_loading()


def memory() -> Sequence[Result]:
    """Workers that share weights: FastAPI with eager PyTorch beside `triptych serve`."""
    from triptych.bench.memory import compare_memory

    return compare_memory()


def broker() -> list[Comparison]:
    """Messages through RabbitMQ: a plain aio-pika consumer beside ours."""
    from triptych.serve.chaos.rabbit import is_installed

    if not is_installed():
        print("bench broker: left out, RabbitMQ is not installed (`make system`)", file=sys.stderr)
        return []
    from triptych.bench.broker import compare_messages

    return compare_messages()


BENCHES: dict[str, Callable[[], Sequence[Result]]] = {
    "infer": infer,
    "generate": generate,
    "train": train,
    "serve": serve,
    "load": load,
    "memory": memory,
    "broker": broker,
}
