"""Laws of failures: an error crosses a process border whole, an accident without its secrets."""

import inspect

import msgspec
import pytest

from triptych import errors
from triptych.serve.supervise.failure import Failure

KINDS = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.TriptychError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_comes_back_as_itself(kind):
    error = kind("got -1", where="n", valid="1 to 64", remedy="ask for fewer")
    wire = msgspec.msgpack.encode(Failure.of(error))
    back = msgspec.msgpack.decode(wire, type=Failure).to_error()
    assert type(back) is kind
    assert back.args == error.args


def test_an_accident_shows_its_type_and_keeps_its_text_in_the_log(caplog):
    failure = Failure.of(ValueError("the password is 1234"))
    assert "1234" not in str(failure.to_error())
    assert "ValueError" in str(failure.to_error())
    assert "1234" in caplog.text


def test_an_unknown_kind_is_a_serve_error():
    assert type(Failure("nearest", "x").to_error()) is errors.ServeError
