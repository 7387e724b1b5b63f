"""What holds for every run: what is logged, what is kept, when it ends, what it refuses."""

import json
import resource
from typing import Any

import numpy as np
import pytest
import torch

from triptych.bundle.digest import seal
from triptych.errors import CheckpointError, ConfigError, DataError, NonFiniteError, TrainingError
from triptych.learn import data as datasets
from triptych.learn.models import VAE, WGANGP, Transformer
from triptych.learn.models.base import Terms
from triptych.learn.train import Trainer, checkpoint, open_run, rng
from triptych.learn.train.state import weights


def saved(run, which: str, file: str = "model") -> bytes:
    return (run.path / "checkpoints" / which / f"{file}.safetensors").read_bytes()


def without_clock(run) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "elapsed_s"} for row in run.history]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(fit) -> None:
    one, two, other = fit("one"), fit("two"), fit("other", seed=1)
    assert saved(one, "last") == saved(two, "last")
    assert without_clock(one) == without_clock(two)
    assert saved(one, "last") != saved(other, "last")


def test_validation_and_samples_leave_no_trace_in_training(fit) -> None:
    rarely = fit("rarely", validate_every_steps=20)
    often = fit("often", validate_every_steps=1, log={"samples": 9, "every_steps": 3})
    assert saved(rarely, "last") == saved(often, "last")


def test_every_logged_line_says_where_it_stands_and_holds_every_term(fit) -> None:
    run = fit()
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert lines == run.history
    terms = {"negative_elbo_nats", "reconstruction_nats", "kl_nats"}
    told = {"train": {"lr", "grad_norm"}, "validation": {"active_units", "kl_per_dimension", "alarms"}}
    for row in lines:
        extra = told[row["split"]]
        assert row.keys() == {"step", "epoch", "split", "elapsed_s"} | terms | extra
    assert [row["step"] for row in lines if row["split"] == "train"] == [5, 8, 10, 15, 16, 20]
    assert [row["step"] for row in lines if row["split"] == "validation"] == [0, 8, 16, 20]


def test_a_run_folder_holds_what_it_promises_and_opens_again(fit) -> None:
    run = fit(log={"report": True})
    for name in ("config.json", "run.json", "metrics.jsonl", "report.html", "plotly.min.js"):
        assert (run.path / name).is_file(), name
    assert (run.path / "samples" / "step-000000.png").is_file()
    again = open_run(run.path)
    assert again.config == run.config
    for name, tensor in weights(again.model).items():
        assert torch.equal(tensor, weights(run.model)[name])
    assert "refresh" not in (run.path / "report.html").read_text()


def stop_after(step: int):
    def callback(moment) -> None:
        if moment.row["split"] == "train" and moment.row["step"] > step:
            raise KeyboardInterrupt

    return callback


@pytest.mark.parametrize("step", [6, 11, 17])
def test_an_interrupted_run_resumes_as_if_nothing_happened(fit, step: int) -> None:
    settings = {"checkpoint_every_steps": 3, "ema_decay": 0.9, "grad_clip": 1.0, "accumulate": 2}
    calm = fit("calm", **settings)
    with pytest.raises(KeyboardInterrupt):
        fit("cut", callbacks=[stop_after(step)], **settings)
    resumed = fit("cut", resume="auto", log={"samples": 4}, **settings)
    for file in ("model", "optimizer", "ema", "rng"):
        assert saved(resumed, "last", file) == saved(calm, "last", file)
        assert saved(resumed, "best", file) == saved(calm, "best", file)
    assert without_clock(resumed) == without_clock(calm)


def test_resuming_a_finished_run_changes_nothing(fit) -> None:
    run = fit()
    before = saved(run, "last")
    again = fit(resume="auto")
    assert saved(again, "last") == before
    assert without_clock(again) == without_clock(run)


def test_a_checkpoint_of_another_configuration_is_refused_with_the_difference(fit) -> None:
    fit()
    with pytest.raises(CheckpointError, match=r"train.batch_size is 16 in the checkpoint and 8 now"):
        fit(resume="auto", batch_size=8)


