"""What a run can be told: the `[train]` and `[log]` sections of a recipe, the same for every family."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import inspect

from triptych.errors import ConfigError, nearest

MOST_THREADS = 1_024  # beyond them the system has none left for others
FINITE = 1e38  # what float32, in which weights are, still holds

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=FINITE)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=FINITE)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]

Schedule = Literal["constant", "cosine", "warmup_cosine", "warmup_linear"]

DEFAULT_EPOCHS = 10
DEFAULT_STEPS = 2_000  # at least so many, when neither epochs nor steps are given


class TurnSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one player moves. What is not given is as `[train]` has it, and what that leaves open is the
    turn's own.
    """

    learning_rate: Positive | None = None
    betas: tuple[Share, Share] | None = None
    weight_decay: NotNegative | None = None
    grad_clip: Positive | None = None
    schedule: Schedule | None = None
    warmup_steps: Annotated[int, msgspec.Meta(ge=0)] | None = None


class TrainSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to train. `learning_rate`, `betas` and `weight_decay` are each turn's own unless given; `turns`
    holds what differs from turn to turn, by the turn's name.

    A *step* is one full round of all turns. Training ends at `max_epochs` or `max_steps`, whichever comes
    first (when neither is given: 10 epochs, or as many as make 2,000 steps), or when `patience` validations
    in a row did not improve `metric` by `min_delta`; `best` is the checkpoint where it was best. `metric` is
    any number of a validation's row, the model's own choice unless given; `metric_mode` says whether its
    least (`min`) or its largest value (`max`) is best. `accumulate` batches make one update. A validation,
    with a checkpoint, happens after each epoch, or every `validate_every_steps`; `checkpoint_every_steps`
    adds checkpoints in between, of which the newest `keep_last` stay. `guard_retries` is how often training
    may roll back after a NaN or infinity, with half the step size each time.

    `batch_size` counts the rows of all processes together. `device` is `auto` (a GPU if there is one), `cpu`,
    `cuda` or `mps`. `compile` makes one graph of each update, optimiser included: `auto` does so where a
    compiler is there and at least 10,000 updates lie ahead, enough to repay it.
    """

    max_epochs: AtLeastOne | None = None
    max_steps: AtLeastOne | None = None
    batch_size: AtLeastOne = 128
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 0
    learning_rate: Positive | None = None
    betas: tuple[Share, Share] | None = None
    weight_decay: NotNegative | None = None
    grad_clip: Positive | None = None
    accumulate: AtLeastOne = 1
    schedule: Schedule = "constant"
    warmup_steps: Annotated[int, msgspec.Meta(ge=0)] = 0
    ema_decay: Share | None = None
    precision: Literal["f32", "bf16"] = "f32"
    patience: AtLeastOne | None = None
    min_delta: NotNegative = 0.0
    metric: str | None = None
    metric_mode: Literal["min", "max"] = "min"
    keep_last: AtLeastOne = 1
    validate_every_steps: AtLeastOne | None = None
    checkpoint_every_steps: AtLeastOne | None = None
    guard_retries: Annotated[int, msgspec.Meta(ge=0)] = 5
    threads: Annotated[int, msgspec.Meta(ge=1, le=MOST_THREADS)] | None = None
    device: str = "cpu"
    compile: Literal["auto"] | bool = "auto"
    turns: dict[str, TurnSettings] = {}

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_steps, self.schedules(), "train")
        for name, turn in self.turns.items():
            own = turn.schedule or self.schedule
            _check_warmup(turn.warmup_steps or 0, [own], f"train.turns.{name}")
        if self.min_delta and self.patience is None:
            raise ConfigError(
                f"got {self.min_delta:g} without patience, where it has no effect",
                where="train.min_delta",
                remedy="set train.patience",
            )

        if self.metric_mode == "max" and self.metric is None:
            raise ConfigError(
                "got 'max' without metric: the model's own is best when least",
                where="train.metric_mode",
                remedy="set train.metric",
            )

    def schedules(self) -> list[str]:
        """Every schedule that is in use, that of `[train]` first."""
        return [self.schedule, *(turn.schedule for turn in self.turns.values() if turn.schedule)]

    def of_turn(self, name: str) -> TurnSettings:
        """The settings of the turn of this name, with what it shares with the others filled in."""
        own = self.turns.get(name, TurnSettings())
        fields = (field.name for field in msgspec.structs.fields(TurnSettings))
        given = {field: getattr(own, field) for field in fields}
        return TurnSettings(**{k: getattr(self, k) if v is None else v for k, v in given.items()})

    def check_turns(self, names: Iterable[str]) -> None:
        """Raise `ConfigError` about settings of a turn that the model does not have."""
        valid = list(names)
        for name in self.turns:
            if name not in valid:
                raise ConfigError(
                    "the model has no such turn",
                    where=f"train.turns.{name}",
                    valid=", ".join(valid),
                    remedy=nearest(name, valid),
                )

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps at which training ends at the latest."""
        epochs = self.max_epochs
        if epochs is None and self.max_steps is None:
            epochs = max(DEFAULT_EPOCHS, math.ceil(DEFAULT_STEPS / steps_per_epoch))
        bounds = (self.max_steps, None if epochs is None else epochs * steps_per_epoch)
        return min(bound for bound in bounds if bound is not None)


