"""Torch data sets and loaders: read as their author means them, and found again on resume."""

import random

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from triptych.errors import ConfigError, DataError
from triptych.learn import data as datasets
from triptych.learn.data.sampler import Cursor, Sampler


class Digits(TorchDataset):
    """The digits with their items in some shape; counts how often it is read."""

    def __init__(self, digits, shape) -> None:
        self.x, self.y = digits
        self.shape, self.reads = shape, 0

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int):
        self.reads += 1
        return self.shape(self.x[index], int(self.y[index]))


def noisy(x, y):
    """Augmented with all three global generators."""
    moved = np.roll(x, random.randint(0, 7), axis=-1) / np.float32(255)
    return torch.from_numpy(moved * np.float32(np.random.rand())) * torch.rand(()), y


SHAPES = {
    "a tensor": (lambda x, _: torch.from_numpy(x), False),
    "an array": (lambda x, _: x, False),
    "a picture": (lambda x, _: Image.fromarray(x[0]), False),
    "a tuple": (lambda x, y: (torch.from_numpy(x), y), True),
    "a tuple with a tensor label": (lambda x, y: (x, torch.tensor(y)), True),
    "a dict": (lambda x, y: {"label": y, "image": Image.fromarray(x[0]), "id": "?"}, True),
}


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_items_of_every_shape_are_read(digits, name, in_memory) -> None:
    shape, labelled = SHAPES[name]
    made = datasets.from_torch(Digits(digits, shape), classes=list("0123456789"), in_memory=in_memory)
    same = datasets.from_arrays(*digits)
    batch, wanted = (split.take(torch.arange(20)) for split in (made.train, same.train))
    assert torch.equal(batch.x, wanted.x)
    assert made.spec.sample_shape == (1, 8, 8)
    assert (batch.labels is not None) == labelled
    if labelled:
        assert torch.equal(batch.labels, wanted.labels)
        assert made.spec.classes == tuple("0123456789")
    assert bool(made.spec.digest) == in_memory


def test_items_are_read_anew_at_each_visit_unless_they_are_held(digits) -> None:
    source = Digits(digits, noisy)
    fresh = datasets.from_torch(source).train
    assert not torch.equal(fresh.take(torch.arange(4)).x, fresh.take(torch.arange(4)).x)
    held = datasets.from_torch(source, in_memory=True).train
    reads = source.reads
    assert torch.equal(held.take(torch.arange(4)).x, held.take(torch.arange(4)).x)
    assert source.reads == reads


def test_columns_can_be_chosen_and_labels_left_out(digits) -> None:
    source = Digits(digits, lambda x, y: (str(y), x, y % 3))
    made = datasets.from_torch(source, column=1, label_column=2, classes=["a", "b", "c"])
    assert set(made.train.take(torch.arange(30)).labels.tolist()) == {0, 1, 2}
    pairs = Digits(digits, lambda x, y: (x, y))
    assert datasets.from_torch(pairs, label_column=False).train.take(torch.arange(2)).labels is None


def test_the_classes_of_the_data_set_name_the_labels(digits) -> None:
    source = Digits(digits, lambda x, y: (x, y))
    source.classes = [f"digit {n}" for n in range(10)]
    assert datasets.from_torch(source).spec.classes[3] == "digit 3"


def test_validation_may_be_a_data_set_of_its_own(digits) -> None:
    augmented, plain = Digits(digits, noisy), Digits(digits, lambda x, y: (x / 255.0, y))
    made = datasets.from_torch(augmented, validation=plain, test=0.25)
    assert (len(made.train), len(made.validation), len(made.test)) == (90, 120, 30)
    (whole, weight), *_ = made.validation.whole(500)
    assert weight == 120
    assert torch.equal(whole.x, torch.from_numpy(digits[0] / 255.0).float())


def test_fixed_binarisation_of_what_is_read_anew_is_still_fixed(digits) -> None:
    source = Digits(digits, lambda x, _: x)
    fixed, dynamic = (datasets.from_torch(source, binarize=kind).train for kind in ("fixed", "dynamic"))
    again = datasets.from_torch(source, binarize="fixed").train
    index = torch.tensor([5, 3])
    assert torch.equal(fixed.take(index).x, again.take(index.flip(0)).x.flip(0))
    assert not torch.equal(dynamic.take(index).x, dynamic.take(index).x)
    assert set(fixed.take(index).x.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("shape", "settings", "words"),
    [
        (lambda x, y: x[:, : 4 + y % 2], {}, ["different shapes", "(1, 4, 8) and (1, 5, 8)"]),
        (lambda x, _: x.astype(np.int64), {}, ["int64", "uint8"]),
        (lambda x, _: x / 4.0, {}, ["from 0 to", "floats from 0 to 1"]),
        (lambda x, _: (x, x), {}, ["a label is a ndarray", "label_column"]),
        (lambda x, y: (x, y - 5), {}, ["label -", "from 0"]),
        (lambda x, y: (x, y), {"classes": ["a"]}, ["valid: 0 to 0"]),
        (lambda x, y: (x, y), {"size": 4}, ["`size` and `channels` are for pictures"]),
        (lambda x, _: x, {"column": "image"}, ["no columns"]),
        (lambda x, y: {"image": x, "label": y}, {"column": "imgae"}, ["'imgae'", "Did you mean `image`?"]),
        (lambda x, y: {"a": x, "b": y}, {}, ["not clear", "a, b", "column"]),
    ],
)
def test_what_is_wrong_with_items_is_said(digits, shape, settings, words) -> None:
    with pytest.raises(DataError) as caught:
        datasets.from_torch(Digits(digits, shape), **settings).train.take(torch.arange(50))
    for word in words:
        assert word in str(caught.value)