def test_a_checkpoint_of_a_newer_format_is_refused(fit) -> None:
    run = fit()
    state = run.path / "checkpoints" / "last" / "state.json"
    state.write_text(state.read_text().replace('"format_version": 2', '"format_version": 3'))
    with pytest.raises(CheckpointError, match="format version 3"):
        fit(resume="auto")


@pytest.mark.parametrize("file", ["state.json", "model.safetensors", "optimizer.safetensors"])
def test_a_damaged_checkpoint_is_refused_by_name(fit, file: str) -> None:
    path = fit().path / "checkpoints" / "last" / file
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(CheckpointError, match=r"cannot be read|is damaged"):
        fit(resume="auto")
    path.write_bytes(whole.replace(b'"stale": 0', b'"stale": 1') if file == "state.json" else _flipped(whole))
    with pytest.raises(CheckpointError, match=f"is damaged: {file} changed"):
        fit(resume="auto")


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("resume", [True, 3])
def test_resume_takes_auto_or_a_folder(fit, resume: Any) -> None:
    with pytest.raises(ConfigError, match='"auto" or a checkpoint folder'):
        fit(resume=resume)


def test_an_occupied_folder_is_refused(fit) -> None:
    fit()
    with pytest.raises(ConfigError, match="already holds a run"):
        fit()


def test_early_stopping_waits_for_its_patience_and_keeps_the_best(fit) -> None:
    run = fit(max_steps=None, max_epochs=50, patience=2, min_delta=1e9)
    validations = [row["step"] for row in run.history if row["split"] == "validation"]
    assert validations == [0, 8, 16, 24]
    assert run.summary["best_validation"]["step"] == 8
    kept, facts = checkpoint.read(run.path / "checkpoints" / "best")
    assert facts["step"] == 8
    assert torch.equal(kept["model"]["decoder.0.weight"], weights(run.model)["decoder.0.weight"])


def test_accumulation_of_two_halves_is_one_whole_batch(pictures, tmp_path) -> None:
    class Mean(VAE):
        def loss(self, batch, turn, progress):
            mean, log_var = self.encode(batch.x)
            return Terms(mean.square().mean() + log_var.square().mean(), {})

    found = []
    for name, sizes in (("whole", {"batch_size": 32}), ("halves", {"batch_size": 16, "accumulate": 2})):
        rng.seed_all(0)
        model = Mean(VAE.Config(sample_shape=(1, 4, 4), hidden=(8,), latent_dim=2))
        run = Trainer(max_steps=1, out=tmp_path / name, log={"progress": False}, **sizes).fit(model, pictures)
        found.append(weights(run.model)["encoder.0.weight"].clone())
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


class Fragile(VAE):
    """Breaks at step 7 of the count from 0 for the first `breaks` times that it gets there."""

    breaks = 0

    def loss(self, batch, turn, progress):
        terms = super().loss(batch, turn, progress)
        if progress.step == 7 and self.breaks > 0:
            self.breaks -= 1
            return Terms(terms.total * np.nan, terms.named)
        return terms


def fragile(breaks: int) -> Fragile:
    rng.seed_all(0)
    model = Fragile(VAE.Config(sample_shape=(1, 4, 4), hidden=(8,), latent_dim=2))
    model.breaks = breaks
    return model


def test_a_nan_is_rolled_back_and_survived_with_half_the_step_size(pictures, tmp_path) -> None:
    trainer = Trainer(max_steps=16, batch_size=16, out=tmp_path / "run", log={"progress": False})
    run = trainer.fit(fragile(breaks=2), pictures)
    assert run.summary["rollbacks"] == 1
    assert run.history[-2]["lr"] == 0.0005
    assert all(np.isfinite(row["negative_elbo_nats"]) for row in run.history)


def test_a_nan_that_stays_is_named_and_ends_the_run(pictures, tmp_path) -> None:
    trainer = Trainer(
        max_steps=16, batch_size=16, out=tmp_path / "run", log={"progress": False}, guard_retries=2
    )
    with pytest.raises(NonFiniteError, match="`total` of turn `elbo` is not finite at step 8"):
        trainer.fit(fragile(breaks=100), pictures)


