"""Labels are checked for range, gaps and type; names become numbers in sorted order."""

import numpy as np
import pytest
import torch

from triptych.errors import ConfigError, DataError
from triptych.learn import data as datasets
from triptych.learn.data.labels import as_labels, class_number


def test_names_become_numbers_in_sorted_order() -> None:
    labels, classes = as_labels(["pear", "apple", "pear", "fig"], 4, where="data")
    assert classes == ("apple", "fig", "pear")
    assert labels.tolist() == [2, 0, 2, 1]


def test_given_classes_keep_their_order_and_may_have_no_example() -> None:
    labels, classes = as_labels(["pear", "apple"], 2, where="data", classes=["pear", "fig", "apple"])
    assert classes == ("pear", "fig", "apple")
    assert labels.tolist() == [0, 2]
    assert as_labels([0, 2], 2, where="data", classes=["a", "b", "c"])[0].tolist() == [0, 2]


@pytest.mark.parametrize("labels", [torch.tensor([0, 1]), np.array([0, 1], np.uint8), (0, 1)])
def test_integers_of_any_kind_are_int64(labels) -> None:
    made, classes = as_labels(labels, 2, where="data")
    assert made.dtype == torch.int64
    assert classes == ("0", "1")


@pytest.mark.parametrize(
    ("labels", "classes", "words"),
    [
        ([0, 1, -1], None, ["-1", "integers from 0"]),
        ([1, 2, 3], None, ["go to 3", "no example has 0", "return_inverse"]),
        ([0, 1, 7], None, ["no example has 2, 3, 4, 5, 6", "classes=[...]"]),
        ([0.0, 1.0, 2.0], None, ["float64", "astype('int64')"]),
        ([0, 1], None, ["(2,)", "3 integers"]),
        ([0, 1, 2], ["a", "b"], ["label 2", "0 to 1"]),
        (["cat", "dig", "dog"], ["cat", "dog"], ["'dig'", "Did you mean `dog`?"]),
    ],
)
def test_wrong_labels_say_what_is_right(labels, classes, words) -> None:
    with pytest.raises(DataError) as caught:
        as_labels(labels, 3, where="data", classes=classes)
    for word in words:
        assert word in str(caught.value)


def test_classes_without_labels_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.classes"):
        datasets.from_arrays(np.zeros((20, 4)), classes=["a"])


def test_without_names_any_number_from_0_on_is_a_class() -> None:
    assert class_number(3, (), where="data") == 3
    for label in (-1, "cat"):
        with pytest.raises(DataError, match="classes"):
            class_number(label, (), where="data")


def test_every_batch_of_a_labelled_set_has_its_labels(digits) -> None:
    x, y = digits
    made = datasets.from_arrays(x, y)
    batch = made.train.take(torch.arange(96))
    by_picture = {picture.tobytes(): label for picture, label in zip(x, y, strict=True)}
    for picture, label in zip(batch.x, batch.labels, strict=True):
        assert by_picture[(picture * 255).round().to(torch.uint8).numpy().tobytes()] == label
