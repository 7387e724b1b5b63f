"""Laws of options: what has no effect is an error."""

import pytest

from triptych.errors import ConfigError
from triptych.serve.pipeline.options import BatcherOptions, PipelineOptions, RateLimit


def test_plain_data_becomes_options():
    options = PipelineOptions.parse(
        {"batchers": {"sample": {"batch_size": 8}}, "producer": {"rate_limiting": {"allowed_messages": 5}}}
    )
    assert options.batchers["sample"].batch_size == 8
    assert options.producer.rate_limiting == RateLimit(allowed_messages=5)


def test_an_unknown_name_is_an_error_that_knows_the_right_one():
    with pytest.raises(ConfigError, match="Did you mean `batch_size`"):
        PipelineOptions.parse({"batchers": {"sample": {"batch_sise": 8}}})


@pytest.mark.parametrize("settings", [{"shutdown_s": "long"}, {"producer": 3}, {"max_restarts": 1.5}])
def test_a_wrong_type_is_an_error(settings):
    with pytest.raises(ConfigError):
        PipelineOptions.parse(settings)


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_numbers_must_be_above_zero(value):
    with pytest.raises(ConfigError, match=r"BatcherOptions\.batch_timeout_s"):
        BatcherOptions(batch_timeout_s=value)
