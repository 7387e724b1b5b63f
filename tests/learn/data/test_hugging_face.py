"""Data sets of the `datasets` library: tables and streams, pictures and text, found again on resume."""

from __future__ import annotations

import itertools

import datasets as hugging_face
import msgspec
import pytest
import torch
from tokenizers import Tokenizer

from triptych.errors import ConfigError, DataError
from triptych.learn import data as datasets
from triptych.learn.data.hugging_face_splits import ExampleSource
from triptych.learn.data.sampler import Cursor, Sampler
from triptych.learn.data.windows import WindowSource


def digit(picture: torch.Tensor) -> bytes:
    return (picture * 255).round().to(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_table_of_pictures_is_the_same_data_as_its_arrays(pictures, digits, in_memory) -> None:
    made = datasets.from_hugging_face(pictures, in_memory=in_memory)
    same = datasets.from_arrays(*digits)
    index = torch.arange(20)
    assert torch.equal(made.train.take(index).x, same.train.take(index).x)
    assert torch.equal(made.train.take(index).labels, same.train.take(index).labels)
    assert (len(made.train), len(made.validation), len(made.test)) == (96, 12, 12)
    assert made.spec.classes[:2] == ("digit 0", "digit 1")


def test_small_tables_are_held_unless_they_have_a_transform(pictures) -> None:
    assert datasets.from_hugging_face(pictures).spec.digest

    def augmented(rows):
        return {**rows, "image": [torch.rand(1, 8, 8) for _ in rows["image"]]}

    fresh = datasets.from_hugging_face(pictures.with_transform(augmented), label_column=False)
    assert not fresh.spec.digest
    index = torch.arange(3)
    assert not torch.equal(fresh.train.take(index).x, fresh.train.take(index).x)


def test_pictures_can_be_scaled_and_coloured_and_labels_left_out(pictures) -> None:
    made = datasets.from_hugging_face(pictures, size=4, channels=3, label_column=False, validation=20)
    assert made.spec.sample_shape == (3, 4, 4)
    assert made.spec.classes == ()
    assert made.train.take(torch.arange(2)).labels is None
    assert len(made.validation) == 20


def test_names_in_a_column_of_strings_are_classes(pictures) -> None:
    names = ["even" if label % 2 == 0 else "odd" for label in pictures["label"]]
    table = pictures.remove_columns("label").add_column("parity", names)
    made = datasets.from_hugging_face(table, column="image", label_column="parity")
    assert made.spec.classes == ("even", "odd")
    assert set(made.train.take(torch.arange(30)).labels.tolist()) == {0, 1}


def test_the_splits_of_a_dict_are_taken_as_they_are(pictures) -> None:
    whole = hugging_face.DatasetDict(
        train=pictures.select(range(70)), valid=pictures.select(range(70, 100)), extra=pictures
    )
    made = datasets.from_hugging_face(whole, test=0.1)
    assert (len(made.train), len(made.validation), len(made.test)) == (63, 30, 7)
    with pytest.raises(ConfigError, match=r"data\.validation.*split of that name"):
        datasets.from_hugging_face(whole, validation=0.1)
    with pytest.raises(ConfigError, match=r"no split `train`; valid: extra"):
        datasets.from_hugging_face(hugging_face.DatasetDict(extra=pictures))


def test_a_stream_gives_every_example_once_a_pass_in_another_order_each_pass(pictures, digits) -> None:
    stream = pictures.to_iterable_dataset(num_shards=3)
    made = datasets.from_hugging_face(
        stream, validation=10, test=14, examples_per_epoch=50, shuffle_buffer=40
    )
    held = made.validation.take(torch.arange(10)).x
    assert [digit(picture) for picture in held] == [picture.tobytes() for picture in digits[0][:10]]
    assert (len(made.train), len(made.validation), len(made.test)) == (50, 10, 14)
    walk = Sampler(made.train, 8, Cursor(seed=0))
    assert walk.per_epoch == 6
    passes = [[walk.next() for _ in range(12)] for _ in range(2)]
    seen = [[digit(picture) for batch in batches for picture in batch.x] for batches in passes]
    assert walk.cursor.epoch == 1
    assert sorted(seen[0]) == sorted(seen[1]) == sorted(picture.tobytes() for picture in digits[0][24:])
    assert seen[0] != seen[1]
    assert made.spec.digest == ""
    assert {label for batch in passes[0] for label in batch.labels.tolist()} == set(range(10))


@pytest.mark.parametrize("buffer", [1, 16, 40, 1000])
@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_a_stream_is_found_again_from_any_cursor(pictures, buffer, binarize) -> None:
    def walk(cursor: Cursor) -> Sampler:
        stream = pictures.to_iterable_dataset(num_shards=4)
        made = datasets.from_hugging_face(
            stream, validation=5, test=5, examples_per_epoch=50, shuffle_buffer=buffer, binarize=binarize
        )
        return Sampler(made.train, 8, cursor)

    whole = walk(Cursor(seed=3))
    cursors, batches = [], []
    for step in range(30):
        cursors.append(msgspec.json.encode(whole.cursor))
        torch.manual_seed(step)
        batches.append(whole.next())
    for start in (0, 1, 4, 5, 13, 14, 22):
        resumed = walk(msgspec.json.decode(cursors[start], type=Cursor))
        for step in range(start, start + 8):
            torch.manual_seed(step)
            batch = resumed.next()
            assert torch.equal(batch.x, batches[step].x)
            assert torch.equal(batch.labels, batches[step].labels)


def test_a_stream_is_read_no_further_than_the_block_in_hand() -> None:
    read = []

    def numbers():
        for number in range(10_000):
            read.append(number)
            yield {"x": [number / 10_000]}

    stream = hugging_face.IterableDataset.from_generator(numbers)
    made = datasets.from_hugging_face(stream, validation=4, test=4, examples_per_epoch=100, shuffle_buffer=32)
    read.clear()
    walk = Sampler(made.train, 8, Cursor(0))
    for _ in range(9):
        walk.next()
    assert len(read) - 8 in range(96, 100)  # the library looks one example ahead


def test_a_validation_stream_is_read_once_and_only_as_far_as_asked(pictures) -> None:
    streams = hugging_face.IterableDatasetDict(
        train=pictures.to_iterable_dataset(), test=pictures.to_iterable_dataset()
    )
    made = datasets.from_hugging_face(streams, validation=7, examples_per_epoch=10)
    assert (len(made.validation), len(made.test)) == (7, 120)
    assert made.section["shuffle_buffer"] is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ["data.examples_per_epoch", "is missing"]),
        ({"examples_per_epoch": 0}, ["data.examples_per_epoch", "1 or more"]),
        ({"examples_per_epoch": 9, "shuffle_buffer": 0}, ["data.shuffle_buffer", "1 or more"]),
        ({"examples_per_epoch": 9, "validation": 0.1}, ["data.validation", "a number of examples"]),
        ({"examples_per_epoch": 9, "in_memory": True}, ["data.in_memory", "a stream"]),
        ({"examples_per_epoch": 9, "binarize": "fixed"}, ["data.binarize", "dynamic"]),
        ({"examples_per_epoch": 9, "block_size": 8}, ["data.block_size", "pictures"]),
    ],
)
def test_settings_that_do_not_fit_a_stream_are_refused(pictures, settings, words) -> None:
    with pytest.raises(ConfigError) as caught:
        datasets.from_hugging_face(pictures.to_iterable_dataset(), **{"validation": 5, "test": 5, **settings})
    for word in words:
        assert word in str(caught.value)


