"""The page of a run: it refreshes while training runs, shows what there is, and says nothing that is not."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from triptych.learn import data as datasets
from triptych.learn.models import VAE
from triptych.learn.train import Trainer, rng
from triptych.learn.train.curves import curves, flat, headline, latents
from triptych.learn.train.recipe import about, shipped_recipes
from triptych.learn.train.samples import scatter

ROWS: list[dict[str, Any]] = [
    {
        "step": 0,
        "epoch": 0,
        "split": "validation",
        "kl_nats": 1.0,
        "kl_per_dimension": [0.1, 0.9],
        "alarms": [],
    },
    {"step": 5, "epoch": 0, "split": "train", "kl_nats": 2.0, "lr": {"critic": 0.1, "generator": 0.2}},
    {
        "step": 5,
        "epoch": 0,
        "split": "validation",
        "kl_nats": 3.0,
        "kl_per_dimension": [2.5, None],
        "alarms": ["standstill"],
        "elapsed_s": 1.0,
    },
]


def test_lists_are_no_curves_and_turns_have_one_each() -> None:
    assert flat(ROWS[0]) == {"kl_nats": 1.0}
    assert flat(ROWS[1]) == {"kl_nats": 2.0, "lr critic": 0.1, "lr generator": 0.2}
    assert [figure.title for figure in curves(ROWS)] == ["kl nats", "lr critic", "lr generator"]
    assert ("validation kl nats", "1 → 3") in headline(ROWS)


def test_latents_are_shown_over_time_and_now_the_busiest_first() -> None:
    over_time, now = latents(ROWS)
    (map_,), (bars,) = over_time.traces, now.traces
    assert (map_["x"], map_["y"]) == ([0, 5], ["0", "1"])
    assert map_["z"][0] == [0.1, 2.5]
    assert bars["y"][0] == 2.5
    assert now.title == "KL of each latent at step 5"
    assert latents(ROWS[1:2]) == []


def test_a_scatter_is_dark_where_points_are_and_points_upwards() -> None:
    pixels = np.asarray(Image.open(io.BytesIO(scatter(torch.tensor([[0.1, 0.9]])))))
    dark = np.argwhere(pixels < 128)
    assert len(dark)
    assert dark[:, 0].max() < 0.15 * pixels.shape[0]  # at the top
    assert dark[:, 1].max() < 0.15 * pixels.shape[1]  # on the left


def page_of(out: Path) -> str:
    return (out / "report.html").read_text("utf-8")


def test_the_page_refreshes_while_training_runs_and_then_no_more(tmp_path: Path) -> None:
    out, seen = tmp_path / "run", []
    rng.seed_all(0)
    model = VAE(VAE.Config(sample_shape=(2,), hidden=(8,), latent_dim=2, likelihood="gaussian"))
    trainer = Trainer(
        out=out,
        max_steps=4,
        batch_size=16,
        validate_every_steps=2,
        threads=1,
        log={"progress": False},
        callbacks=[lambda moment: seen.append(page_of(out)) if moment.row["split"] == "train" else None],
    )
    trainer.fit(model, datasets.toy_ring(examples=300))
    assert 'http-equiv="refresh" content="5"' in seen[0]
    final = page_of(out)
    assert "refresh" not in final
    assert "no alarm" in final
    for figure in (
        "kl nats",
        "modes hit",
        "high quality",
        "grad norm",
        "lr",
        "KL of each latent over training",
    ):
        assert f'"text":"{figure}"' in final, figure
    assert re.findall(r'src="(samples/step-\d+\.png)"', final) == [
        f"samples/step-{step:06d}.png" for step in (0, 2, 4)
    ]


def test_every_shipped_recipe_says_what_it_is_and_those_with_data_how_long_it_takes() -> None:
    for file in shipped_recipes():
        assert len(about(file)) > 40, file.stem
        assert "on 2 cores" in about(file) or file.stem.endswith("-folder"), file.stem
