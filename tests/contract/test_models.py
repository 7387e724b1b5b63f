"""What every family promises.

A family in `FAMILIES` is covered by its default settings, or by smaller ones here.
"""

import math
from collections.abc import Iterator

import msgspec
import pytest
import safetensors.torch
import torch
from torch import Tensor

from triptych.bundle import noise
from triptych.bundle.manifest import CodeSampler, LatentSampler, TextSampler
from triptych.errors import ConfigError, InputError
from triptych.learn.evaluate import evaluate
from triptych.learn.models import FAMILIES, Batch, GenerativeModel, ModelConfig, Progress, build

IMAGE = {"sample_shape": (1, 4, 4)}
VAE = IMAGE | {"hidden": (12,), "latent_dim": 3}
WGAN_GP = IMAGE | {"latent_dim": 5, "generator_hidden": (12,), "critic_hidden": (12, 8)}
TRANSFORMER = {"vocab_size": 11, "block_size": 8, "layers": 2, "heads": 4, "width": 16}

VQ_VAE = IMAGE | {"channels": (8,), "codes": 12, "code_dim": 4, "prior_layers": 1, "prior_width": 16}
FSQ = {"codes": None, "code_dim": None, "quantizer": "fsq", "levels": (4, 3)}

SMALL = {"vq-vae": VQ_VAE, "vae": VAE, "wgan-gp": WGAN_GP, "transformer": TRANSFORMER}
VARIANTS = {
    "vae-gaussian": ("vae", VAE | {"likelihood": "gaussian", "sigma": 0.3, "beta": 4.0}),
    "vae-learned-sigma": ("vae", VAE | {"likelihood": "gaussian", "sigma": "learned", "hidden": ()}),
    "vae-warm-up": ("vae", VAE | {"kl_warmup_steps": 10, "free_bits_nats": 0.001}),
    "vae-conditional": ("vae", VAE | {"classes": 3}),
    "wgan-gp-conditional": ("wgan-gp", WGAN_GP | {"classes": 3}),
    "vae-laplace": ("vae", VAE | {"likelihood": "laplace", "sigma": 0.3}),
    "vq-vae-conditional": ("vq-vae", VQ_VAE | {"classes": 3, "residual_blocks": 1, "prior_dropout": 0.1}),
    "vq-vae-loss": ("vq-vae", VQ_VAE | {"codebook": "loss", "likelihood": "bernoulli"}),
    "vq-vae-fsq": ("vq-vae", VQ_VAE | FSQ | {"sigma": 0.05}),
    "transformer-gpt2": (
        "transformer",
        TRANSFORMER | {"positions": "learned", "bias": True, "activation": "gelu_tanh", "dropout": 0.1},
    ),
    "transformer-grouped": (
        "transformer",
        TRANSFORMER | {"kv_heads": 2, "window": 3, "tied_embeddings": False, "activation": "relu"},
    ),
}
CASES = {family: (family, SMALL.get(family, {})) for family in FAMILIES} | VARIANTS
CLASSES = 3
FREE = {"critic.4.bias"}  # scores are only compared with each other: a constant added to all of them is free
STEP = Progress(step=5, epoch=0, max_steps=10)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=CASES)
def model(request: pytest.FixtureRequest) -> GenerativeModel:
    family, settings = CASES[request.param]
    torch.manual_seed(0)
    return build(FAMILIES[family].Config(**settings))


def examples(model: GenerativeModel, count: int = 6) -> Tensor:
    spec = model.sample_spec()
    if spec.dtype == "int64":
        return torch.randint(int(spec.high or 0) + 1, (count, spec.shape[0] + 1))
    return torch.rand(count, *spec.shape)


def labelled(x: Tensor) -> Batch:
    """Examples with labels, for those who look at them."""
    return Batch(x, torch.arange(len(x)) % CLASSES)


