"""Which weights a run gives away: the best or the last, their moving average or the weights themselves."""

import pytest
import torch

from triptych.errors import ConfigError
from triptych.learn.train import checkpoint, open_run
from triptych.learn.train.state import weights


@pytest.mark.parametrize("which", ["best", "last"])
@pytest.mark.parametrize("raw", [False, True])
def test_the_average_is_shown_unless_the_raw_weights_are_asked_for(fit, which: str, raw: bool) -> None:
    run = fit(ema_decay=0.9)
    tensors, _ = checkpoint.read(run.path / "checkpoints" / which)
    shown, other = (tensors["model"], tensors["ema"])[:: 1 if raw else -1]
    opened = weights(open_run(run.path, which=which, raw=raw).model)
    assert all(torch.equal(opened[name], tensor) for name, tensor in shown.items())
    assert not all(torch.equal(opened[name], tensor) for name, tensor in other.items())


def test_raw_weights_of_a_run_without_an_average_are_refused(fit) -> None:
    run = fit()
    with pytest.raises(ConfigError, match="kept no moving average"):
        open_run(run.path, raw=True)
