"""Texts as they are made, in order: memory is that of some, whatever their number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triptych.infer import Engine

MOST_HELD = 1024  # texts that wait for one before them


def texts(engine: Engine, n: int, seed: int, settings: Mapping[str, Any]) -> Iterator[str]:
    """`n` continuations of a prompt, each with the prompt before it; `settings` are fields of
    `GenerationRequest`.
    """
    from triptych.infer import GenerationRequest
    from triptych.infer.text_generator import SLOTS

    loop = engine.decode_loop(min(n, SLOTS))
    held: dict[int, list[str]] = {}  # pieces by id, in the order of the texts
    done: set[int] = set()
    added = 0
    while added < n or held:
        while added < n and len(held) < MOST_HELD and len(loop) < 2 * SLOTS:
            held[loop.add(GenerationRequest(seed=seed, index=added, **settings))] = [settings["prompt"]]
            added += 1
        for event in loop.step():
            if event.error is not None:
                raise event.error
            held[event.id].append(event.text)
            if event.finish_reason is not None:
                done.add(event.id)
        while held and (first := next(iter(held))) in done:
            done.remove(first)
            yield "".join(held.pop(first))
