"""What TensorBoard reads is what was logged, once each, whatever was interrupted."""

import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from triptych.errors import ConfigError
from triptych.learn import data as datasets
from triptych.learn.models import VAE, Transformer
from triptych.learn.train import Moment, Trainer, rng

LOG = {"progress": False, "report": False, "every_steps": 5, "samples": 4, "tensorboard": True}
SETTINGS: dict[str, Any] = {"max_steps": 20, "batch_size": 16, "threads": 1, "validate_every_steps": 10}


def train(out: Path, resume: str | None = None, cut_at: int | None = None, **log: Any) -> Any:
    def cut(moment: Moment) -> None:
        if moment.row["step"] == cut_at:
            raise KeyboardInterrupt

    rng.seed_all(0)
    model = VAE(VAE.Config(sample_shape=(1, 8, 8), hidden=(8,), latent_dim=2))
    trainer = Trainer(out=out, log={**LOG, **log}, callbacks=[cut], **SETTINGS)
    return trainer.fit(model, datasets.digits(), resume=resume)


def read(out: Path) -> EventAccumulator:
    events = EventAccumulator(
        str(out / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0}
    )
    events.Reload()
    return events


def logged(run: Any, name: str, split: str) -> list[tuple[int, float]]:
    return [(row["step"], pytest.approx(row[name])) for row in run.history if row["split"] == split]


def assert_as_logged(run: Any) -> None:
    events = read(run.path)
    for name, split in (
        ("kl_nats", "train"),
        ("kl_nats", "validation"),
        ("lr", "train"),
        ("grad_norm", "train"),
    ):
        found = [(event.step, event.value) for event in events.Scalars(f"{name}/{split}")]
        assert found == logged(run, name, split), f"{name}/{split}"
    steps = [event.step for event in events.Scalars("kl_per_dimension/1")]
    assert steps == [event.step for event in events.Images("samples")] == [0, 10, 20]


def test_every_logged_number_and_the_samples_are_read_back(tmp_path: Path) -> None:
    run = train(tmp_path / "run")
    assert_as_logged(run)
    picture = read(run.path).Images("samples")[0]
    assert picture.encoded_image_string.startswith(b"\x89PNG")
    assert picture.width == picture.height


def test_a_run_that_was_cut_and_resumed_has_no_row_twice(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", cut_at=15)
    assert [event.step for event in read(tmp_path / "run").Scalars("kl_nats/train")] == [5, 10]
    assert_as_logged(train(tmp_path / "run", resume="auto"))


def test_switched_on_at_a_resume_it_tells_the_whole_history(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", cut_at=15, tensorboard=False)
    assert not (tmp_path / "run/tensorboard").exists()
    assert_as_logged(train(tmp_path / "run", resume="auto"))


def test_the_samples_of_a_text_model_are_texts(tmp_path: Path) -> None:
    data = datasets.from_text("to be or not to be\n" * 60, block_size=8)
    model = Transformer(
        Transformer.Config(vocab_size=data.spec.vocab_size, block_size=8, layers=1, width=8, heads=2)
    )
    Trainer(out=tmp_path / "run", log=LOG, **SETTINGS).fit(model, data)
    events = read(tmp_path / "run").Tensors("samples/text_summary")
    assert [event.step for event in events] == [0, 10, 20]
    text = tensor_util.make_ndarray(events[-1].tensor_proto)[0].decode()
    written = (tmp_path / "run/samples/step-000020.txt").read_text("utf-8")
    assert text.replace("\n    ", "\n").removeprefix("    ") == written


def test_a_missing_package_is_named_with_the_extra_that_holds_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"log\.tensorboard: .*triptych\[tensorboard\]"):
        train(tmp_path / "run")
