"""VAE and WGAN-GP with labels: both halves see them, and samples are of the class that was asked for."""

import pytest
import torch

from triptych.errors import ConfigError, InputError
from triptych.learn import data as datasets
from triptych.learn.models import VAE, WGANGP, Batch, GenerativeModel, Progress
from triptych.learn.models.condition import join, one_hot
from triptych.learn.train import Trainer
from triptych.learn.train.recipe import load_recipe

TINY = {"sample_shape": (1, 3, 3), "classes": 4}


def vae() -> VAE:
    torch.manual_seed(0)
    return VAE(VAE.Config(**TINY, hidden=(16,), latent_dim=2))


def gan() -> WGANGP:
    torch.manual_seed(0)
    return WGANGP(WGANGP.Config(**TINY, latent_dim=4, generator_hidden=(16,), critic_hidden=(16,)))


def test_a_label_is_one_number_among_zeros() -> None:
    assert one_hot(torch.tensor([1, 0, 2]), 3).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    z = torch.zeros(5, 2, 7)
    assert join(z, torch.tensor([1, 0]), 3).shape == (5, 2, 10)
    assert join(z, None, None) is z


def test_the_label_goes_into_the_first_layer_of_both_halves() -> None:
    assert (vae().encoder[0].in_features, vae().decoder[0].in_features) == (9 + 4, 2 + 4)
    assert (gan().critic[0].in_features, gan().generator[0].in_features) == (9 + 4, 4 + 4)


@pytest.mark.parametrize("make", [vae, gan])
def test_a_sample_depends_on_its_own_label_and_noise_alone(make) -> None:
    model = make()
    mixed = model.sample(4, seed=7, condition={"label": [3, 0, 3, 1]})
    for label in (0, 1, 3):
        alone = model.sample(4, seed=7, condition={"label": label})
        same = [row for row, given in enumerate([3, 0, 3, 1]) if given == label]
        torch.testing.assert_close(alone[same], mixed[same])
    assert not mixed.equal(model.sample(4, seed=7, condition={"label": 2}))
    assert model.sample(6, seed=7).equal(model.sample(6, seed=7, condition={"label": [0, 1, 2, 3, 0, 1]}))


@pytest.mark.parametrize(
    "condition",
    [
        3,
        "3",
        [1, 2],
        {"label": 4},
        {"label": -1},
        {"label": True},
        {"label": 1.0},
        {"label": [0]},
        {},
        {"y": 1},
    ],
)
def test_a_condition_that_is_none_of_the_classes_is_refused(condition: object) -> None:
    with pytest.raises(InputError, match="condition"):
        vae().sample(2, condition=condition)


@pytest.mark.parametrize("make", [vae, gan])
def test_a_batch_without_labels_is_a_clear_error(make) -> None:
    model = make()
    with pytest.raises(InputError, match=r"labels: are missing.*data with labels"):
        model.loss(Batch(torch.rand(4, 1, 3, 3)), model.turns()[0], Progress())
    assert vae().reconstruct(torch.rand(2, 1, 3, 3)) is None


def test_an_unconditional_model_ignores_labels_and_keeps_its_weights() -> None:
    torch.manual_seed(0)
    model = VAE(VAE.Config(sample_shape=(1, 3, 3), hidden=(16,), latent_dim=2))
    assert model.decoder[0].in_features == 2
    x, turn = torch.rand(4, 1, 3, 3), model.turns()[0]
    totals = []
    for labels in (None, torch.arange(4)):
        torch.manual_seed(1)
        totals.append(model.loss(Batch(x, labels), turn, Progress()).total)
    assert totals[0].equal(totals[1])


@pytest.mark.parametrize("classes", [0, -1])
def test_no_classes_at_all_is_an_error(classes: int) -> None:
    for family in (VAE, WGANGP):
        with pytest.raises(ConfigError, match=r"model\.classes"):
            family.Config(classes=classes)


def test_classes_must_be_those_of_the_data() -> None:
    with pytest.raises(ConfigError, match=r"model\.classes: got 9.*10 classes. Set model\.classes to 10"):
        load_recipe("vae-digits-conditional", ["model.classes=9"]).make()
    unlabelled = datasets.from_arrays(torch.rand(40, 1, 3, 3))
    with pytest.raises(ConfigError, match="no labels"):
        unlabelled.check(VAE.Config(**TINY))


def test_recipes_without_classes_stay_unconditional() -> None:
    assert load_recipe("vae-digits").make()[0].config.classes is None
    assert load_recipe("vae-digits-conditional").make()[0].config.classes == 10


def class_accuracy(model: GenerativeModel, per_class: int) -> float:
    """The share of samples that lie nearest to the mean picture of the class they were asked for."""
    data = datasets.digits()
    batch = data.train.take(torch.arange(len(data.train)))
    means = torch.stack([batch.x[batch.labels == label].mean(0) for label in range(10)]).flatten(1)
    labels = torch.arange(10).repeat(per_class)
    drawn = model.sample(len(labels), seed=1, condition={"label": labels.tolist()}).flatten(1)
    return (torch.cdist(drawn, means).argmin(1) == labels).float().mean().item()


def test_trained_on_digits_it_draws_the_digit_that_was_asked_for(tmp_path) -> None:
    model, data = load_recipe("vae-digits-conditional", ["model.sigma=0.4"]).make()
    before = class_accuracy(model, 20)
    log = {"progress": False, "report": False, "samples": 0}
    Trainer(out=tmp_path / "run", log=log, max_epochs=30, batch_size=64).fit(model, data)
    assert before < 0.3
    assert class_accuracy(model, 20) > 0.9
