"""NumPy files are data sets; what is wrong with one is said by name of file and key."""

import numpy as np
import pytest
import torch

from triptych.errors import ConfigError, DataError
from triptych.learn import data as datasets
from triptych.learn.train.recipe import load_data


def test_an_npz_with_usual_names_needs_no_settings(tmp_path, digits) -> None:
    x, y = digits
    np.savez_compressed(tmp_path / "d.npz", images=x, labels=y)
    made = datasets.from_npy(str(tmp_path / "d.npz"))
    assert made.spec.sample_shape == (1, 8, 8)
    assert made.spec.classes == tuple("0123456789")
    assert (len(made.train), len(made.validation), len(made.test)) == (96, 12, 12)
    assert made.spec.digest == datasets.from_arrays(x, y).spec.digest


def test_keys_can_be_named_and_a_lone_array_needs_no_name(tmp_path, digits) -> None:
    x, y = digits
    np.savez(tmp_path / "d.npz", glyphs=x, kinds=y, other=y)
    made = datasets.from_npy(str(tmp_path / "d.npz"), examples="glyphs", labels="kinds")
    assert made.train.take(torch.arange(3)).labels.shape == (3,)
    np.savez(tmp_path / "one.npz", glyphs=x)
    assert datasets.from_npy(str(tmp_path / "one.npz")).spec.classes == ()


def test_a_recipe_makes_the_same_set_again(tmp_path, digits) -> None:
    x, y = digits
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.array(["even", "odd"])[y % 2])
    made = load_data(
        {"name": "npy", "path": str(tmp_path / "x.npy"), "labels": str(tmp_path / "y.npy"), "seed": 3}
    )
    assert made.spec.classes == ("even", "odd")
    assert load_data(made.section).spec == made.spec


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"examples": "glyph"}, DataError, ["'glyph'", "glyphs, kinds", "Did you mean `glyphs`?"]),
        ({}, DataError, ["not clear", "glyphs, kinds", "examples"]),
        ({"examples": "glyphs", "labels": "kind"}, DataError, ["'kind'", "Did you mean `kinds`?"]),
    ],
)
def test_a_key_that_is_not_there_is_named_with_those_that_are(
    tmp_path, digits, settings, kind, words
) -> None:
    x, y = digits
    np.savez(tmp_path / "d.npz", glyphs=x, kinds=y)
    with pytest.raises(kind) as caught:
        datasets.from_npy(str(tmp_path / "d.npz"), **settings)
    for word in (*words, "d.npz"):
        assert word in str(caught.value)


def test_a_key_for_a_file_without_keys_is_refused(tmp_path, digits) -> None:
    np.save(tmp_path / "x.npy", digits[0])
    with pytest.raises(ConfigError, match=r"data\.examples"):
        datasets.from_npy(str(tmp_path / "x.npy"), examples="x")


def test_python_objects_are_never_unpickled(tmp_path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=np.array([{"a": 1}], dtype=object))
    for name in ("x.npy", "x.npz"):
        with pytest.raises(DataError, match=r"cannot be read: .*[Oo]bject"):
            datasets.from_npy(str(tmp_path / name))


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("content", [None, b"", b"\x93NUMPY", b"PK\x03\x04 and nothing", b"1,2,3\n"])
def test_a_missing_or_damaged_file_is_one_clear_error(tmp_path, name, content) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        datasets.from_npy(str(tmp_path / name))


def test_nobody_is_told_to_unpickle_what_is_no_array(tmp_path) -> None:
    (tmp_path / "x.npy").write_text("1,2,3\n")
    with pytest.raises(DataError, match="does not begin as one does") as caught:
        datasets.from_npy(str(tmp_path / "x.npy"))
    assert "pickle" not in str(caught.value)


def test_a_cut_npy_is_refused(tmp_path, digits) -> None:
    np.save(tmp_path / "x.npy", digits[0])
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-10])
    with pytest.raises(DataError, match="cannot be read"):
        datasets.from_npy(str(tmp_path / "x.npy"))
