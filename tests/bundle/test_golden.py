"""Golden bytes: what was written and drawn yesterday is written and drawn today."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from triptych.bundle import noise

FILES = {
    "decode.onnx": "6ed5da074fbf9fc6d1f5caa09f5dafe6723f4ffd95eb75a29db316264ae87321",
    "manifest.json": "f99df289242ecbadf7938406c4363d382f1c1a0a1f66b3dc099a069083dd31d2",
    "model.safetensors": "73d3507ff4316ea0512516194c938318cc87cfb3aaca506ef58ac7290251dff7",
}
NORMALS = {
    (0, 0, 0, None): "4665753dd6ed7e3c520c95bfa6d407be7e3b0b3f754c4dbe",
    (7, 3, 0, None): "8239b9bff0d569bfc9fb03bf4a1fee3fbf121ebefe91f63d",
    (7, 3, 2, None): "3c7804c012973fbf4260cdbd4f5eeebe302ba43fdfb3a53e",
    (9223372036854775807, 5, 0, None): "a8ebb5bf88cf64bf9c3f2ebfc9d8df3fddcc01beafeb4640",
    (7, 3, 0, 0.5): "eda5bebe6e1fadbe2f03bb3e123186bebf121ebefe91f63d",
}
WORDS = ["355e1e86e4aedd00", "89d466f3e22d8e22", "4db61267c2277c95", "8197028995924a6f", "16798b1a9c613dba"]
MILLION = "3e16f2e29caca19e87a7c673398cbef06607dccbc69d5e934927663b6a1d5d20"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_bundle_is_written_with_the_same_bytes(by_hand: Path) -> None:
    assert {path.name: sha256(path.read_bytes()) for path in by_hand.iterdir()} == FILES


@pytest.mark.parametrize(("seed", "index", "domain", "truncation"), NORMALS)
def test_normal_numbers_are_the_same_bytes(
    seed: int, index: int, domain: int, truncation: float | None
) -> None:
    drawn = noise.normal([seed], [index], (2, 3), domain=domain, truncation=truncation)
    assert drawn.astype("<f4").tobytes().hex() == NORMALS[seed, index, domain, truncation]


def test_words_and_uniform_numbers_of_a_stream_are_the_same() -> None:
    words = noise.stream(7, 3, noise.TOKEN).bit_generator.random_raw(5)
    assert [f"{word:016x}" for word in words] == WORDS
    assert [noise.stream(7, 3, noise.TOKEN).random()] == [(int(WORDS[0], 16) >> 11) / 2**53]


def test_many_normal_numbers_are_the_same_bytes() -> None:
    """A million draws visit every layer of the ziggurat, its wedges and its tail."""
    drawn = noise.normal([1], [2], (1_000_000,))
    assert sha256(drawn.astype("<f4").tobytes()) == MILLION
