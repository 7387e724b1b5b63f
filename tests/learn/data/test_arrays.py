"""What is wrong with data is said with what to do about it; what is right becomes disjoint seeded splits."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from triptych.errors import ConfigError, DataError
from triptych.learn import data as datasets
from triptych.learn.data.arrays import parts
from triptych.learn.data.split import ArraySplit


@pytest.mark.parametrize(
    ("x", "problem"),
    [
        (np.zeros((0, 4)), "shape"),
        (np.zeros(4), "shape"),
        ([[0.0, 1.0], [0.0]], "ragged"),
        (np.zeros((20, 4), np.int64), "dtype int64"),
        (np.full((20, 4), 2.0), "from 2 to 2"),
        (np.full((20, 4), np.nan), "NaN"),
        (np.zeros((2, 4)), "cannot give parts"),
        (np.zeros((20, 8, 8, 3), np.uint8), r"channels last.*transpose\(0, 3, 1, 2\)"),
    ],
)
def test_bad_arrays_are_refused_with_a_reason(x: object, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        datasets.from_arrays(x)


@pytest.mark.parametrize("labels", [np.zeros(19, int), np.zeros((20, 1), int), np.zeros(20)])
def test_labels_must_be_one_integer_per_example(labels: np.ndarray) -> None:
    with pytest.raises(DataError, match="one per example"):
        datasets.from_arrays(np.zeros((20, 4)), labels)


@given(st.integers(3, 200), st.floats(0, 0.4), st.floats(0, 0.4), st.integers(0, 1000))
def test_parts_are_disjoint_and_cover_everything(
    count: int, validation: float, test: float, seed: int
) -> None:
    found = parts(count, (validation, test), seed, where="data")
    assert min(map(len, found)) >= 1
    assert sorted(torch.cat(found).tolist()) == list(range(count))


def test_bytes_and_floats_give_the_same_batches() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 1, 2, 2), dtype=np.uint8)
    index = torch.tensor([3, 1])
    from_bytes = ArraySplit(torch.from_numpy(pixels)).take(index).x
    from_floats = ArraySplit(torch.from_numpy(pixels / np.float32(255))).take(index).x
    assert from_bytes.dtype == torch.float32
    assert torch.equal(from_bytes, from_floats)


def test_fixed_binarisation_never_changes_and_dynamic_does() -> None:
    x = np.full((40, 50), 0.5)
    index = torch.arange(8)
    fixed = [datasets.from_arrays(x, binarize="fixed").train.take(index).x for _ in range(2)]
    split = datasets.from_arrays(x, binarize="dynamic").train
    dynamic = [split.take(index).x for _ in range(2)]
    assert torch.equal(*fixed)
    assert not torch.equal(*dynamic)
    for batch in (*fixed, *dynamic):
        assert set(batch.unique().tolist()) == {0.0, 1.0}
        assert 0.3 < batch.mean() < 0.7


def test_digits_need_nothing_and_are_named() -> None:
    made = datasets.digits()
    assert made.spec.sample_shape == (1, 8, 8)
    assert (len(made.train), len(made.validation), len(made.test)) == (1437, 180, 180)
    assert len(made.spec.digest) == 64


def test_folder_of_pictures_takes_classes_from_subfolders(tmp_path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(6):
            Image.new("RGB", (5 + index, 5), (index, 0, 0)).save(tmp_path / name / f"{index}.png")
    made = datasets.from_folder(str(tmp_path), size=4, channels=1)
    assert made.spec.sample_shape == (1, 4, 4)
    assert len(made.spec.classes) == 2
    with pytest.raises(DataError, match="sizes"):
        datasets.from_folder(str(tmp_path))
    (tmp_path / "cat" / "0.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="not a readable picture"):
        datasets.from_folder(str(tmp_path), size=4)


def test_a_folder_that_is_missing_is_said_so(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"data\.path: is missing"):
        datasets.from_folder("")
    with pytest.raises(DataError, match="no such folder"):
        datasets.from_folder(str(tmp_path / "nowhere"))


def test_pictures_of_any_shape_are_cut_to_their_middle_square(tmp_path) -> None:
    wide = np.zeros((8, 24), np.uint8)
    wide[:, 8:16] = 200
    for index in range(6):
        Image.fromarray(wide.T if index % 2 else wide).save(tmp_path / f"{index}.png")
    made = datasets.from_folder(str(tmp_path), size=4, channels=1)
    whole = torch.cat([batch.x for batch, _ in made.train.whole(10)])
    assert whole.mean() > 0.7


def test_classes_come_from_subfolders_only_when_every_picture_lies_in_one(tmp_path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png", "b/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    assert datasets.from_folder(str(tmp_path)).spec.classes == ("a", "b")
    Image.new("L", (4, 4)).save(tmp_path / "stray.png")
    assert datasets.from_folder(str(tmp_path)).spec.classes == ()


def test_hidden_files_are_no_pictures(tmp_path) -> None:
    for index in range(5):
        Image.new("L", (4, 4)).save(tmp_path / f"{index}.png")
        (tmp_path / f"._{index}.png").write_bytes(b"what a Mac leaves behind")
    assert datasets.from_folder(str(tmp_path)).spec.source.startswith("5 pictures")


@pytest.mark.parametrize("size", [0, -3])
def test_a_size_below_one_is_refused(tmp_path, size: int) -> None:
    with pytest.raises(ConfigError, match=f"data.size: got {size}"):
        datasets.from_folder(str(tmp_path), size=size)


def test_a_size_beyond_all_memory_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="1 to 4096"):
        datasets.from_folder(str(tmp_path), size=100_000)


@pytest.mark.parametrize("damage", ["cut", "bomb", "text"])
def test_a_picture_that_cannot_be_read_is_named_with_a_remedy(
    tmp_path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    path = tmp_path / "x.png"
    Image.new("L", (40, 40)).save(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:50])
    elif damage == "text":
        path.write_text("no picture")
    else:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"x.png: not a readable picture.* Remove it, or save it anew"):
        datasets.from_folder(str(tmp_path), size=8)


def test_empty_folder_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="no pictures"):
        datasets.from_folder(str(tmp_path))


def test_a_picture_of_more_than_eight_bits_is_refused_not_cut_off(tmp_path) -> None:
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="more than 8 bits"):
        datasets.from_folder(str(tmp_path))


def test_a_photograph_is_turned_as_its_camera_says(tmp_path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn clockwise
    for index in range(6):
        Image.new("RGB", (8, 4)).save(tmp_path / f"{index}.png", exif=turned)
    assert datasets.from_folder(str(tmp_path)).spec.sample_shape == (3, 8, 4)
