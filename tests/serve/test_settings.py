"""Settings: what is not known or not valid is an error that says what is."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from triptych.errors import ConfigError
from triptych.serve.settings import Settings, read_settings
from triptych.serve.settings_shown import as_toml


def test_what_is_printed_can_be_read_back(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(as_toml(Settings()))
    assert read_settings(file) == Settings()


def test_every_setting_says_what_it_means() -> None:
    lines = [line for line in as_toml(Settings()).splitlines() if line]
    assert all(line.partition("  # ")[2] for line in lines)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text("[queue]\ncapacity = 5\nbatch_size = 6\n")
    queue = read_settings(file, ["queue.capacity=7"]).queue
    assert (queue.capacity, queue.batch_size) == (7, 6)


def test_a_table_is_printed_as_it_can_be_read() -> None:
    settings = read_settings(overrides=['limits.model_timeouts_s={"my-vae" = 2.5, text = 9}'])
    assert settings.limits.model_timeouts_s == {"my-vae": 2.5, "text": 9.0}
    assert tomllib.loads(as_toml(settings))["limits"]["model_timeouts_s"] == {"my-vae": 2.5, "text": 9.0}


def test_a_token_is_never_printed() -> None:
    assert "secret" not in as_toml(read_settings(overrides=["http.token=secret"]))


@pytest.mark.parametrize("name", ["http.token", "jobs.broker"])
def test_what_stands_for_a_secret_is_not_taken_for_one(tmp_path: Path, name: str) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(as_toml(read_settings(overrides=[f"{name}=amqp://secret"])))
    section, _, key = name.partition(".")
    line = next(line for line in file.read_text().splitlines() if line.startswith(f"{key} = "))
    assert "not shown" in line
    with pytest.raises(ConfigError, match=name):
        read_settings(file)
    settings = read_settings(file, [f"{name}=another"])
    assert getattr(getattr(settings, section), key) == "another"
    with pytest.raises(ConfigError, match=name):
        read_settings(overrides=[f"{name}=***"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("que.capacity=1", "did you mean `queue`"),
        ("queue.capacty=1", "did you mean `capacity`"),
        ("queue.capacity=0", "queue.capacity"),
        ("queue.capacity=many", "queue.capacity"),
        ("drain.delay_s=inf", "drain.delay_s"),
        ("http.header_timeout_s=nan", "http.header_timeout_s"),
        ("http.backlog=99999999999", "http.backlog"),
        ("limits.body_bytes=99999999999999999999", "limits.body_bytes"),
        ("queue=3", "section"),
        ("log=xml", "log"),
        ("capacity", "section.key=value"),
    ],
)
def test_a_wrong_setting_is_named(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings(overrides=[override])
    assert said.lower() in str(caught.value).lower()


@pytest.mark.parametrize(
    ("first", "second"),
    [("http.port=1", "http.port.x=2"), ("log=text", "log.x=2"), ("http.token=x", "http.token.x.y=2")],
)
def test_a_value_is_no_section(first: str, second: str) -> None:
    with pytest.raises(ConfigError, match="has a value already"):
        read_settings(overrides=[first, second])


@pytest.mark.parametrize("text", ["[queue]\nsize = 1\n", "[queue\n", "que = 1\n", "[workers]\ncount = 1.5\n"])
def test_a_wrong_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        read_settings(file)


def test_settings_survive_the_way_to_the_node() -> None:
    settings = read_settings(overrides=["http.port=0", "queue.batch_timeout_s=0.5"])
    assert msgspec.convert(msgspec.msgpack.decode(msgspec.msgpack.encode(settings)), Settings) == settings
    assert tomllib.loads(as_toml(settings))["queue"]["batch_timeout_s"] == 0.5