class SteepCritic(WGANGP):
    """The second critic update of step 3 has a gradient without bounds, in one weight."""

    updates_of_step_3 = 0

    def loss(self, batch, turn, progress):
        terms = super().loss(batch, turn, progress)
        if turn.name == "critic" and progress.step == 2:
            self.updates_of_step_3 += 1
            if self.updates_of_step_3 % 5 == 2:
                bias = dict(self.named_parameters())["critic.2.bias"]
                return Terms(terms.total + (bias - bias.detach()).square().sum().sqrt(), terms.named)
        return terms


def test_what_breaks_is_named_before_what_it_breaks(pictures, tmp_path) -> None:
    shape = {"sample_shape": (1, 4, 4), "generator_hidden": (8,), "critic_hidden": (8,)}
    trainer = Trainer(
        max_steps=4, grad_clip=1.0, guard_retries=0, out=tmp_path / "run", log={"progress": False}
    )
    with pytest.raises(NonFiniteError, match=r"the gradient of `critic.2.bias` is not finite at step 3"):
        trainer.fit(SteepCritic(WGANGP.Config(**shape)), pictures)


def test_a_prompt_where_no_text_continues_it_is_refused(fit) -> None:
    with pytest.raises(ConfigError, match=r"log\.prompt: got 'To be', and there are no texts"):
        fit(log={"prompt": "To be"})


def test_a_prompt_fits_into_a_block(tmp_path) -> None:
    data = datasets.from_text("to be or not " * 100, block_size=8)
    sizes = {"vocab_size": data.spec.vocab_size, "block_size": 8, "layers": 1, "heads": 1, "width": 8}
    trainer = Trainer(max_steps=1, out=tmp_path / "run", log={"progress": False, "prompt": "to be or not"})
    with pytest.raises(ConfigError, match=r"log\.prompt: got 12 tokens; valid: up to 8"):
        trainer.fit(Transformer(Transformer.Config(**sizes)), data)


def test_a_folder_that_cannot_be_written_is_said_so(fit, tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "samples").write_text("in the way")
    with pytest.raises(ConfigError, match="run: cannot be written"):
        fit()


def test_data_may_be_named_by_a_path(vae, tmp_path) -> None:
    np.save(tmp_path / "x.npy", np.full((40, 1, 4, 4), 7, np.uint8))
    trainer = Trainer(max_steps=1, out=tmp_path / "run", log={"progress": False})
    run = trainer.fit(vae(), datasets.from_npy(tmp_path / "x.npy"))
    assert run.config["data"]["path"] == str(tmp_path / "x.npy")


def test_validation_goes_through_the_moving_average_and_so_does_the_result(fit) -> None:
    run = fit(ema_decay=0.5)
    tensors, _ = checkpoint.read(run.path / "checkpoints" / "best")
    name = "decoder.0.weight"
    assert torch.equal(weights(run.model)[name], tensors["ema"][name])
    assert not torch.equal(tensors["ema"][name], tensors["model"][name])


def test_a_model_that_does_not_fit_the_data_is_refused(pictures, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"model.sample_shape"):
        Trainer(out=tmp_path / "run").fit(VAE(VAE.Config()), pictures)


def test_an_unknown_setting_names_its_nearest_neighbour() -> None:
    with pytest.raises(ConfigError, match="Did you mean `learning_rate`"):
        Trainer(lerning_rate=1e-3)
    with pytest.raises(ConfigError, match=r"train.batch_size"):
        Trainer(batch_size=0)


def test_a_missing_device_is_refused(fit) -> None:
    with pytest.raises(ConfigError, match=r"train.device"):
        fit(device="nowhere")


@pytest.mark.parametrize("device", ["meta", "gpu"])
def test_a_device_that_cannot_train_is_refused(fit, device: str) -> None:
    with pytest.raises(ConfigError, match="is not there"):
        fit(device=device)


class Unsteady(VAE):
    """Its validations, counted from that at step 0, are NaN at those in `broken`."""

    broken: tuple[int, ...] = ()
    count = -1

    def validate(self, batch):
        self.count += 1
        terms = super().validate(batch)
        bad = np.nan if self.count in self.broken else 1.0
        return Terms(terms.total, {name: value * bad for name, value in terms.named.items()})


