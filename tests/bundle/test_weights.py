import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from triptych.bundle.weights import extents
from triptych.errors import BundleRefused


def write(path, header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    return path


def test_extents_are_where_the_bytes_lie(tmp_path):
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(7, np.int64)}
    save_file(tensors, tmp_path / "w")
    data = (tmp_path / "w").read_bytes()
    for name, extent in extents(tmp_path / "w").items():
        assert data[extent.offset : extent.offset + extent.size_bytes] == tensors[name].tobytes()
        assert extent.shape == tensors[name].shape


def tensor(begin, end, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "body", "length"),
    [
        ({}, b"", 10**9),
        ({}, b"", 2**63),
        (b"not json", b"", None),
        (b"[]", b"", None),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, b"", None),
        ({"a": {"dtype": "F32"}}, b"", None),
        ({"a": tensor(0, 4, dtype="F99")}, bytes(4), None),
        ({"a": tensor(0, 4, shape=(2,))}, bytes(4), None),
        ({"a": tensor(-4, 0)}, b"", None),
        ({"a": tensor(0, 4)}, b"", None),
        ({"a": tensor(0, 4)}, bytes(8), None),
        (b'{"a": %b, "a": %b}' % ((json.dumps(tensor(0, 4)).encode(),) * 2), bytes(4), None),
        ({"a": tensor(0, 4, shape=[2**64 - 1] * 500_000)}, bytes(4), None),
        ({"a": tensor(0, 0, shape=[0] + [1] * 64)}, b"", None),
        ({"a": tensor(0, 4) | {"shape": [1.0]}}, bytes(4), None),
        ({"a": tensor(0, 4) | {"data_offsets": [0, 4, 4]}}, bytes(4), None),
        (b'{"a": {"shape": [' + b"[]," * 6_000_000 + b"[]]}}", b"", None),
        ({"a": tensor(0, 4), "b": tensor(0, 4)}, bytes(4), None),
        ({"a": tensor(0, 4), "b": tensor(8, 12)}, bytes(12), None),
    ],
)
@pytest.mark.timeout(5)
def test_a_header_that_does_not_describe_the_file_is_refused(tmp_path, header, body, length):
    with pytest.raises(BundleRefused):
        extents(write(tmp_path / "w", header, body, length))


@pytest.mark.parametrize("size", range(9))
def test_a_file_shorter_than_a_header_is_refused(tmp_path, size):
    (tmp_path / "w").write_bytes(b"\x05" + bytes(size - 1) if size else b"")
    with pytest.raises(BundleRefused):
        extents(tmp_path / "w")
