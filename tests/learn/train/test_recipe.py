"""A recipe is checked key by key; what the data knows the model need not be told."""

from pathlib import Path

import pytest

from triptych.errors import ConfigError
from triptych.learn.train.recipe import load_recipe, shipped_recipes

GOOD = '[data]\nname = "digits"\n[model]\nfamily = "vae"\nhidden = [8]\n[train]\nmax_steps = 2\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "vae-small.toml"
    path.write_text(GOOD)
    return path


def test_shapes_come_from_the_data(file: Path) -> None:
    model, data = load_recipe(file).make()
    assert model.config.sample_shape == data.spec.sample_shape == (1, 8, 8)


def test_a_shape_that_contradicts_the_data_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.sample_shape: the model has \(1, 28, 28\)"):
        load_recipe(file, ["model.sample_shape=[1,28,28]"]).make()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.lerning_rate=1", ("train.lerning_rate", "Did you mean `learning_rate`?")),
        ("model.latentdim=1", ("model.latentdim", "`latent_dim`")),
        ("data.binarise=1", ("data.binarise", "`binarize`")),
        ("log.evry_steps=1", ("log.evry_steps", "`every_steps`")),
        ("trian.seed=1", ("trian", "`train`")),
        ("train.seed", ("--set", "section.key=value")),
        ("train.seed=soon", ("train.seed", "expected `int")),
        ("train.batch_size=0", ("train.batch_size", ">= 1")),
        ("train.schedule=linear", ("train.schedule", "linear")),
        ("train.warmup_steps=5", ("train.warmup_steps", "warmup_cosine")),
        ("train.precision=fp16", ("train.precision", "valid: bf16, f32")),
        ("train.compile=yes", ("train.compile", "valid: auto, false, true")),
        ("train.learning_rate=inf", ("train.learning_rate", "<= 1e+38")),
        ("train.grad_clip=inf", ("train.grad_clip", "<= 1e+38")),
        ("train.turns.elbo.lerning_rate=1", ("train.turns.elbo.lerning_rate", "`learning_rate`")),
        ("train.turns.elbo.schedule=cosin", ("train.turns.elbo.schedule", "valid: constant, cosine")),
        ("train.metric=2024", ("train.metric", 'quotes: metric = "2024"')),
        ("data.name=digit", ("data.name", "Did you mean `digits`?")),
        ("model.family=vea", ("model.family", "Did you mean `vae`?")),
        ("data.binarize=perhaps", ("data.binarize", "perhaps")),
        ("model.latent_dim=0", ("latent_dim", "1 or more")),
    ],
)
def test_a_wrong_change_says_where_and_what_is_valid(file: Path, change: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(file, [change])
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("text", ["[data", "name = 1", "[model]\n[datas]\n", ""])
def test_a_wrong_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ConfigError):
        load_recipe(tmp_path / "x.toml")


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="`vae-fashion`"):
        load_recipe("vae-fasion")


@pytest.mark.parametrize("path", shipped_recipes(), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_by_path_and_by_name(path: Path) -> None:
    assert load_recipe(path) == load_recipe(path.stem)
    assert path.stem.startswith(load_recipe(path).model["family"])
    assert path.read_text().startswith("# ")