def test_settings_that_do_not_fit_a_table_are_refused(pictures, documents) -> None:
    for table, settings in (
        (pictures, {"examples_per_epoch": 9}),
        (pictures, {"tokenizer": "bpe"}),
        (documents, {"size": 8}),
        (documents, {"shuffle_buffer": 8}),
    ):
        with pytest.raises(ConfigError, match=f"data.{next(iter(settings))}"):
            datasets.from_hugging_face(table, **settings)


def test_a_stream_that_is_shuffled_already_is_refused(pictures) -> None:
    stream = pictures.to_iterable_dataset().shuffle(seed=0)
    with pytest.raises(ConfigError, match=r"before \.shuffle\(\)"):
        datasets.from_hugging_face(stream, examples_per_epoch=10)


def test_a_stream_too_short_to_hold_anything_out_is_refused(pictures) -> None:
    with pytest.raises(DataError, match="has not 1000 examples for the validation split"):
        datasets.from_hugging_face(pictures.to_iterable_dataset(), examples_per_epoch=10)


def test_what_is_no_data_set_of_the_library_is_refused(digits) -> None:
    with pytest.raises(ConfigError, match="got a ndarray"):
        datasets.from_hugging_face(digits[0])
    with pytest.raises(DataError, match="empty"):
        datasets.from_hugging_face(hugging_face.Dataset.from_dict({"x": []}))


