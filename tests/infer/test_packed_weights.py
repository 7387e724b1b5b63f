"""Packed weights in the cache: the bytes of a session that packs for itself, whatever befell the files."""

import logging
import os
import resource
import threading

import numpy as np
import pytest

import triptych
from triptych.bundle import reader
from triptych.infer import machine, packed_weights


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, into which graphs of any size go."""
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packed_weights, "MIN_BYTES", 0)
    return tmp_path / "cache" / "packed"


def entries(cache):
    return sorted(entry for entry in cache.iterdir() if entry.is_dir())


def sampled(bundle):
    with triptych.load(bundle, engine="onnxruntime", share_weights=True) as engine:
        return engine.sample(3, seed=1)


def mapped_files():
    with open("/proc/self/maps") as maps:
        return {line.split(maxsplit=5)[5].strip() for line in maps if packed_weights.WEIGHTS in line}


def test_the_file_is_mapped_and_the_bytes_are_those_of_private_weights(cache, vae, vae_bundle):
    with triptych.load(vae_bundle, engine="onnxruntime", share_weights=True) as engine:
        assert engine.sample(3, seed=1).tobytes() == vae.sample(3, seed=1).tobytes()
        (entry,) = entries(cache)
        assert mapped_files() == {str(entry / packed_weights.WEIGHTS)}


def test_a_text_has_the_tokens_and_log_probabilities_of_private_weights(cache, text, text_bundle):
    with triptych.load(text_bundle, share_weights=True) as engine:
        wanted, found = (
            each.generate("ab", max_tokens=12, seed=4, logprobs=True, echo=True) for each in (text, engine)
        )
        assert found == wanted
        assert len(entries(cache)) == 2  # the token steps, and the scores of the prompt


def test_nothing_is_written_unless_asked_for_nor_for_small_weights(tmp_path, monkeypatch, vae_bundle):
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path))
    sampled(vae_bundle)
    monkeypatch.setattr(packed_weights, "MIN_BYTES", 0)
    with triptych.load(vae_bundle, engine="onnxruntime") as engine:
        engine.sample(1)
    assert not list(tmp_path.iterdir())


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(data)


def cut(file):
    file.chmod(0o600)
    os.truncate(file, 100)


DAMAGES = {
    "a bit of the weights": lambda entry: flip(entry / packed_weights.WEIGHTS),
    "a bit of the graph": lambda entry: flip(entry / packed_weights.GRAPH),
    "a bit of the seal": lambda entry: flip(entry / packed_weights.SEAL),
    "weights cut short": lambda entry: cut(entry / packed_weights.WEIGHTS),
    "weights missing": lambda entry: (entry / packed_weights.WEIGHTS).unlink(),
    "seal missing": lambda entry: (entry / packed_weights.SEAL).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_pair_is_made_anew(cache, vae_bundle, damage):
    wanted = sampled(vae_bundle)
    (entry,) = entries(cache)
    DAMAGES[damage](entry)
    assert sampled(vae_bundle).tobytes() == wanted.tobytes()
    assert packed_weights.read(entry) is not None


def test_another_processor_or_bundle_has_a_pair_of_its_own(vae_bundle, text_bundle, monkeypatch):
    bundle = reader.read(vae_bundle)
    keys = [packed_weights.key(bundle, "decode"), packed_weights.key(bundle, "encode")]
    keys.append(packed_weights.key(reader.read(text_bundle), "decode"))
    monkeypatch.setattr(machine, "processor", lambda: "another")
    keys.append(packed_weights.key(bundle, "decode"))
    assert len(set(keys)) == len(keys)


def test_what_another_user_wrote_is_not_computed_with(cache, vae_bundle, monkeypatch, caplog):
    sampled(vae_bundle)
    (entry,) = entries(cache)
    os.chown(entry, 12345, 12345) if os.geteuid() == 0 else monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert packed_weights.read(entry) is None
    assert "another user wrote it" in caplog.text


def test_without_a_cache_each_process_packs_for_itself_and_says_so(
    tmp_path, monkeypatch, vae, vae_bundle, caplog
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(packed_weights, "MIN_BYTES", 0)
    with caplog.at_level(logging.WARNING):
        found = sampled(vae_bundle)
    assert found.tobytes() == vae.sample(3, seed=1).tobytes()
    assert "this process packs weights for itself alone" in caplog.text
    assert not mapped_files()


def test_a_full_disk_leaves_nothing_behind(cache, vae, vae_bundle, caplog):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # less than the weights
    try:
        found = sampled(vae_bundle)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert found.tobytes() == vae.sample(3, seed=1).tobytes()
    assert "this process packs weights for itself alone" in caplog.text
    assert entries(cache) == []


def test_of_many_that_want_a_pair_one_writes_it(cache, vae_bundle):
    bundle, written, barrier = reader.read(vae_bundle), [], threading.Barrier(4)

    def write(folder):
        written.append(folder)
        (folder / packed_weights.GRAPH).write_bytes(b"graph")
        (folder / packed_weights.WEIGHTS).write_bytes(b"weights")

    def want():
        barrier.wait()
        found.append(packed_weights.shared(bundle, "decode", write, lambda pair: pair))

    found: list[packed_weights.Packed] = []
    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(written) == 1
    assert found == [packed_weights.Packed(b"graph", *entries(cache))] * 4


def test_what_a_killed_process_left_half_written_is_removed(cache, vae_bundle):
    entry = cache / packed_weights.key(reader.read(vae_bundle), "decode")
    half = entry.with_suffix(".partial")
    half.mkdir(parents=True)
    (half / packed_weights.WEIGHTS).write_bytes(b"half")
    sampled(vae_bundle)
    assert entries(cache) == [entry]


def test_the_pairs_opened_longest_ago_make_room(cache, vae_bundle, text_bundle, monkeypatch):
    sampled(vae_bundle)
    (old,) = entries(cache)
    os.utime(old, (1, 1))
    monkeypatch.setattr(packed_weights, "KEPT_BYTES", 0)
    with triptych.load(vae_bundle, engine="onnxruntime", share_weights=True) as engine:  # mapped it
        engine.backend.open("decode")
        os.utime(old, (1, 1))
        triptych.load(text_bundle, share_weights=True).open()
        assert old not in entries(cache)
        np.testing.assert_array_equal(engine.sample(3, seed=1), sampled(vae_bundle))
