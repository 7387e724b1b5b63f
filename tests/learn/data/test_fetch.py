"""Sources are tried in order, only the right content is kept, and nothing half-done is left behind."""

from pathlib import Path

import pytest

from triptych.errors import DataError
from triptych.learn import data as datasets
from triptych.learn.data.fetch import Source, Unavailable, cached, folder_digest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def digest(tmp_path: Path) -> str:
    folder = tmp_path / "right"
    folder.mkdir()
    right(folder)
    return folder_digest(folder)


def right(folder: Path) -> None:
    (folder / "a.txt").write_text("right")


def wrong(folder: Path) -> None:
    (folder / "a.txt").write_text("wrong")


def offline(folder: Path) -> None:
    (folder / "half.txt").write_text("ri")
    raise Unavailable("no network")


def test_the_first_source_with_the_right_content_wins(cache: Path, digest: str) -> None:
    sources = [Source("one", offline), Source("two", wrong), Source("three", right), Source("four", wrong)]
    folder = cached("set", digest, sources, remedy="none")
    assert [path.name for path in folder.iterdir()] == ["a.txt"]
    assert sorted(path.name for path in cache.iterdir()) == ["set", "set.lock"]


def test_what_is_cached_is_not_fetched_again(cache: Path, digest: str) -> None:
    cached("set", digest, [Source("one", right)], remedy="none")
    assert cached("set", digest, [], remedy="none") == cache / "set"


@pytest.mark.usefixtures("cache")
def test_a_damaged_cache_is_fetched_again(digest: str) -> None:
    folder = cached("set", digest, [Source("one", right)], remedy="none")
    (folder / "a.txt").write_text("changed")
    cached("set", digest, [Source("one", right)], remedy="none")
    assert (folder / "a.txt").read_text() == "right"


def test_when_nothing_delivers_the_message_says_what_was_tried_and_what_to_do(
    cache: Path, digest: str
) -> None:
    with pytest.raises(DataError) as caught:
        cached("set", digest, [Source("one", offline), Source("two", wrong)], remedy="use digits")
    for words in ("one (no network)", "two (content has SHA-256", "Use digits", str(cache)):
        assert words in str(caught.value)
    assert not (cache / "set").exists()


@pytest.mark.usefixtures("cache")
def test_without_clients_and_network_fashion_mnist_points_to_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="digits"):
        datasets.fashion_mnist()
