"""Alarms are raised by runs made to fail, by nothing else, and say what to do."""

from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch

from triptych.learn import data as datasets
from triptych.learn.models import VAE, VQVAE, WGANGP
from triptych.learn.train import Trainer, rng
from triptych.learn.train.alarms import Alarm, Episode, episodes, names_before, news, raised

QUIET = {"progress": False, "samples": 0, "every_steps": 10}
SHORT = {"max_steps": 120, "validate_every_steps": 30}
METRIC = "negative_elbo_nats"
Rows = list[dict[str, Any]]


def rows(values: list[float], training: float = 1.0, **more: list[Any]) -> Rows:
    """A validation before training, and then a training row before each validation."""
    history: Rows = []
    for step, value in enumerate(values):
        if step:
            history.append({"step": step, "split": "train", METRIC: training / step})
        columns = {name: column[step] for name, column in more.items()}
        history.append({"step": step, "split": "validation", METRIC: value, **columns})
    return history


def names(history: Rows) -> list[str]:
    return [alarm.name for alarm in raised(history, METRIC)]


def later(history: Rows, every: int = 100) -> Rows:
    """The same rows, with more steps between them."""
    return [{**row, "step": row["step"] * every} for row in history]


def game(steps: int, generator: float, critic: float, training: float, **columns: list[Any]) -> Rows:
    history = rows([1.0 - 0.1 * step for step in range(steps)], **columns)
    for row in history:
        if row["split"] == "train":
            row |= {"grad_norm": {"generator": generator, "critic": critic}, "wasserstein": training}
    return history


def test_a_run_that_learns_raises_nothing_nor_does_one_that_has_not_begun() -> None:
    assert names(rows([10.0, 5.0, 4.0, 3.5, 3.6])) == []
    assert names(rows([10.0])) == names([]) == []


@pytest.mark.parametrize("value", [16.0, 1e21, float("nan"), float("inf"), None])
def test_divergence_is_far_above_the_untrained_model_or_no_number(value: float | None) -> None:
    assert names(rows([10.0, 5.0, value])) == ["divergence"]
    assert names(rows([-10.0, -5.0, value])) == ["divergence"]
    assert names(rows([10.0, 5.0, 14.0])) == []


def test_no_gain_over_the_untrained_model_in_three_validations_is_a_standstill() -> None:
    assert names(later(rows([10.0, 10.0, 9.95]))) == []
    assert names(later(rows([10.0, 10.0, 9.95, 10.2]))) == ["standstill"]
    assert names(later(rows([10.0, 10.0, 9.95, 9.8]))) == []
    assert names(later(rows([10.0, 10.0, 9.95, 10.2]), every=10)) == []


def test_a_generator_that_a_seeing_critic_cannot_move_says_so() -> None:
    history = later(rows([10.0] * 4, wasserstein=[0.0, 2.0, 3.0, 3.0]))
    (alarm,) = raised(history, METRIC)
    assert alarm.name == "critic far ahead"
    assert "distance of 3" in alarm.what
    assert "train.turns.generator.learning_rate" in alarm.remedy


@pytest.mark.parametrize("value", [10.0, 18.0])
def test_a_critic_that_ranks_poor_samples_above_the_data_is_blind(value: float) -> None:
    assert names(later(rows([10.0, value, value], wasserstein=[-0.1] * 3))) == ["blind critic"]
    assert names(later(rows([10.0, 9.0, 9.0], wasserstein=[-0.1] * 3))) == []
    assert names(later(rows([10.0, value, None], wasserstein=[-0.1, -0.1, None]))) == ["divergence"]


def test_few_active_units_are_posterior_collapse_at_once_if_all_is_silent_else_when_it_lasts() -> None:
    def run(units: list[int], kl: float, every: int = 100) -> list[str]:
        latents = [[kl / 10] * 10] * len(units)
        values = [10.0 - step for step in range(len(units))]
        history = rows(values, active_units=units, kl_per_dimension=latents)
        return names(later(history, every))

    assert run([0, 0, 0, 1], kl=0.05) == ["posterior collapse"]
    assert run([0, 0, 0, 2], kl=0.05) == []
    assert run([0, 0, 0, 1], kl=0.05, every=5) == []
    assert run([0, 0, 0, 1], kl=2.0) == []
    assert run([0, 1, 1, 1, 1, 1], kl=2.0) == ["posterior collapse"]
    assert run([0, 1, 1, 2, 1, 1], kl=2.0) == []


def test_a_steep_critic_and_a_generator_without_gradient() -> None:
    assert names(game(3, 1.0, 1.0, 5.0, critic_slope=[0.1, 4.0, 5.0])) == ["steep critic"]
    assert names(game(3, 1.0, 1.0, 5.0, critic_slope=[9.0, 1.0, 1.2])) == []
    assert names(game(3, 1e-4, 1.0, 5.0)) == ["generator without gradient"]
    assert names(game(3, 0.0, 0.0, 5.0)) == ["generator without gradient"]
    assert names(game(3, 0.1, 1.0, 5.0)) == []


