"""Settings of one turn: what they override, and what is refused."""

from pathlib import Path

import pytest

from triptych.errors import CheckpointError, ConfigError
from triptych.learn import data as datasets
from triptych.learn.models import WGANGP
from triptych.learn.train import Trainer, TrainSettings, rng
from triptych.learn.train.recipe import load_recipe
from triptych.learn.train.schedule import rate_factor

LOG = {"progress": False, "report": False, "every_steps": 1, "samples": 0}


def small_gan() -> WGANGP:
    rng.seed_all(0)
    return WGANGP(WGANGP.Config(sample_shape=(1, 8, 8), generator_hidden=(8,), critic_hidden=(8,)))


def test_each_turn_has_its_own_rate_and_schedule_in_the_log(tmp_path: Path) -> None:
    turns = {"critic": {"learning_rate": 4e-4, "schedule": "warmup_cosine", "warmup_steps": 2}}
    trainer = Trainer(max_steps=4, batch_size=32, turns=turns, out=tmp_path / "run", log=LOG)
    rows = trainer.fit(small_gan(), datasets.digits()).history
    rates = [row["lr"] for row in rows if row["split"] == "train"]
    assert [rate["generator"] for rate in rates] == [1e-4] * 4
    assert [rate["critic"] for rate in rates] == pytest.approx([2e-4, 4e-4, 4e-4, 2e-4])


def test_what_a_turn_leaves_open_is_as_train_has_it() -> None:
    settings = TrainSettings(grad_clip=1.0, learning_rate=1e-3, turns={})
    assert settings.of_turn("critic").grad_clip == 1.0
    own = Trainer(grad_clip=1.0, turns={"critic": {"grad_clip": 5.0}}).settings
    assert (own.of_turn("critic").grad_clip, own.of_turn("generator").grad_clip) == (5.0, 1.0)


def test_warm_up_is_for_the_turns_whose_schedule_has_one() -> None:
    turns = {"critic": {"schedule": "cosine"}}
    settings = Trainer(schedule="warmup_cosine", warmup_steps=10, turns=turns).settings
    assert rate_factor(settings.of_turn("critic"), 0, 100) == 1
    assert rate_factor(settings.of_turn("generator"), 0, 100) == 0.1
    settings = Trainer(warmup_steps=10, turns={"critic": {"schedule": "warmup_linear"}}).settings
    assert rate_factor(settings.of_turn("critic"), 0, 100) == 0.1
    assert rate_factor(settings.of_turn("generator"), 0, 100) == 1


def test_a_schedule_of_one_turn_fixes_the_length_too(tmp_path: Path) -> None:
    given = {
        "batch_size": 32,
        "turns": {"critic": {"schedule": "cosine"}},
        "out": tmp_path / "run",
        "log": LOG,
    }
    Trainer(max_steps=2, **given).fit(small_gan(), datasets.digits())
    with pytest.raises(CheckpointError, match="With schedule `cosine` the length sets the learning rate"):
        Trainer(max_steps=4, **given).fit(small_gan(), datasets.digits(), resume="auto")


def test_a_turn_that_the_model_has_not_is_refused_with_the_nearest(tmp_path: Path) -> None:
    trainer = Trainer(max_steps=1, turns={"critc": {"grad_clip": 1.0}}, out=tmp_path / "run", log=LOG)
    with pytest.raises(ConfigError, match=r"turns.critc: .* valid: critic, generator. Did you mean `critic`"):
        trainer.fit(small_gan(), datasets.digits())


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ({"learning_rat": 1.0}, "learning_rat"),
        ({"learning_rate": -1.0}, "> 0"),
        ({"warmup_steps": 5}, "where it has no effect"),
    ],
)
def test_settings_of_a_turn_are_checked(turn: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Trainer(turns={"critic": turn})


def test_the_command_line_reaches_into_a_turn() -> None:
    change = "train.turns.critic.learning_rate=4e-4"
    assert load_recipe("wgan-gp-digits", [change]).train.turns["critic"].learning_rate == 4e-4
    with pytest.raises(ConfigError, match="`seed` is a value, not a table"):
        load_recipe("wgan-gp-digits", ["train.seed=1", "train.seed.more=2"])


def test_without_a_length_a_small_data_set_is_trained_on_for_2000_steps() -> None:
    settings = TrainSettings()
    assert [settings.total_steps(steps_per_epoch) for steps_per_epoch in (7, 429)] == [2002, 4290]
    assert TrainSettings(max_epochs=3).total_steps(7) == 21
