"""Bundles of codes: grids are drawn, encoded and decoded without torch, the same in any company."""

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
import torch

import triptych
from triptych.bundle import consistency
from triptych.errors import InputError
from triptych.infer import Engine
from triptych.learn import VQVAE
from triptych.learn.export import export

CLASSES = 3


@pytest.fixture(scope="module")
def model() -> VQVAE:
    torch.manual_seed(0)
    small = {"channels": (8,), "codes": 12, "code_dim": 4, "prior_layers": 1, "prior_width": 32}
    made = VQVAE(VQVAE.Config(sample_shape=(1, 8, 8), classes=CLASSES, **small))
    with torch.no_grad():
        for weight in made.prior.parameters():  # so that the first token matters
            weight.mul_(8)
    return made.eval()


@pytest.fixture(scope="module")
def engine(model: VQVAE, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = export(model, tmp_path_factory.mktemp("codes") / "bundle")
    with triptych.load(folder) as opened:
        yield opened


def test_a_sample_has_the_same_bytes_in_any_batch_and_those_of_torch(model: VQVAE, engine: Engine) -> None:
    many = engine.sample(130, seed=5)  # three batches of grids
    np.testing.assert_allclose(many, model.sample(130, seed=5).numpy(), rtol=0, atol=1e-5)
    alone = engine.sample_rows([5], [101])
    assert (alone == many[101:102]).all()
    assert (engine.sample_rows([5, 9, 5], [100, 7, 129])[::2] == many[[100, 129]]).all()


def test_the_standard_step_draws_the_same_grids(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with triptych.load(engine._folder, operators="standard") as standard:
        opened = []
        decoder = standard.backend.decoder
        monkeypatch.setattr(
            standard.backend, "decoder", lambda graph, slots: opened.append(graph) or decoder(graph, slots)
        )
        drawn = standard.sample(9, seed=5)
        np.testing.assert_allclose(drawn, engine.sample(9, seed=5), rtol=0, atol=1e-5)
        assert opened == ["prior_standard"]
        assert (standard.sample_rows([5], [7], [7 % CLASSES]) == drawn[7:8]).all()


def test_a_label_chooses_the_grids(engine: Engine) -> None:
    each = [engine.sample(8, seed=1, condition={"label": label}) for label in range(CLASSES)]
    assert not (each[0] == each[1]).all()
    in_turn = engine.sample(8, seed=1)
    for number in range(8):
        assert (in_turn[number] == each[number % CLASSES][number]).all()
    with pytest.raises(InputError, match=r"condition\.label"):
        engine.sample(1, condition={"label": CLASSES})


def test_encode_gives_the_indices_of_torch_and_decode_takes_them(model: VQVAE, engine: Engine) -> None:
    x = np.random.default_rng(0).random((9, 1, 8, 8), dtype=np.float32)
    indices = engine.encode(x)
    assert isinstance(indices, np.ndarray)
    assert (indices == model.encode(torch.from_numpy(x)).numpy()).all()
    made = engine.decode(indices)
    assert (made == engine.reconstruct(x)).all()
    np.testing.assert_allclose(made, model.reconstruct(torch.from_numpy(x)).numpy(), rtol=0, atol=1e-5)


def test_what_means_nothing_for_codes_is_refused(engine: Engine) -> None:
    x = np.zeros((1, 1, 8, 8), np.float32)
    with pytest.raises(InputError, match="only sample looks at it"):
        engine.encode(x, condition={"label": 0})
    with pytest.raises(InputError, match="codes and no continuous latents"):
        engine.log_prob(x)
    with pytest.raises(InputError, match="codes and no continuous latents"):
        engine.sample(1, truncation=0.5)
    with pytest.raises(InputError, match="does not generate text"):
        engine.generate("a")
    with pytest.raises(InputError, match=r"0\.0 to 11\.0"):
        engine.decode(np.full((1, 4, 4), 12))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"decode_graph": "paint"}, "names graph 'paint'"),
        ({"code_shape": (2, 4)}, "is not one block of 16 tokens"),
        ({"codes": 11}, "codes and first tokens"),
        ({"input": "z"}, "does not take the sampler's 'z'"),
        ({"output": "y"}, "is not an output of decode"),
        ({"layers": 2}, "does not take the sampler's cache"),
        ({"kv_heads": 0}, "sizes below 1"),
        ({"condition": None}, "codes and first tokens"),
    ],
)
def test_a_sampler_of_codes_that_does_not_fit_its_graphs_is_a_problem(
    engine: Engine, change: dict[str, object], problem: str
) -> None:
    manifest = engine.manifest
    sampler = msgspec.structs.replace(manifest.sampler, **change)
    found = list(consistency.problems(msgspec.structs.replace(manifest, sampler=sampler)))
    assert any(problem in sentence for sentence in found), found
    assert list(consistency.problems(manifest)) == []


def test_a_step_of_codes_without_batch_sizes_is_a_problem(engine: Engine) -> None:
    manifest = engine.manifest
    graphs = tuple(
        msgspec.structs.replace(graph, row_buckets=() if graph.name == "prior" else graph.row_buckets)
        for graph in manifest.graphs
    )
    found = list(consistency.problems(msgspec.structs.replace(manifest, graphs=graphs)))
    assert found == ["prior has no row_buckets"]