def unsteady(*broken: int) -> Unsteady:
    rng.seed_all(0)
    model = Unsteady(VAE.Config(sample_shape=(1, 4, 4), hidden=(8,), latent_dim=2))
    model.broken = broken
    return model


QUIET = {"progress": False, "every_steps": 5}


def test_a_validation_that_is_no_number_is_never_the_best(pictures, tmp_path) -> None:
    trainer = Trainer(max_steps=24, batch_size=16, out=tmp_path / "run", log=QUIET)
    run = trainer.fit(unsteady(0, 1, 3), pictures)
    assert run.summary["best_validation"]["step"] == 16


def test_a_run_without_one_finite_validation_ends_and_resumes(pictures, tmp_path) -> None:
    trainer = Trainer(max_steps=16, batch_size=16, out=tmp_path / "run", log=QUIET)
    first = trainer.fit(unsteady(*range(9)), pictures)
    again = trainer.fit(unsteady(*range(9)), pictures, resume="auto")
    assert again.summary["last_validation"] == first.summary["last_validation"]
    assert again.summary["last_validation"]["negative_elbo_nats"] is None


def test_a_constant_schedule_can_be_made_longer_to_the_same_bytes(fit) -> None:
    long = fit("long", max_steps=32)
    fit("short", max_steps=20)
    extended = fit("short", max_steps=32, resume="auto", patience=9)
    for file in ("model", "optimizer", "rng"):
        assert saved(extended, "last", file) == saved(long, "last", file)


def test_a_cosine_schedule_cannot_be_made_longer_and_says_why(fit) -> None:
    fit(schedule="cosine")
    with pytest.raises(CheckpointError, match="length sets the learning rate of every step"):
        fit(schedule="cosine", max_steps=32, resume="auto")


def test_a_checkpoint_of_another_run_is_refused_with_what_to_do(fit, tmp_path) -> None:
    fit("one")
    with pytest.raises(ConfigError, match="copy that whole run folder"):
        fit("two", resume=str(tmp_path / "one" / "checkpoints" / "last"))


def test_a_run_that_could_not_begin_leaves_the_folder_free(fit, tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").touch()
    assert fit().summary["steps"] == 20


def test_an_interrupted_run_says_where_it_goes_on(fit, capsys) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(callbacks=[stop_after(11)], checkpoint_every_steps=3, log={"progress": True})
    assert "interrupted at step 12; --resume auto goes on from step 9" in capsys.readouterr().err


def test_the_newest_checkpoints_stay_and_are_the_same_after_a_resume(fit) -> None:
    settings = {"checkpoint_every_steps": 4, "validate_every_steps": 20, "keep_last": 3}
    kept = ["best", "last", "step-00000012", "step-00000016", "step-00000020"]
    run = fit(**settings)
    assert sorted(path.name for path in (run.path / "checkpoints").iterdir()) == kept
    fit(resume=str(run.path / "checkpoints" / "step-00000012"), **settings)
    assert sorted(path.name for path in (run.path / "checkpoints").iterdir()) == kept


def test_best_is_by_the_metric_that_was_asked_for(fit) -> None:
    run = fit(metric="kl_nats")
    rows = [row for row in run.history if row["split"] == "validation"][1:]
    assert run.summary["best_validation"]["step"] == min(rows, key=lambda row: row["kl_nats"])["step"]
    assert run.summary["validation_metric"] == "kl_nats"


def test_best_may_be_the_largest_of_any_number_of_a_validation(fit) -> None:
    run = fit(metric="active_units", metric_mode="max", patience=3)
    values = {row["step"]: row["active_units"] for row in run.history if row["split"] == "validation"}
    best = run.summary["best_validation"]
    largest = max(value for step, value in values.items() if step)
    assert best["active_units"] == values[best["step"]] == largest
    with pytest.raises(ConfigError, match=r"Set train\.metric"):
        fit("other", metric_mode="max")


def test_a_metric_that_is_not_validated_is_refused_and_leaves_the_folder_free(fit) -> None:
    with pytest.raises(ConfigError, match="Did you mean `kl_nats`"):
        fit(metric="kl_nat")
    assert fit().summary["steps"] == 20


@pytest.mark.parametrize("gone", [("last",), ("last", "best")])
def test_without_its_link_the_newest_checkpoint_is_gone_on_from(fit, gone: tuple[str, ...]) -> None:
    calm = fit("calm", max_steps=40, keep_last=3, checkpoint_every_steps=4)
    run = fit(keep_last=3, checkpoint_every_steps=4)
    for link in gone:
        (run.path / "checkpoints" / link).unlink()
    again = fit(resume="auto", max_steps=40, keep_last=3, checkpoint_every_steps=4)
    assert saved(again, "last") == saved(calm, "last")
    assert [row for row in again.history if row["step"] == 0] != []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda log: log.unlink(), "it has 0 bytes"),
        (lambda log: log.write_bytes(log.read_bytes()[:-200]), "metrics.jsonl: is not as it was"),
        (lambda log: log.write_bytes(b"x" + log.read_bytes()[1:]), "metrics.jsonl: is not as it was"),
    ],
)
def test_a_log_that_is_not_the_checkpoint_s_is_refused(fit, change: Any, words: str) -> None:
    change(fit().path / "metrics.jsonl")
    with pytest.raises(CheckpointError, match=words):
        fit(resume="auto", max_steps=30)


