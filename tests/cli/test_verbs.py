"""Verbs do what they say, and bad input ends in one message and a code that is not 0."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import triptych as library
from triptych.bundle.digest import seal
from triptych.infer import DecodeLoop, GenerationRequest

Run = Callable[..., tuple[int, str, str]]

BAD = {
    "an unknown verb": (["tarin"], "tarin"),
    "an unknown flag": (["sample", "{images}", "--out", "x.npy", "--sede", "1"], "--sede"),
    "no such recipe": (["train", "vae-fashoin"], "vae-fashion"),
    "an unknown setting": (["train", "vae-digits", "--set", "train.lerning_rate=1"], "learning_rate"),
    "a setting of the wrong type": (["train", "vae-digits", "--set", "train.batch_size=many"], "batch_size"),
    "a setting out of range": (["train", "vae-digits", "--set", "train.batch_size=0"], "batch_size"),
    "a setting without a value": (["train", "vae-digits", "--set", "train.seed"], "--set"),
    "a setting that has no effect": (
        ["train", "vae-digits", "--set", "train.warmup_steps=9"],
        "warmup_steps",
    ),
    "an unknown family": (["train", "vae-digits", "--set", "model.family=vea"], "vea"),
    "an unknown data set": (["train", "vae-digits", "--set", "data.name=digist"], "digits"),
    "a folder that is not there": (
        ["train", "vae-digits", "--set", "data.name=folder", "--set", "data.path=/no/such"],
        "/no/such",
    ),
    "a run that is not there": (["export", "/no/such", "--out", "b"], "/no/such"),
    "a checkpoint that does not exist": (
        ["export", "/no/such", "--out", "b", "--which", "first"],
        "best, last",
    ),
    "nothing to evaluate": (["evaluate", "/no/such"], "/no/such"),
    "nothing to inspect": (["inspect", "/no/such"], ": /no/such: "),
    "nothing to serve": (["serve"], "BUNDLE"),
    "serving what is not there": (["serve", "/no/such"], "/no/such"),
    "a broker's password as it is": (["worker", "{images}", "--broker", "amqp://u:p/w@host/"], "%2F"),
    "a broker that is not there": (["serve", "{images}", "--broker", "kafka://x"], "memory"),
    "a broker at a port that is none": (["serve", "{images}", "--broker", "amqp://h:x"], "HOST:PORT"),
    "a worker's broker at a port that is none": (
        ["worker", "{images}", "--broker", "amqp://h:99999"],
        "HOST:PORT",
    ),
    "a demo into a file": (["demo", "--out", "{images}/manifest.json"], "--out"),
    "a checkpoint that is in no run": (["train", "vae-digits", "--resume", "/nothing"], "--resume"),
    "an unknown serving setting": (["serve", "{images}", "--set", "queue.capcity=1"], "capacity"),
    "a port that is none": (["serve", "{images}", "--port", "70000"], "port"),
    "an unknown engine": (["sample", "{images}", "--out", "x.npy", "--engine", "onyx"], "onnxruntime"),
    "an unknown precision": (["sample", "{images}", "--out", "x.npy", "--precision", "f8"], "bf16"),
    "an unknown ending": (["sample", "{images}", "--out", "x.jpeg"], ".png"),
    "no samples": (["sample", "{images}", "--out", "x.npy", "--n", "0"], "--n"),
    "a negative seed": (["sample", "{images}", "--out", "x.npy", "--seed", "-1"], "seed"),
    "text of an image model": (["sample", "{images}", "--out", "x.txt"], ".png"),
    "pictures of a text model": (["sample", "{text}", "--out", "x.png"], ".txt"),
    "a text setting for pictures": (
        ["sample", "{images}", "--out", "x.png", "--max-tokens", "3"],
        "--max-tokens",
    ),
    "a condition that is no JSON": (
        ["sample", "{kinds}", "--out", "x.npy", "--condition", "label=3"],
        "--condition",
    ),
    "a label that is no class": (
        ["sample", "{kinds}", "--out", "x.npy", "--condition", '{"label": 3}'],
        "0 to 2",
    ),
    "a condition for a model without": (
        ["sample", "{images}", "--out", "x.npy", "--condition", '{"label": 0}'],
        "takes no condition",
    ),
    "a condition for text": (["sample", "{text}", "--out", "x.txt", "--condition", "{}"], "--prompt"),
    "more classes than the data has": (
        ["train", "vae-digits-conditional", "--set", "model.classes=11"],
        "model.classes",
    ),
    "a folder recipe without its folder": (["train", "vae-folder"], "data.path"),
    "a prompt with unknown characters": (["sample", "{text}", "--out", "x.txt", "--prompt", "zebra"], "z"),
    "a temperature below 0": (["sample", "{text}", "--out", "x.txt", "--temperature", "-1"], "temperature"),
    "a cut of tokens where none is drawn": (
        ["sample", "{text}", "--out", "x.txt", "--temperature", "0", "--top-p", "0.9"],
        "--top-p: has no effect with --temperature 0",
    ),
    "several texts without chance": (
        ["sample", "{text}", "--out", "x.txt", "--temperature", "0", "--n", "2"],
        "--n: has no effect",
    ),
    "a penalty for pictures": (
        ["sample", "{images}", "--out", "x.png", "--repetition-penalty", "1.1"],
        "--repetition-penalty",
    ),
    "a probability above 1": (["sample", "{text}", "--out", "x.txt", "--min-p", "1.5"], "min_p"),
    "a precision nobody has": (["sample", "{images}", "--out", "x.npy", "--precision", "int4"], "int4"),
    "an unknown bench": (["bench", "infre"], "infer"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_message_and_not_zero(
    triptych: Run, bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words, said = BAD[name]
    places = {f"{{{bundle}}}": str(bundles / bundle) for bundle in ("images", "kinds", "text")}
    for place, path in places.items():
        words = [word.replace(place, path) for word in words]
    code, out, error = triptych(*words)
    assert code != 0
    assert said in error
    assert "Traceback" not in out + error
    assert list(tmp_path.iterdir()) == []


def test_chaos_names_a_cache_that_cannot_be_written(
    triptych: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    code, _, error = triptych("chaos", "--quick", "--experiment", "1")
    assert (code, "TRIPTYCH_CACHE" in error, str(tmp_path / "cache") in error) == (2, True, True)


def test_a_damaged_bundle_is_refused_by_name_of_file(triptych: Run, bundles: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(bundles / "images", tmp_path / "damaged"))
    weights = damaged / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    for words in (
        ["inspect", damaged],
        ["serve", damaged, "--port", "0"],
        ["sample", damaged, "--out", "x.npy"],
    ):
        code, _, error = triptych(*words)
        assert code != 0
        assert "model.safetensors" in error
        assert "Traceback" not in error


def test_inspect_shows_what_the_manifest_says(triptych: Run, bundles: Path) -> None:
    code, out, _ = triptych("inspect", bundles / "text", "--json")
    assert code == 0
    assert json.loads(out)["family"] == "transformer"
    code, out, _ = triptych("inspect", bundles / "images")
    assert code == 0
    assert "decode" in out
    assert {" 1: ", "100: ", "1024: "} <= set(re.findall(r"(?: 1|\b\d{2,}): ", out))
    assert "256: " not in out  # of all the batch sizes that were measured
    assert "every byte is as it was written" in out


def test_inspect_shows_words_of_a_manifest_as_they_are(
    triptych: Run, bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "[bold]cache"))
    bundle = shutil.copytree(bundles / "images", tmp_path / "bundle")
    (bundle / "notes[i].txt").write_text("x")
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    manifest |= {"name": "vae[best]", "family": "x[y]", "created_with": {"torch[cpu]": ":key: [/b]"}}
    manifest["files"]["notes[i].txt"] = {"size_bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    for found in manifest["calibration"]["measurements"]:
        found |= {"latency_s": {}, "refused": "no [red]"}
    unsealed = json.dumps({**manifest, "digest": ""}, indent=2, ensure_ascii=False) + "\n"
    (bundle / "manifest.json").write_bytes(seal(unsealed.encode()))
    code, out, _ = triptych("inspect", bundle)
    assert code == 0
    for said in ("vae[best]", "x[y]", "torch[cpu] :key: [/b]", "notes[i].txt", "refused: no [red]"):
        assert said in out
    assert "[bold]cache" in triptych("calibrate", bundle, "--threads", "1")[1]


def test_sampled_arrays_are_what_the_library_draws(triptych: Run, bundles: Path, tmp_path: Path) -> None:
    code, _, _ = triptych(
        "sample", bundles / "images", "--n", "5", "--seed", "3", "--out", tmp_path / "x.npy"
    )
    assert code == 0
    with library.load(bundles / "images") as engine:
        assert np.load(tmp_path / "x.npy").tobytes() == engine.sample(5, seed=3).tobytes()


def test_many_samples_are_written_as_they_are_drawn(
    triptych: Run, bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triptych.infer.engine.Engine.sample", None)  # would hold them all
    out = tmp_path / "new" / "x.npy"
    assert triptych("sample", bundles / "images", "--n", "3000", "--seed", "3", "--out", out)[0] == 0
    monkeypatch.undo()
    with library.load(bundles / "images") as engine:
        assert np.load(out).tobytes() == engine.sample(3000, seed=3).tobytes()
    assert [path.name for path in out.parent.iterdir()] == ["x.npy"]


def test_a_stream_that_is_cut_off_leaves_what_was_there(
    triptych: Run, bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "x.npy").write_bytes(b"before")
    monkeypatch.setattr("triptych.cli.whole_file.os.replace", full)
    code, _, error = triptych("sample", bundles / "images", "--out", tmp_path / "x.npy")
    assert code == 2
    assert "No space left" in error
    assert (tmp_path / "x.npy").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


def test_samples_may_be_drawn_by_another_engine(triptych: Run, bundles: Path, tmp_path: Path) -> None:
    words = ["--n", "5", "--engine", "openvino", "--out", tmp_path / "x.npy"]
    assert triptych("sample", bundles / "images", *words)[0] == 0
    with library.load(bundles / "images", engine="openvino") as engine:
        assert np.load(tmp_path / "x.npy").tobytes() == engine.sample(5).tobytes()


def test_a_condition_is_that_of_the_library(triptych: Run, bundles: Path, tmp_path: Path) -> None:
    words = ["--n", "5", "--seed", "3", "--condition", '{"label": 2}', "--out", tmp_path / "x.npy"]
    assert triptych("sample", bundles / "kinds", *words)[0] == 0
    with library.load(bundles / "kinds") as engine:
        wanted = engine.sample(5, seed=3, condition={"label": 2})
    assert np.load(tmp_path / "x.npy").tobytes() == wanted.tobytes()


def test_sampled_pictures_and_texts_are_files_of_their_kind(
    triptych: Run, bundles: Path, tmp_path: Path
) -> None:
    assert triptych("sample", bundles / "images", "--n", "4", "--out", tmp_path / "x.png")[0] == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    words = ["--n", "2", "--prompt", "ab", "--max-tokens", "6", "--out", tmp_path / "x.txt"]
    assert triptych("sample", bundles / "text", *words)[0] == 0
    texts = (tmp_path / "x.txt").read_text().removesuffix("\n").split("\n\n---\n\n")
    assert len(texts) == 2
    assert all(text.startswith("ab") and len(text) == 8 for text in texts)


def test_every_setting_of_a_text_reaches_the_model(triptych: Run, bundles: Path, tmp_path: Path) -> None:
    settings = {"max_tokens": 30, "temperature": 2.0, "top_k": 3, "top_p": 0.95, "min_p": 0.01}
    settings |= {"repetition_penalty": 1.3, "frequency_penalty": 0.2, "presence_penalty": -0.4, "seed": 3}
    words = [part for name, value in settings.items() for part in ("--" + name.replace("_", "-"), str(value))]
    words += ["--n", "3", "--stop", "abc", "--stop", "ccc", "--prompt", "ab"]
    assert triptych("sample", bundles / "text", *words, "--out", tmp_path / "x.txt")[0] == 0
    with library.load(bundles / "text") as engine:
        wanted = engine.generate("ab", n=3, stop=["abc", "ccc"], **settings)
    texts = "\n\n---\n\n".join("ab" + choice.text for choice in wanted) + "\n"
    assert (tmp_path / "x.txt").read_text() == texts


def test_many_texts_are_written_as_they_are_made(
    triptych: Run, bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[int] = []
    add = DecodeLoop.add

    def counted(loop: DecodeLoop, request: GenerationRequest) -> int:
        waiting.append(len(loop))
        return add(loop, request)

    monkeypatch.setattr(DecodeLoop, "add", counted)
    words = ["--n", "100", "--max-tokens", "12", "--stop", "a", "--prompt", "ab", "--out", tmp_path / "x.txt"]
    assert triptych("sample", bundles / "text", *words)[0] == 0
    assert max(waiting) < 40
    with library.load(bundles / "text") as engine:
        wanted = engine.generate("ab", n=100, max_tokens=12, stop="a")
    assert len({len(choice.token_ids) for choice in wanted}) > 1
    texts = "\n\n---\n\n".join("ab" + choice.text for choice in wanted) + "\n"
    assert (tmp_path / "x.txt").read_text() == texts


def test_more_pictures_than_anybody_looks_at_are_refused_before_they_are_drawn(
    triptych: Run, bundles: Path, tmp_path: Path
) -> None:
    code, _, error = triptych("sample", bundles / "images", "--n", "900000000", "--out", tmp_path / "x.png")
    assert code == 2
    assert "in one picture" in error
    assert ".npy" in error


def test_a_text_without_chance_is_one_text(triptych: Run, bundles: Path, tmp_path: Path) -> None:
    words = ["--temperature", "0", "--max-tokens", "5", "--out", tmp_path / "x.txt"]
    code, out, _ = triptych("sample", bundles / "text", *words)
    assert (code, out.startswith("1 sample written")) == (0, True)
    with library.load(bundles / "text") as engine:
        text = engine.generate("", max_tokens=5, temperature=0).text
    assert (tmp_path / "x.txt").read_text() == text + "\n"


def test_train_evaluate_export_and_inspect_follow_on_each_other(triptych: Run, tmp_path: Path) -> None:
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    settings = ["--set", "train.max_steps=6", "--set", "log.progress=false", "--set", "model.hidden=[16]"]
    assert triptych("train", "vae-digits", *settings, "--out", run)[0] == 0
    code, out, _ = triptych("evaluate", run)
    assert code == 0
    assert "elbo_nats" in out
    assert triptych("export", run, "--out", bundle)[0] == 0
    assert triptych("inspect", bundle)[0] == 0
    assert triptych("evaluate", bundle)[0] == 0
    code, out, _ = triptych("evaluate", bundle, "--precision", "int8")
    assert (code, "elbo_nats_change" in out) == (0, True)
    code, _, error = triptych("evaluate", run, "--precision", "int8")
    assert (code, "is no bundle" in error) == (2, True)
    assert triptych("train", "vae-digits", *settings, "--out", run)[0] != 0


def test_recipes_lists_every_recipe(triptych: Run) -> None:
    code, out, _ = triptych("recipes")
    assert code == 0
    for recipe in (Path(__file__).parents[2] / "recipes").glob("*.toml"):
        assert recipe.stem in out


def test_print_config_is_a_config_that_serve_reads(triptych: Run, tmp_path: Path) -> None:
    code, out, _ = triptych("serve", "--print-config")
    assert code == 0
    (tmp_path / "serve.toml").write_text(out)
    assert triptych("serve", "--config", tmp_path / "serve.toml", "--print-config")[:2] == (0, out)


def test_calibrate_keeps_what_it_found_and_inspect_shows_it(
    triptych: Run, bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path))
    code, out, _ = triptych("calibrate", bundles / "images", "--threads", "1", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["threads"] == 1
    assert {("decode", "onnxruntime"), ("decode", "openvino")} <= {
        (measurement["graph"], measurement["engine"]) for measurement in found["measurements"]
    }
    (kept,) = (tmp_path / "calibration").iterdir()
    assert json.loads(kept.read_bytes()) == found
    assert "1 threads" in triptych("inspect", bundles / "images")[1]
    assert kept.name in triptych("calibrate", bundles / "images")[1]
    assert triptych("calibrate", bundles / "images", "--threads", "0")[0] == 2
