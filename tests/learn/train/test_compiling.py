"""When a step is compiled, and what is said when it cannot be."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch._inductor import config

from triptych.errors import ConfigError
from triptych.learn.train import checkpoint, compiling
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


@pytest.fixture
def compiler(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes torch's C++ compiler a shell script of these lines."""

    def install(lines: str) -> Path:
        script = tmp_path / "cxx"
        script.write_text(f"#!/bin/sh\n{lines}\n")
        script.chmod(0o755)
        patched.enter_context(config.patch({"cpp.cxx": (None, str(script))}))
        return script

    with ExitStack() as patched:
        yield install


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("exit 3", "ends with status 3 on an empty file"),
        ("exec sleep 60", "has not compiled an empty file in"),
    ],
)
def test_a_compiler_that_fails_or_hangs_leaves_the_step_eager(compiler, monkeypatch, lines, said) -> None:
    script = compiler(lines)
    monkeypatch.setattr(compiling, "ANSWER_WITHIN_S", 0.5)
    chosen, notes = is_compiled("auto", recorded=None, updates=ENOUGH, processes=1, device=CPU)
    assert not chosen
    assert f"the step stays eager: the C++ compiler `{script}` {said}" in notes[0]


def test_a_step_that_does_not_compile_is_taken_eagerly_to_the_same_bytes(fit, monkeypatch, capsys) -> None:
    eager = fit(compile=False, max_steps=6)

    def broken(*_: object) -> None:
        raise torch._dynamo.exc.TorchDynamoException("boom\nand more")

    monkeypatch.setattr(compiling, "cannot_compile", lambda _: "")
    monkeypatch.setattr(compiling, "WORTH_IT_FROM_UPDATES", 1)
    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    fallen = fit("fallen", compile="auto", max_steps=6, log={"progress": True})
    said = "the step stays eager: compiling the step failed: TorchDynamoException: boom\n"
    assert said in capsys.readouterr().err
    assert not fallen.summary["compiled"]
    saved = [checkpoint.read(run.path / "checkpoints/last")[0] for run in (eager, fallen)]
    for file, group in saved[0].items():
        assert all(torch.equal(tensor, saved[1][file][name]) for name, tensor in group.items())
    with pytest.raises(
        ConfigError, match=r"train.compile: compiling the step failed: .*boom. Set it to false"
    ):
        fit("insists", compile=True, max_steps=6)
