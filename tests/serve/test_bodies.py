"""Numbers as JSON: short, and exactly the float32 they were."""

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from triptych.errors import InputError
from triptych.serve.bodies import as_json, as_npy, from_npy

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(arrays(np.float32, (2, 3), elements=FLOATS))
def test_json_reads_back_as_the_same_float32(array: np.ndarray) -> None:
    read = np.array(json.loads(as_json({"values": array}))["values"], np.float32)
    assert read.tobytes() == array.tobytes()


def test_a_float32_is_written_with_as_few_digits_as_it_needs() -> None:
    assert as_json({"shape": (2,), "values": np.array([0.1, 0.2], np.float32)}) == (
        b'{"shape":[2],"values":[0.1,0.2]}'
    )


def test_npy_reads_back_and_half_of_it_is_refused() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(from_npy(as_npy(array)), array)
    with pytest.raises(InputError, match="npy"):
        from_npy(as_npy(array)[:-1])


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 1, 28, 28)])
@pytest.mark.parametrize("kind", ["float32", "int64", "bool", "float16"])
def test_npy_bytes_are_those_of_numpy_save(shape: tuple[int, ...], kind: str) -> None:
    array, file = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(kind), io.BytesIO()
    np.save(file, array)
    assert as_npy(array) == file.getvalue()
    turned = array.T
    assert np.array_equal(from_npy(as_npy(turned)), turned)


def with_header(header: str) -> bytes:
    whole = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(whole).to_bytes(2, "little") + whole + bytes(16)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 99999999999999999999999), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 9000000000000), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, -4), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), 'x': " + "-" * 5000 + "1}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 900 + "1" + ")" * 900 + "}",
        "__import__('os').abort()",
    ],
)
def test_an_npy_header_that_means_harm_is_refused(header: str) -> None:
    with pytest.raises(InputError, match="npy"):
        from_npy(with_header(header))