def _check_warmup(steps: int, schedules: Sequence[str], where: str) -> None:
    if steps and not any(warms_up(schedule) for schedule in schedules):
        raise ConfigError(
            f"got {steps} with schedule `{schedules[0]}`, where it has no effect",
            where=f"{where}.warmup_steps",
            remedy=f'set {where}.schedule = "warmup_cosine" or "warmup_linear"',
        )


def warms_up(schedule: str | None) -> bool:
    """Whether `warmup_steps` means anything to this schedule."""
    return schedule in ("warmup_cosine", "warmup_linear")


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to show. Nothing here changes the weights.

    `samples` pictures or texts are drawn at step 0 and at each validation (0: none) into `samples/`; texts
    continue `prompt`. `tensorboard` also writes all of it to `tensorboard/`.
    """

    every_steps: AtLeastOne = 50
    samples: Annotated[int, msgspec.Meta(ge=0, le=256)] = 64
    prompt: str = ""
    progress: bool = True
    report: bool = True
    tensorboard: bool = False


Section = TypeVar("Section", bound=msgspec.Struct)


def as_section(kind: type[Section], given: Mapping[str, Any], where: str) -> Section:
    """`given` as a `kind`, or a `ConfigError` that names the key, what is valid, and the nearest spelling."""
    (info,) = inspect.multi_type_info([kind])
    assert isinstance(info, inspect.StructType)
    types = {field.encode_name: field.type for field in info.fields}
    for key, value in given.items():
        if key not in types and key != info.tag_field:
            raise ConfigError(
                "there is no such setting",
                where=f"{where}.{key}",
                valid=", ".join(sorted(types)),
                remedy=nearest(key, types),
            )
        _check_tables(types.get(key), value, f"{where}.{key}")
    try:
        return msgspec.convert(dict(given), kind)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        key = path.removeprefix(".").rstrip("`")
        first = key.partition("[")[0]
        got = f"got {given[first]!r}, " if first in given and problem.startswith("Expected") else ""
        raise ConfigError(
            got + problem[0].lower() + problem[1:].partition(", got ")[0],
            where=where + path.rstrip("`"),
            valid=", ".join(sorted(_choices(types.get(key)))),
            remedy=f'write it in quotes: {key} = "{given[key]}"'
            if problem.startswith("Expected `str")
            else "",
        ) from error


def _check_tables(kind: inspect.Type | None, value: object, where: str) -> None:
    """The same for tables of tables, such as `[train.turns.critic]`."""
    if not isinstance(kind, inspect.DictType) or not isinstance(value, Mapping):
        return
    if isinstance(kind.value_type, inspect.StructType):
        for name, table in value.items():
            if isinstance(table, kind.value_type.cls):
                continue
            if not isinstance(table, Mapping):
                valid = ", ".join(field.encode_name for field in kind.value_type.fields)
                raise ConfigError(f"got {table!r}", where=f"{where}.{name}", valid=f"a table of {valid}")
            as_section(kind.value_type.cls, table, f"{where}.{name}")


def _choices(kind: inspect.Type | None) -> list[str]:
    """The values of a setting that has a few only."""
    if isinstance(kind, inspect.UnionType):
        return [choice for part in kind.types for choice in _choices(part)]
    if isinstance(kind, inspect.BoolType):
        return ["true", "false"]
    return [str(value) for value in kind.values] if isinstance(kind, inspect.LiteralType) else []
