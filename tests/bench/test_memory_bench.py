"""Memory of real servers: weights that workers share are in none of them alone."""

from __future__ import annotations

from importlib import import_module

import pytest

from triptych.bench.eager_server import decoder
from triptych.learn.export import export

bench = import_module("triptych.bench.memory")  # the package has a function of that name
HIDDEN = (1600, 1600)
DECODER_BYTES = 4 * (20 * 1600 + 1600 * 1600 + 1600 * 784)


@pytest.mark.timeout(120)
def test_four_workers_hold_no_weights_of_their_own(tmp_path):
    bundle = export(decoder(HIDDEN), tmp_path / "decoder")
    shared = bench.our_side(bundle, 4, tmp_path, share=True)
    private = bench.our_side(bundle, 4, tmp_path, share=False)
    assert len(shared.workers) == len(private.workers) == 4
    for alone, together in zip(private.workers, shared.workers, strict=True):
        assert alone.private - together.private > 0.8 * DECODER_BYTES
        assert together.shared - alone.shared > 0.8 * DECODER_BYTES
    assert private.proportional - shared.proportional > 2.5 * DECODER_BYTES  # three copies of four


def test_a_further_worker_is_the_slope_between_few_and_many():
    sides = [
        {1: bench.Side([bench.Memory(8, 2, 9)], 10), 4: bench.Side([bench.Memory(8, 2, 9)] * 4, total)}
        for total in (100, 40)
    ]
    found = bench.MemoryComparison("memory", "theirs", "ours", 7, *sides)
    document = found.document()
    assert document["ratio"] == 2.5
    assert document["a_further_worker"] == {"reference": 30, "ours": 10}
    assert document["ours_sides"]["4 workers"]["workers"][3] == {"private": 8, "shared": 2, "proportional": 9}
    assert found.cells()[-1] == "a further worker: 0 MB there, 0 MB here"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_eager_pytorch_is_measured_beside_it(monkeypatch):
    monkeypatch.setattr(bench, "WORKERS", (1, 2))
    eager, private = bench.compare_memory(HIDDEN)
    assert len(eager.reference_sides[2].workers) == len(eager.ours_sides[2].workers) == 2
    assert bench.further(eager.reference_sides) > bench.further(private.reference_sides)
    assert bench.further(private.reference_sides) - bench.further(private.ours_sides) > 0.8 * DECODER_BYTES