class Few:
    """A split of a few examples."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def order(self, seed: int, epoch: int) -> Tensor:
        return torch.arange(len(self) + 0 * (seed + epoch))

    def take(self, index: Tensor) -> Batch:
        return Batch(self.x[index], index % CLASSES)

    def whole(self, batch_size: int) -> Iterator[tuple[Batch, int]]:
        for x in self.x.split(batch_size):
            yield labelled(x), len(x)


def test_every_loss_is_finite_and_every_named_term_is_a_finite_scalar(model: GenerativeModel) -> None:
    for turn in model.turns():
        terms = model.loss(labelled(examples(model)), turn, STEP)
        for name, value in {"total": terms.total, **terms.named}.items():
            assert value.shape == (), name
            assert value.isfinite(), name
        assert terms.named


def test_every_parameter_plays_and_gets_a_gradient_in_its_own_turn_only(model: GenerativeModel) -> None:
    played: set[int] = set()
    for turn in model.turns():
        model.zero_grad()
        for _ in range(3):  # a ReLU may be asleep on one batch
            model.loss(labelled(examples(model)), turn, STEP).total.backward()
        own = {id(parameter) for parameter in turn.parameters}
        for name, parameter in model.named_parameters():
            if id(parameter) in own:
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all(), name
                assert parameter.grad.any() or name in FREE, name
            else:
                assert parameter.grad is None, f"the turn `{turn.name}` leaves a gradient on {name}"
        played |= own
    assert played == {id(parameter) for parameter in model.parameters()}


def test_the_loss_depends_on_the_global_generator_alone(model: GenerativeModel) -> None:
    batch = labelled(examples(model))
    for turn in model.turns():
        totals = []
        for _ in range(2):
            torch.manual_seed(3)
            totals.append(model.loss(batch, turn, STEP).total)
        assert totals[0].equal(totals[1])


def test_the_loss_is_finite_and_close_under_bfloat16_autocast(model: GenerativeModel) -> None:
    model.eval()
    batch = labelled(examples(model))
    for turn in model.turns():
        torch.manual_seed(3)
        exact = model.loss(batch, turn, STEP).total
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model.loss(batch, turn, STEP).total
        assert rough.dtype == torch.float32
        torch.testing.assert_close(rough, exact, rtol=0.02, atol=0.02)


def test_a_few_updates_lower_the_validation_metric(model: GenerativeModel) -> None:
    batch = labelled(examples(model, 1).repeat_interleave(64, 0))
    optimisers = [(turn, torch.optim.Adam(turn.parameters, 5e-3, turn.betas)) for turn in model.turns()]

    def metric() -> float:
        model.eval()
        torch.manual_seed(1)
        with torch.no_grad():
            value = model.validate(batch).named[model.validation_metric].item()
        model.train()
        return value

    before = metric()
    for _ in range(40):
        for turn, optimiser in optimisers:
            for _ in range(turn.updates):
                optimiser.zero_grad()
                model.loss(batch, turn, STEP).total.backward()
                optimiser.step()
    assert metric() < before


def test_samples_have_the_shape_type_and_range_of_the_spec(model: GenerativeModel) -> None:
    spec, x = model.sample_spec(), model.sample(5, seed=1)
    assert x.shape == (5, *spec.shape)
    assert str(x.dtype) == f"torch.{spec.dtype}"
    assert not x.requires_grad
    assert (spec.low or 0) <= x.min()
    assert x.max() <= (spec.high or 0)
    assert model.sample(0).shape == (0, *spec.shape)


def test_a_sample_depends_on_its_seed_and_number_and_on_nothing_else(model: GenerativeModel) -> None:
    state, first = torch.get_rng_state(), model.sample(4, seed=7)
    torch.manual_seed(99)
    assert first.equal(model.sample(4, seed=7))
    torch.testing.assert_close(first[:2], model.sample(2, seed=7))
    assert not first.equal(model.sample(4, seed=8))
    assert not first[0].equal(first[1])
    torch.set_rng_state(state)
    model.sample(1)
    assert torch.get_rng_state().equal(state)


def test_sampling_leaves_the_mode_as_it_was(model: GenerativeModel) -> None:
    for mode in (True, False):
        model.train(mode)
        model.sample(1)
        assert model.training == mode


def test_a_condition_that_means_nothing_is_refused(model: GenerativeModel) -> None:
    with pytest.raises(InputError, match="condition"):
        model.sample(1, condition=object())


def test_a_bad_seed_is_refused(model: GenerativeModel) -> None:
    with pytest.raises(InputError, match="seed"):
        model.sample(1, seed=-1)


def test_a_config_comes_back_from_json_the_same_and_builds_the_same_family(model: GenerativeModel) -> None:
    config = msgspec.json.decode(msgspec.json.encode(model.config), type=ModelConfig)
    assert config == model.config
    assert build(config).family == model.family == msgspec.to_builtins(config)["family"]


def test_an_unknown_setting_is_an_error(model: GenerativeModel) -> None:
    settings = msgspec.to_builtins(model.config) | {"lerning_rate": 1.0}
    with pytest.raises(msgspec.ValidationError, match="lerning_rate"):
        msgspec.convert(settings, ModelConfig)


def test_a_setting_out_of_range_names_itself(model: GenerativeModel) -> None:
    for name, value in msgspec.to_builtins(model.config).items():
        if type(value) is int:
            with pytest.raises(ConfigError, match=rf"model\.({name}|heads|width)"):
                msgspec.convert(msgspec.to_builtins(model.config) | {name: -1}, ModelConfig)


def test_weights_saved_and_loaded_make_the_same_model(model: GenerativeModel) -> None:
    stored = safetensors.torch.save(dict(model.state_dict()))
    torch.manual_seed(1)
    other = build(model.config)
    other.load_state_dict(safetensors.torch.load(stored))
    assert other.sample(3, seed=2).equal(model.sample(3, seed=2))
    assert all(a.equal(b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_graphs_are_made_of_the_models_own_tensors(model: GenerativeModel) -> None:
    own = {tensor.data_ptr() for tensor in model.state_dict().values()}
    for graph in model.graphs():
        for name, tensor in graph.module.state_dict().items():
            assert tensor.data_ptr() in own, f"{graph.name}: {name}"


def test_graphs_run_on_their_example_and_answer_as_they_say(model: GenerativeModel) -> None:
    model.eval()
    for graph in model.graphs():
        assert len(graph.example) == len(graph.inputs)
        sizes: dict[str, int] = {}
        outputs = graph.module(*graph.example)
        answered = outputs if isinstance(outputs, tuple) else (outputs,)
        for spec, tensor in zip((*graph.inputs, *graph.outputs), (*graph.example, *answered), strict=True):
            expected = tuple(
                sizes.setdefault(size, have) if isinstance(size, str) else size
                for size, have in zip(spec.shape, tensor.shape, strict=True)
            )
            assert tensor.shape == expected, f"{graph.name}: {spec.name}"
            assert str(tensor.dtype) == f"torch.{spec.dtype}"
            assert spec.low is None or spec.low <= tensor.min()
            assert spec.high is None or tensor.max() <= spec.high


def test_the_sampler_says_how_samples_are_made(model: GenerativeModel) -> None:
    sampler, graphs = model.sampler(), {graph.name: graph for graph in model.graphs()}
    if isinstance(sampler, LatentSampler):
        graph = graphs[sampler.graph]
        z = torch.from_numpy(noise.normal([7, 7, 7], [0, 1, 2], sampler.latent_shape))
        label = () if sampler.condition is None else (torch.tensor([0, 1, 2]),)
        assert graph.inputs[0].name == sampler.input
        assert graph.inputs[1:] == (() if sampler.condition is None else (sampler.condition,))
        assert graph.outputs[0].name == sampler.output
        assert graph.module(z, *label).equal(model.sample(3, seed=7))
    else:
        cache = (sampler.kv_heads, sampler.block_size, sampler.head_dim)
        pasts = [spec for spec in graphs[sampler.graph].inputs if spec.shape[1:] == cache]
        assert len(pasts) == 2 * sampler.layers
    if isinstance(sampler, CodeSampler):
        (indices,) = graphs[sampler.decode_graph].inputs
        assert (indices.name, indices.shape[1:]) == (sampler.input, sampler.code_shape)
        assert indices.high == sampler.codes - 1
    if isinstance(sampler, TextSampler):
        assert graphs[sampler.score_graph].outputs[0].shape[-1] == sampler.vocab_size


def test_reconstructions_are_images_of_the_same_shape_or_there_are_none(model: GenerativeModel) -> None:
    x = examples(model)
    made = model.reconstruct(x, torch.arange(len(x)) % CLASSES)
    assert made is None or made.shape == x.shape


def test_figures_are_finite_and_leave_the_model_and_the_generator_as_they_were(
    model: GenerativeModel,
) -> None:
    split, state = Few(examples(model, 40)), torch.get_rng_state()
    figures = evaluate(model, split, batch_size=16)
    assert figures == evaluate(model, split, batch_size=16)
    assert all(value == value and abs(value) < float("inf") for value in figures.values())
    assert torch.get_rng_state().equal(state)
    assert model.training


def test_a_diagnosis_is_numbers_and_lists_of_numbers_and_leaves_no_gradient(model: GenerativeModel) -> None:
    model.eval()
    split = Few(examples(model, 40))
    with torch.no_grad():
        found = model.diagnose(batch for batch, _ in split.whole(16))
    for name, value in found.items():
        numbers = value if isinstance(value, list) else [value]
        assert all(isinstance(number, int | float) and math.isfinite(number) for number in numbers), name
    assert all(parameter.grad is None for parameter in model.parameters())
