"""What a person sees while training runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

PLAIN_EVERY_S = 10.0


class Display:
    """Progress of one run. Use it as a context manager."""

    def __init__(self, title: str, total: int, done: int, *, enabled: bool) -> None:
        self._console = Console(stderr=True, quiet=not enabled, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._total, self._done = total, done
        self._last = (done, time.monotonic())
        self._spoken_s = -PLAIN_EVERY_S
        if enabled and self._console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(
                *columns, TextColumn("{task.fields[terms]}"), TimeRemainingColumn(), console=self._console
            )
            self._task = self._bar.add_task(title, total=total, completed=done, terms="")

    def __enter__(self) -> Display:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, line: str) -> None:
        """A line that stays."""
        self._console.print(line, markup=False)

    def warn(self, line: str) -> None:
        """A line that stays, in yellow."""
        self._console.print(line, markup=False, style="yellow")

    def update(self, step: int, epoch: int, terms: dict[str, float], examples_per_step: int) -> None:
        """Where training stands."""
        now_s = time.monotonic()
        (step_before, then_s), self._last = self._last, (step, now_s)
        speed = (step - step_before) * examples_per_step / max(now_s - then_s, 1e-9)
        text = f"epoch {epoch}  {_words(terms)}  {speed:,.0f} examples/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, terms=text)
        elif now_s - self._spoken_s >= PLAIN_EVERY_S:
            self._spoken_s = now_s
            self.say(f"step {step}/{self._total}  {text}")

    def validated(self, step: int, terms: dict[str, float]) -> None:
        """The outcome of a validation."""
        self.say(f"step {step}/{self._total}  validation  {_words(terms)}")


def _words(terms: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
