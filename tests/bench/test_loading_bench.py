"""The bench of loading: equal answers first, then a running process, a new one, the help, a server."""

from importlib import import_module

from triptych.learn import VAE

bench = import_module("triptych.bench.loading")


def test_loading_is_timed_beside_torch():
    made = bench.compare_loading(VAE.Config(hidden=(32, 32), latent_dim=4), repeats=1)
    assert [c.claim.partition(",")[0] for c in made] == [
        "load and the first sample",
        "from nothing to the first sample",
        "triptych --help",
        "a server of a small decoder",
    ]
    assert all(c.ratio > 0 for c in made)
