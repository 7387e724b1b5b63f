"""Runs beside each other: what differs is shown, what is the same is not, and every curve has its line."""

import pytest

from triptych.cli.compare import compare
from triptych.errors import ConfigError
from triptych.learn.train.compare import differences, overlay, read_runs


def test_only_settings_that_differ_are_shown(fit) -> None:
    runs = read_runs([fit("slow").path, fit("fast", learning_rate=0.01, log={"samples": 9}).path])
    assert differences(runs) == {"train.learning_rate": ["-", "0.01"]}


def test_every_run_has_a_line_for_every_quantity_and_split(fit) -> None:
    runs = read_runs([fit("one").path, fit("two", seed=1).path])
    names = {figure.title: {trace["name"] for trace in figure.traces} for figure in overlay(runs)}
    assert names["kl nats"] == {"one train", "one validation", "two train", "two validation"}
    assert names["lr"] == {"one train", "two train"}


def test_the_table_and_the_page_name_each_run(fit, tmp_path, capsys) -> None:
    page = tmp_path / "pages" / "compare.html"
    compare([fit("one").path, fit("two", seed=1).path], page)
    told, shown = capsys.readouterr().out, page.read_text()
    for word in ("one", "two", "train.seed"):
        assert word in told
        assert word in shown
    assert "{{" not in shown.rpartition("<h1>")[2].partition("<script>")[0]


def test_a_single_run_or_a_folder_without_one_is_refused(fit, tmp_path) -> None:
    run = fit("one").path
    with pytest.raises(ConfigError, match="two or more run folders"):
        read_runs([run, run])
    with pytest.raises(ConfigError, match="a run folder"):
        read_runs([run, tmp_path])
