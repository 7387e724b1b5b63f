"""IDX files are read as written, and every damage is named."""

import gzip
import struct

import numpy as np
import pytest

from triptych.errors import DataError
from triptych.learn import data as datasets
from triptych.learn.data.idx import read_idx


def write_idx(path, values: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(head + values.tobytes())
    return path.read_bytes()


def test_what_is_written_is_read_plain_and_gzipped(tmp_path) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    raw = write_idx(tmp_path / "x", values)
    (tmp_path / "x.gz").write_bytes(gzip.compress(raw))
    assert np.array_equal(read_idx(tmp_path / "x"), values)
    assert np.array_equal(read_idx(tmp_path / "x.gz"), values)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda raw: raw[:-1], "truncated"),
        (lambda raw: raw[:9], "has 9 bytes"),
        (lambda raw: raw[:0], "starts with"),
        (lambda raw: b"\0\0\x0d\x03" + raw[4:], "00 00 08"),
    ],
)
def test_damaged_files_are_refused(tmp_path, change, problem: str) -> None:
    raw = write_idx(tmp_path / "x", np.zeros((2, 3, 4), np.uint8))
    (tmp_path / "x").write_bytes(change(raw))
    with pytest.raises(DataError, match=problem):
        read_idx(tmp_path / "x")


def test_a_cut_gzip_is_refused(tmp_path) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"some bytes that are long enough")[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "x.gz")


def test_any_mnist_like_folder_is_a_data_set(tmp_path) -> None:
    draw = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 10)):
        write_idx(
            tmp_path / f"{part}-images.idx3-ubyte", draw.integers(0, 256, (count, 4, 4), dtype=np.uint8)
        )
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", draw.integers(0, 3, count, dtype=np.uint8))
    made = datasets.from_idx(str(tmp_path), validation=0.1)
    assert (len(made.train), len(made.validation), len(made.test)) == (27, 3, 10)
    assert made.spec.sample_shape == (1, 4, 4)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="train-labels"):
        datasets.from_idx(str(tmp_path))