@pytest.mark.parametrize("coding", [{"tokenizer": "characters"}, {"tokenizer": "bpe", "vocab_size": 300}])
def test_a_table_of_text_is_windows_of_tokens(documents, coding) -> None:
    made = datasets.from_hugging_face(documents, **coding, block_size=8)
    coder = Tokenizer.from_str(made.tokenizer)
    assert made.spec.vocab_size == coder.get_vocab_size()
    assert made.known_fields() == {"vocab_size": made.spec.vocab_size, "block_size": 8}
    batch = made.train.take(made.train.order(0, 0)[:4])
    assert batch.x.shape == (4, 9)
    assert set(coder.decode(batch.x[0].tolist())) <= set("".join(documents["text"]) + "\n")
    assert len(made.spec.digest) == 64


def test_two_columns_of_strings_and_no_usual_name_need_a_choice(documents) -> None:
    table = documents.rename_column("text", "body")
    with pytest.raises(DataError, match=r"not clear.*body, title"):
        datasets.from_hugging_face(table)
    assert datasets.from_hugging_face(table, column="body", block_size=8).spec.kind == "text"


def streamed(documents, **settings):
    stream = documents.to_iterable_dataset(num_shards=3)
    sizes = {"validation": 5, "test": 5, "examples_per_epoch": 40, "shuffle_buffer": 24}
    options = {"vocab_size": 280, "block_size": 8, **sizes, **settings}
    return datasets.from_hugging_face(stream, **options)


def test_a_stream_of_text_gives_its_documents_run_together(documents) -> None:
    made = streamed(documents)
    coder = Tokenizer.from_str(made.tokenizer)
    windows = [window for batch, _ in made.train.whole(16) for window in batch.x.tolist()]
    ids = windows[0] + [token for window in windows[1:] for token in window[1:]]
    text = "".join(text + "\n" for text in documents["text"][10:])
    assert text.startswith(coder.decode(ids))
    assert len(coder.encode(text).ids) - len(ids) < 12
    assert all(left[-1] == right[0] for left, right in itertools.pairwise(windows))


def test_a_stream_of_text_is_found_again_from_any_cursor(documents) -> None:
    whole = Sampler(streamed(documents).train, 4, Cursor(seed=1))
    cursors, batches = [], []
    for _ in range(150):
        cursors.append(msgspec.json.encode(whole.cursor))
        batches.append(whole.next().x)
    assert whole.cursor.epoch > 0
    for start in (1, 5, 6, 23, 40, 99, 138):
        resumed = Sampler(streamed(documents).train, 4, msgspec.json.decode(cursors[start], type=Cursor))
        for step in range(start, start + 12):
            assert torch.equal(resumed.next().x, batches[step])


def test_the_state_of_a_walk_over_windows_is_enough_at_every_window(documents) -> None:
    made = streamed(documents)
    coder = Tokenizer.from_str(made.tokenizer)
    source = WindowSource(
        ExampleSource(documents.to_iterable_dataset(num_shards=3)), lambda item: item["text"], coder, 16
    )
    walk = source.open()
    for _ in range(40):
        state = msgspec.json.decode(msgspec.json.encode(walk.state()))
        assert next(source.open(state)) == next(walk)


def test_the_characters_of_a_stream_are_not_known(documents) -> None:
    with pytest.raises(ConfigError, match=r"data\.tokenizer.*bpe"):
        streamed(documents, tokenizer="characters", vocab_size=None)