@pytest.mark.parametrize("value", [inf, nan, None])
def test_what_was_no_number_is_judged_alike_before_and_after_json(value: float | None) -> None:
    (alarm,) = raised(game(3, 1.0, 1.0, 5.0, critic_slope=[0.1, 5.0, value]), METRIC)
    assert alarm.what == "the critic's slope between data and samples is inf and should be 1"
    assert names(rows([9.0, 5.0, 4.0, 3.0], coverage=[0.0, value, 0.8, 0.8])) == []
    silent = rows([9.0, 5.0, 4.0, 3.0], active_units=[0] * 4, kl_per_dimension=[[0.0, value]] * 4)
    assert names(later(silent, every=1_000)) == []


def test_coverage_and_diversity_that_halve_and_missed_modes_are_mode_collapse() -> None:
    assert names(rows([9.0, 5.0, 4.0, 3.0], coverage=[0.0, 0.8, 0.3, 0.3])) == ["mode collapse"]
    assert names(rows([9.0, 5.0, 4.0, 3.0], coverage=[0.0, 0.8, 0.3, 0.5])) == []
    assert names(rows([9.0, 5.0, 4.0, 3.0], coverage=[0.0, 0.08, 0.0, 0.0])) == []
    assert names(rows([9.0, 5.0, 4.0, 3.0], diversity=[0.1, 0.9, 0.1, 0.0])) == ["mode collapse"]
    toy = {"modes_hit": [0, 2, 2], "modes_missed": [8, 6, 6], "high_quality": [0.0, 0.9, 0.9]}
    (alarm,) = raised(rows([9.0, 5.0, 4.0], **toy), METRIC)
    assert alarm.what == "good samples, but of 2 of 8 modes"
    assert names(rows([9.0, 5.0, 4.0], **{**toy, "high_quality": [0.0, 0.1, 0.1]})) == []


def test_a_critic_that_sees_little_on_new_examples_overfits() -> None:
    assert names(game(6, 1.0, 1.0, 4.0, wasserstein=[0.0] + [1.0] * 5)) == ["critic overfitting"]
    assert names(game(6, 1.0, 1.0, 4.0, wasserstein=[0.0] + [3.0] * 5)) == []
    assert names(game(6, 1.0, 1.0, -1.0, wasserstein=[0.0] + [3.0] * 5)) == []


def test_validation_that_rises_for_long_while_training_falls_is_overfitting() -> None:
    rising = [10.0, 5.0, 5.2, 5.4, 5.6]
    assert names(rows(rising)) == ["overfitting"]
    assert names(rows(rising, training=0.0)) == []
    assert names(rows(rising[:-1])) == []


def test_news_are_what_began_with_its_remedy_and_what_is_over() -> None:
    here = Alarm("standstill", "no better", "do more")
    assert news([], [here]) == ["alarm: standstill: no better. Remedy: do more."]
    assert news(["standstill"], [here]) == []
    assert news(["standstill"], []) == ["over: standstill"]


def test_episodes_say_from_when_to_when() -> None:
    history = [
        {"step": step, "alarms": now} for step, now in enumerate([[], ["a"], ["a", "b"], ["b"], ["a"]])
    ]
    assert episodes(history) == [Episode("a", 1, 3), Episode("b", 2, 4), Episode("a", 4, None)]
    assert names_before(history) == ["a"]
    assert names_before([]) == []


def digits_run(model: VAE | WGANGP, out: Path, **settings: Any) -> Any:
    return Trainer(out=out, log=QUIET, threads=1, seed=0, **settings).fit(model, datasets.digits())


def vae(**config: Any) -> VAE:
    rng.seed_all(0)
    return VAE(VAE.Config(sample_shape=(1, 8, 8), hidden=(32,), latent_dim=10, **config))


def gan(**config: Any) -> WGANGP:
    rng.seed_all(0)
    small = {"latent_dim": 8, "generator_hidden": (64,), "critic_hidden": (64,)}
    return WGANGP(WGANGP.Config(sample_shape=(1, 8, 8), **{**small, **config}))


def test_a_vae_of_much_beta_collapses_and_one_of_beta_one_does_not(tmp_path: Path, capsys: Any) -> None:
    collapsed = Trainer(out=tmp_path / "beta", max_epochs=4, log={**QUIET, "progress": True}).fit(
        vae(beta=50.0), datasets.digits()
    )
    assert collapsed.history[-1]["alarms"] == ["posterior collapse"]
    assert collapsed.history[-1]["active_units"] == 0
    assert collapsed.summary["alarm_episodes"][0]["name"] == "posterior collapse"
    assert "model.kl_warmup_steps" in (tmp_path / "beta/report.html").read_text()
    assert capsys.readouterr().err.count("alarm: posterior collapse") == 1
    calm = digits_run(vae(), tmp_path / "calm", max_epochs=4)
    assert calm.summary["alarms"] == calm.summary["alarm_episodes"] == []
    assert [len(row["kl_per_dimension"]) for row in calm.history if row["split"] == "validation"] == [10] * 5
    assert 'role="alert"' not in (tmp_path / "calm/report.html").read_text()


