"""A recipe is checked key by key; what the data knows the model need not be told."""

from pathlib import Path

import pytest

from triptych.errors import ConfigError
from triptych.learn.train import Trainer
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
        ("train.seed=soon", ("train.seed", "got 'soon', expected `int")),
        ("train.betas=[0.9]", ("train.betas", "got [0.9], expected")),
        ("train.threads=100000", ("train.threads", "got 100000, expected `int` <= 1024")),
        ("train.turns.elbo=3", ("train.turns.elbo", "got 3; valid: a table of learning_rate")),
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


def test_a_byte_order_mark_is_no_part_of_a_recipe(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load_recipe(file).model["family"] == "vae"


def test_the_settings_of_a_turn_reach_the_trainer(file: Path) -> None:
    chosen = load_recipe(file, ["train.turns.elbo.learning_rate=0.25"])
    assert Trainer.of(chosen.train, chosen.log, None).settings.of_turn("elbo").learning_rate == 0.25


def test_what_is_no_section_is_said_so(file: Path) -> None:
    file.write_text("data = 3\n")
    with pytest.raises(ConfigError, match="`data` is 3, not a section"):
        load_recipe(file)


def test_a_shape_that_only_the_data_knows_is_judged_with_the_data(tmp_path: Path) -> None:
    """Three halvings fit 8 x 8, though not the 28 x 28 that a model has by default; four fit neither."""
    path = tmp_path / "vq-vae-small.toml"
    path.write_text('[data]\nname = "digits"\n[model]\nfamily = "vq-vae"\nchannels = [4, 4, 4]\n')
    assert load_recipe(path).make()[0].config.grid == (1, 1)
    with pytest.raises(ConfigError, match=r"model.sample_shape: got \(1, 8, 8\); valid: .* multiples of 16"):
        load_recipe(path, ["model.channels=[4,4,4,4]"]).make()


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
