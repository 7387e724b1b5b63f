"""Which route answers which path."""

import pytest

from triptych.serve.http.refusal import Refusal
from triptych.serve.http.routing import Route, Router


def nobody():
    """Answer nothing."""


ROUTER = Router(
    [Route("GET", "/a", nobody), Route("POST", "/a/{name}/b", nobody), Route("GET", "/a/{name}/b", nobody)]
)


def test_parts_of_the_path_are_what_stands_between_the_slashes():
    route, parts = ROUTER.find("POST", "/a/ö\n.{x}/b")
    assert (route.method, parts) == ("POST", {"name": "ö\n.{x}"})
    assert ROUTER.find("HEAD", "/a")[0].meaning == "Answer nothing."


@pytest.mark.parametrize("path", ["", "a", "/a/", "/A", "/a//b", "/a/x/b/", "/a/x/y/b"])
def test_any_other_path_is_not_found(path: str):
    with pytest.raises(Refusal) as refused:
        ROUTER.find("GET", path)
    assert refused.value.status == 404


def test_another_method_is_told_those_there_are():
    with pytest.raises(Refusal) as refused:
        ROUTER.find("DELETE", "/a/x/b")
    assert refused.value.status == 405
    assert refused.value.headers == [(b"allow", b"POST, GET, HEAD")]