def test_few_codes_in_use_are_codebook_collapse_when_it_lasts() -> None:
    def run(used: list[float], perplexity: float, every: int = 50) -> list[str]:
        values = [10.0 - step for step in range(len(used))]
        history = rows(values, codebook_used=used, codebook_perplexity=[perplexity] * len(used))
        return names([{**row, "step": row["step"] * every} for row in history])

    assert run([0.01, 0.09, 0.05, 0.05], perplexity=4.0) == ["codebook collapse"]
    assert run([0.01, 0.09, 0.05, 0.05], perplexity=4.0, every=10) == []
    assert run([0.01, 0.09, 0.05, 0.2], perplexity=4.0) == []
    assert run([0.5, 0.5, 0.5, 0.5], perplexity=1.2) == ["codebook collapse"]
    assert run([0.5, 0.5, 0.5, 0.5], perplexity=9.0) == []


def test_far_away_codes_without_restarts_collapse_and_with_them_do_not(tmp_path: Path, capsys: Any) -> None:
    def run(name: str, **config: Any) -> Any:
        rng.seed_all(0)
        small = {"channels": (8,), "codes": 32, "code_dim": 4, "prior_layers": 1, "prior_width": 16}
        model = VQVAE(VQVAE.Config(sample_shape=(1, 8, 8), **small, **config))
        model.quantizer.codebook += 100 * torch.randn(32, 1)
        settings = {"max_steps": 150, "validate_every_steps": 25, "batch_size": 64, "learning_rate": 2e-3}
        trainer = Trainer(out=tmp_path / name, log={**QUIET, "progress": True}, threads=1, **settings)
        return trainer.fit(model, datasets.digits())

    far = run("far", restart_below=0.0)
    assert far.history[-1]["alarms"] == ["codebook collapse"]
    assert far.history[-1]["codebook_used"] == pytest.approx(1 / 32)
    assert far.summary["alarm_episodes"][0]["name"] == "codebook collapse"
    assert "model.restart_below" in (tmp_path / "far/report.html").read_text()
    assert capsys.readouterr().err.count("alarm: codebook collapse") == 1
    calm = run("calm")
    assert calm.summary["alarms"] == calm.summary["alarm_episodes"] == []
    assert calm.history[-1]["codebook_used"] > 0.2


def test_a_vae_with_a_huge_learning_rate_diverges(tmp_path: Path) -> None:
    run = digits_run(vae(), tmp_path / "run", max_epochs=2, learning_rate=1e6)
    assert run.history[-1]["alarms"] == ["divergence"]


def test_a_gan_without_penalty_has_a_steep_critic(tmp_path: Path) -> None:
    run = digits_run(gan(penalty_weight=0.0), tmp_path / "run", learning_rate=1e-3, **SHORT)
    assert "steep critic" in run.history[-1]["alarms"]


def test_a_gan_whose_generator_hardly_moves_is_left_behind_by_its_critic(tmp_path: Path) -> None:
    turns = {"generator": {"learning_rate": 1e-9}, "critic": {"learning_rate": 1e-3}}
    run = digits_run(gan(), tmp_path / "run", turns=turns, **SHORT)
    assert run.history[-1]["alarms"] == ["critic far ahead"]


def test_a_critic_that_hardly_learns_is_blind(tmp_path: Path) -> None:
    turns = {"generator": {"learning_rate": 1e-3}, "critic": {"learning_rate": 1e-9}}
    run = digits_run(gan(), tmp_path / "run", turns=turns, **SHORT)
    assert run.history[-1]["alarms"] == ["blind critic"]


def test_a_generator_that_saturates_has_no_gradient(tmp_path: Path) -> None:
    run = digits_run(gan(), tmp_path / "run", turns={"generator": {"learning_rate": 1.0}}, **SHORT)
    assert run.history[-1]["alarms"] == ["generator without gradient"]


def test_a_generator_that_runs_on_while_its_critic_comes_to_rest_collapses(tmp_path: Path) -> None:
    turns = {"generator": {"learning_rate": 3e-3}, "critic": {"learning_rate": 1e-3, "schedule": "cosine"}}
    run = digits_run(gan(), tmp_path / "run", turns=turns, max_steps=300, validate_every_steps=20)
    assert "mode collapse" in run.history[-1]["alarms"]


def test_a_critic_of_few_examples_overfits(tmp_path: Path) -> None:
    few = datasets.from_arrays(datasets.digits().train.x[:24], validation=0.5, test=0.1)
    run = Trainer(
        out=tmp_path / "run",
        log=QUIET,
        threads=1,
        batch_size=16,
        turns={"generator": {"learning_rate": 5e-4}, "critic": {"learning_rate": 2e-3}},
        max_steps=300,
        validate_every_steps=30,
    ).fit(gan(latent_dim=16, generator_hidden=(128, 128), critic_hidden=(128, 128)), few)
    assert "critic overfitting" in run.history[-1]["alarms"]
