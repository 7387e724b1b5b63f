"""The bench of decoding: every way the machine has, each within its gate before it is timed."""

from importlib import import_module

import pytest

from triptych.bench.comparison import by_turns
from triptych.errors import TriptychError
from triptych.infer.ways import PLAIN, WAYS, obstacle

bench = import_module("triptych.bench.infer")


def test_every_way_of_this_machine_is_shown_beside_eager_torch(monkeypatch):
    monkeypatch.setattr(bench, "CALLS", {1: 1, 100: 1})
    made = bench.compare_decoding(hidden=(16,), repeats=2)
    ways = [way for way in WAYS if not obstacle(way)]
    assert [c.claim for c in made] == [
        f"decode {batch} latents, 20-16-784, {way}" for way in ways for batch in (1, 100)
    ]
    assert all(c.ratio > 0 and "largest difference" in c.equal for c in made)


def test_sides_take_turns_in_beginning():
    seen = []
    taken = by_turns(lambda: seen.append("r"), lambda: seen.append("o"), repeats=3, calls=2)
    assert "".join(seen) == "ro" + "oorr" + "rroo" + "oorr"
    assert [len(side) for side in taken] == [3, 3]


def test_a_side_runs_untimed_before_its_turn():
    counts = {"r": 0, "o": 0}
    sides = [lambda name=name: counts.update({name: counts[name] + 1}) for name in counts]
    by_turns(*sides, repeats=1, calls=1, settle_s=0.01)
    assert min(counts.values()) > 10


def test_numbers_beyond_the_gate_are_not_timed(vae_of_the_bench):
    with pytest.raises(TriptychError, match="the two sides differ by"):
        bench.within_gate(vae_of_the_bench, PLAIN, 0.5)


@pytest.fixture
def vae_of_the_bench(tmp_path):
    import triptych
    from triptych.learn import VAE
    from triptych.learn.export import export

    with triptych.load(export(VAE(VAE.Config(hidden=(8,), latent_dim=2)), tmp_path / "vae")) as engine:
        yield engine