@pytest.mark.parametrize("change", [{"counters": 3}, {"cursor": {"seed": "x"}}, {"rng": {}}])
def test_a_checkpoint_with_strange_facts_is_refused(fit, change: dict[str, Any]) -> None:
    state = fit().path / "checkpoints" / "last" / "state.json"
    facts = {**json.loads(state.read_text()), **change, "digest": ""}
    state.write_bytes(seal(json.dumps(facts, indent=2).encode() + b"\n"))
    with pytest.raises(CheckpointError, match="is not what this Triptych writes"):
        fit(resume="auto", max_steps=30)


@pytest.mark.parametrize("at", ["", "checkpoints", "checkpoints/nowhere"])
def test_a_folder_that_is_no_checkpoint_says_what_is_one(fit, at: str) -> None:
    with pytest.raises(CheckpointError, match="valid: `auto`, or a checkpoint folder"):
        fit(resume=str(fit().path / at))


def test_what_cannot_come_about_is_said(fit, capsys) -> None:
    fit(batch_size=1000, schedule="warmup_cosine", warmup_steps=20, log={"progress": True})
    said = capsys.readouterr().err
    assert "batches hold 128 examples, not 1000" in said
    assert "turn `elbo` warms up for 20 steps, and training takes 20" in said


@pytest.mark.parametrize(("full_at_bytes", "checkpoint_every_steps"), [(2_500, None), (4_000, 2)])
def test_a_full_disk_is_said_and_after_making_room_the_run_goes_on(
    fit, full_at_bytes: int, checkpoint_every_steps: int | None
) -> None:
    """No file may grow beyond so many bytes: first the log reaches them, then a checkpoint."""
    settings = {"checkpoint_every_steps": checkpoint_every_steps, "validate_every_steps": 20}
    log, limit = {"every_steps": 1, "samples": 0}, resource.getrlimit(resource.RLIMIT_FSIZE)
    calm = fit("calm", log=log, **settings)
    resource.setrlimit(resource.RLIMIT_FSIZE, (full_at_bytes, limit[1]))
    try:
        with pytest.raises(TrainingError, match=r"cannot be written.*--resume auto"):
            fit("full", log=log, **settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    resumed = fit("full", resume="auto", log=log, **settings)
    assert saved(resumed, "last") == saved(calm, "last")
    assert without_clock(resumed) == without_clock(calm)


@pytest.mark.parametrize("data", [torch.zeros(4, 1, 8, 8), np.zeros((4, 1, 8, 8)), [1, 2]])
def test_data_that_is_no_data_set_is_refused_with_the_function_that_makes_one(data: Any, tmp_path) -> None:
    with pytest.raises(DataError, match=f"got a {type(data).__name__}.*from_arrays"):
        Trainer(max_steps=1, out=tmp_path / "run").fit(VAE(VAE.Config()), data)
    assert not (tmp_path / "run").exists()