class Endless(IterableDataset):
    """Digits one after another, without a length."""

    def __init__(self, digits) -> None:
        self.digits = digits

    def __iter__(self):
        yield from zip(*self.digits, strict=True)


def test_what_is_no_map_style_set_is_sent_where_it_belongs(digits) -> None:
    whole = TensorDataset(torch.from_numpy(digits[0]))
    for source in (DataLoader(whole), Endless(digits)):
        with pytest.raises(ConfigError, match="from_loaders"):
            datasets.from_torch(source)
    with pytest.raises(ConfigError, match="from_torch"):
        datasets.from_loaders(whole, whole)
    with pytest.raises(DataError, match="empty"):
        datasets.from_torch(TensorDataset(torch.empty(0, 4)))


def loaders(digits, **settings):
    """Augmented training batches in the loader's own random order, and plain validation batches."""
    train = DataLoader(Digits(digits, noisy), batch_size=16, shuffle=True, **settings)
    validation = DataLoader(Digits(digits, lambda x, y: (x / np.float32(255), y)), batch_size=50)
    return datasets.from_loaders(train, validation, classes=list("0123456789"))


def test_a_loader_gives_its_own_batches_and_leaves_the_global_generators_alone(digits) -> None:
    made = loaders(digits)
    torch.manual_seed(0)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    walk = Sampler(made.train, 16, Cursor(0))
    assert (walk.per_epoch, len(walk.next()), made.spec.sample_shape) == (7, 16, (1, 8, 8))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())
    assert [weight for _, weight in made.validation.whole(500)] == [50, 50, 20]
    assert made.validation.take(torch.tensor([60, 2])).labels.tolist() == digits[1][[60, 2]].tolist()


@pytest.mark.parametrize("own", [None, 5])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_is_found_again_in_the_middle_of_a_pass(digits, own, workers) -> None:
    def walk(cursor):
        generator = None if own is None else torch.Generator().manual_seed(own)
        return Sampler(loaders(digits, generator=generator, num_workers=workers).train, 16, cursor)

    whole = walk(Cursor(seed=1))
    batches, cursors = [], []
    for _ in range(10):
        cursors.append(msgspec.json.encode(whole.cursor))
        batches.append(whole.next())
    assert not torch.equal(batches[0].x, batches[7].x)
    for start in (3, 7, 9) if not workers else (9,):
        resumed = walk(msgspec.json.decode(cursors[start], type=Cursor))
        for batch in batches[start:]:
            again = resumed.next()
            assert torch.equal(again.x, batch.x)
            assert torch.equal(again.labels, batch.labels)


def test_a_loader_of_another_batch_size_is_refused_with_the_remedy(digits) -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size: got 8.*Set it to 16"):
        Sampler(loaders(digits).train, 8, Cursor(0))


def test_a_loader_without_a_length_says_how_many_are_an_epoch(digits) -> None:
    def make(**settings):
        loader = DataLoader(Endless(digits), batch_size=10)
        return datasets.from_loaders(loader, loader, classes=list("0123456789"), **settings)

    with pytest.raises(ConfigError, match="examples_per_epoch"):
        make()
    walk = Sampler(make(examples_per_epoch=40).train, 10, Cursor(0))
    assert walk.per_epoch == 4
    seen = torch.cat([walk.next().labels for _ in range(12)])
    assert seen.tolist() == digits[1].tolist()
    assert walk.cursor == Cursor(0, epoch=0, position=12)


def test_loaders_that_cannot_be_resumed_exactly_are_refused(digits) -> None:
    source = Digits(digits, noisy)
    with pytest.raises(ConfigError, match="persistent_workers=False"):
        datasets.from_loaders(DataLoader(source, num_workers=1, persistent_workers=True), DataLoader(source))
    with pytest.raises(ConfigError, match="batch_size"):
        datasets.from_loaders(DataLoader(source, batch_size=None), DataLoader(source))
