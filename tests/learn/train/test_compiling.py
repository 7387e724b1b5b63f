"""When a step is compiled, and what is said when it cannot be."""

import pytest
import torch

from triptych.errors import ConfigError
from triptych.learn.train.compiling import is_compiled

CPU = torch.device("cpu")
ENOUGH = 10_000


def test_auto_leaves_a_short_run_and_several_processes_eager() -> None:
    assert is_compiled("auto", recorded=None, updates=ENOUGH - 1, processes=1, device=CPU) == (False, [])
    assert is_compiled("auto", recorded=None, updates=ENOUGH, processes=2, device=CPU) == (False, [])


def test_auto_does_as_the_checkpoint_has_it_however_long_the_run_has_become() -> None:
    assert is_compiled("auto", recorded=False, updates=ENOUGH, processes=1, device=CPU) == (False, [])


def test_without_a_compiler_auto_says_so_and_true_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    chosen = is_compiled("auto", recorded=None, updates=ENOUGH, processes=1, device=CPU)
    assert chosen == (False, ["the step stays eager: there is no C++ compiler"])
    with pytest.raises(ConfigError, match=r"train.compile: there is no C\+\+ compiler. Install g\+\+"):
        is_compiled(True, recorded=None, updates=1, processes=1, device=CPU)


def test_false_is_false_and_true_needs_one_process() -> None:
    assert is_compiled(False, recorded=True, updates=ENOUGH, processes=1, device=CPU) == (False, [])
    with pytest.raises(ConfigError, match=r"train.compile: got true with 2 processes"):
        is_compiled(True, recorded=None, updates=1, processes=2, device=CPU)
