"""Every family: a run that is cut off and resumed ends with the bytes of one that was not."""

from pathlib import Path

import pytest

from triptych.learn import data as datasets
from triptych.learn.data import Dataset
from triptych.learn.models import FAMILIES, GenerativeModel
from triptych.learn.train import Moment, Trainer, rng
from triptych.learn.train.settings import as_section

SMALL = {
    "vae": {"hidden": [8], "latent_dim": 2, "kl_warmup_steps": 10},
    "wgan-gp": {"generator_hidden": [8], "critic_hidden": [8]},
    "vq-vae": {"channels": [8], "codes": 16, "code_dim": 4, "prior_width": 8, "prior_dropout": 0.1},
    "transformer": {"layers": 1, "heads": 2, "width": 8, "dropout": 0.1},
}


def make(family: str) -> tuple[GenerativeModel, Dataset]:
    data = (
        datasets.from_text("to be or not to be, that is the question\n" * 40, block_size=8)
        if family == "transformer"
        else datasets.digits(binarize="dynamic")
    )
    rng.seed_all(0)
    config = as_section(FAMILIES[family].Config, {**data.known_fields(), **SMALL[family]}, "model")
    return FAMILIES[family](config), data


def cut_at(step: int):
    def callback(moment: Moment) -> None:
        if moment.row["step"] >= step:
            raise KeyboardInterrupt

    return callback


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_run_resumes_to_the_bytes_of_an_uncut_one(family: str, tmp_path: Path) -> None:
    settings = {"max_steps": 12, "batch_size": 8, "validate_every_steps": 6, "checkpoint_every_steps": 2}
    log = {"progress": False, "report": False, "every_steps": 3, "samples": 1}
    for name, callbacks in (("calm", ()), ("cut", (cut_at(9),))):
        trainer = Trainer(out=tmp_path / name, log=log, callbacks=callbacks, **settings)
        if callbacks:
            with pytest.raises(KeyboardInterrupt):
                trainer.fit(*make(family))
        else:
            trainer.fit(*make(family))
    Trainer(out=tmp_path / "cut", log=log, **settings).fit(*make(family), resume="auto")
    for which in ("last", "best"):
        for file in ("model", "optimizer", "rng"):
            paths = [
                tmp_path / run / "checkpoints" / which / f"{file}.safetensors" for run in ("calm", "cut")
            ]
            assert paths[0].read_bytes() == paths[1].read_bytes(), f"{which}/{file}"
