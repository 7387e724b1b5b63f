"""Export refuses what is not the model's own function, written once."""

import dataclasses

import pytest
import torch
from torch import nn

from triptych.errors import ExportError
from triptych.learn import VAE, Transformer, parity
from triptych.learn.data.text import character_tokenizer
from triptych.learn.export import export
from triptych.learn.models.base import Graph


class Changed(nn.Module):
    """A decoder with something else in it."""

    def __init__(self, inner, change):
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, z):
        return self.change(self.inner, z)


def altered(change):
    """A VAE whose decode graph is `change`d."""

    class Altered(VAE):
        def graphs(self):
            decode, _ = super().graphs()
            return (dataclasses.replace(decode, module=Changed(decode.module, change)),)

    return Altered(VAE.Config(sample_shape=(10, 10), hidden=(16,), latent_dim=3))


def exporting(inner, z):
    return inner(z) + (1e-3 if torch.onnx.is_in_onnx_export() else 0.0)


def test_a_graph_that_computes_something_else_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"graph decode: differs from torch by 0.001"):
        export(altered(exporting), tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_constant_that_is_no_tensor_of_the_model_is_refused(tmp_path):
    secret = torch.randn(10, 10)
    with pytest.raises(ExportError, match=r"shape \[10, 10\] is a constant that is no tensor of the model"):
        export(altered(lambda inner, z: inner(z) * secret), tmp_path / "b")


def test_a_buffer_that_is_not_saved_is_refused(tmp_path):
    class Offset(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.register_buffer("offset", torch.randn(10, 10), persistent=False)

        def forward(self, z):
            return self.inner(z) + self.offset

    class Altered(VAE):
        def graphs(self):
            decode, _ = super().graphs()
            return (dataclasses.replace(decode, module=Offset(decode.module)),)

    with pytest.raises(ExportError, match="offset of shape"):
        export(Altered(VAE.Config(sample_shape=(10, 10), hidden=(16,), latent_dim=3)), tmp_path / "b")


def test_a_graph_torch_cannot_export_is_refused(tmp_path):
    def branch(inner, z):
        return inner(z) if z.sum() > 0 else -inner(z)

    with pytest.raises(ExportError, match="torch cannot export it"):
        export(altered(branch), tmp_path / "b")


def test_a_text_model_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ExportError, match="tokenizer"):
        export(Transformer(Transformer.Config(vocab_size=8, layers=1, width=32, heads=2)), tmp_path / "b")


def test_a_step_that_keeps_its_bytes_at_no_batch_size_is_refused(tmp_path, monkeypatch):
    """It depends on the machine, and no reader could run it."""
    row_buckets = parity.row_buckets

    def none_for_the_step(graph, runs):
        return () if graph.name == "next_token" else row_buckets(graph, runs)

    monkeypatch.setattr(parity, "row_buckets", none_for_the_step)
    model = Transformer(Transformer.Config(vocab_size=8, block_size=8, layers=1, width=32, heads=2))
    with pytest.raises(ExportError, match=r"at no batch size .* next_token has no row_buckets"):
        export(model, tmp_path / "b", tokenizer=character_tokenizer("abcdefgh").to_str())
    assert list(tmp_path.iterdir()) == []


def test_export_leaves_the_model_in_the_mode_it_was_in(tmp_path):
    model = VAE(VAE.Config(sample_shape=(4, 4), hidden=(8,), latent_dim=2))
    model.train()
    export(model, tmp_path / "b")
    assert model.training


def test_graphs_declare_every_axis_that_may_vary():
    graph = VAE(VAE.Config(sample_shape=(4, 4), hidden=(8,), latent_dim=2)).graphs()[0]
    assert isinstance(graph, Graph)
    assert graph.inputs[0].shape[0] == "batch"
