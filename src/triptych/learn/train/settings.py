"""What a run can be told: the `[train]` and `[log]` sections of a recipe, the same for every family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from triptych.errors import ConfigError, nearest

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]

DEFAULT_EPOCHS = 10


class TrainSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to train. `learning_rate`, `betas` and `weight_decay` are each turn's own unless given.

    A *step* is one full round of all turns. Training ends at `max_epochs` or `max_steps`, whichever comes
    first (10 epochs when neither is given), or when `patience` validations in a row did not improve the
    validation term `metric` (the model's own choice unless given; lower is better) by `min_delta`; `best` is
    the checkpoint where it was lowest. `accumulate` batches make one update. A validation, with a
    checkpoint, happens after each epoch, or every `validate_every_steps`; `checkpoint_every_steps` adds
    checkpoints in between, of which the newest `keep_last` stay. `guard_retries` is how often training may
    roll back after a NaN or infinity, with half the step size each time.
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
    schedule: Literal["constant", "cosine", "warmup_cosine", "warmup_linear"] = "constant"
    warmup_steps: Annotated[int, msgspec.Meta(ge=0)] = 0
    ema_decay: Share | None = None
    precision: Literal["f32", "bf16"] = "f32"
    patience: AtLeastOne | None = None
    min_delta: NotNegative = 0.0
    metric: str | None = None
    keep_last: AtLeastOne = 1
    validate_every_steps: AtLeastOne | None = None
    checkpoint_every_steps: AtLeastOne | None = None
    guard_retries: Annotated[int, msgspec.Meta(ge=0)] = 5
    threads: AtLeastOne | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.warmup_steps and not self.schedule.startswith("warmup"):
            raise ConfigError(
                f"got {self.warmup_steps} with schedule `{self.schedule}`, where it has no effect",
                where="train.warmup_steps",
                remedy='set train.schedule = "warmup_cosine" or "warmup_linear"',
            )
        if self.min_delta and self.patience is None:
            raise ConfigError(
                f"got {self.min_delta:g} without patience, where it has no effect",
                where="train.min_delta",
                remedy="set train.patience",
            )

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps at which training ends at the latest."""
        epochs = self.max_epochs
        if epochs is None and self.max_steps is None:
            epochs = DEFAULT_EPOCHS
        bounds = (self.max_steps, None if epochs is None else epochs * steps_per_epoch)
        return min(bound for bound in bounds if bound is not None)


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to show. Nothing here changes the weights.

    `samples` pictures or texts are drawn at step 0 and at each validation (0: none) into `samples/`; texts
    continue `prompt`.
    """

    every_steps: AtLeastOne = 50
    samples: Annotated[int, msgspec.Meta(ge=0, le=256)] = 64
    prompt: str = ""
    progress: bool = True
    report: bool = True


Section = TypeVar("Section", bound=msgspec.Struct)


def as_section(kind: type[Section], given: Mapping[str, Any], where: str) -> Section:
    """`given` as a `kind`, or a `ConfigError` that names the key, what is valid, and the nearest spelling."""
    valid = [field.encode_name for field in msgspec.structs.fields(kind)]
    tag_field = kind.__struct_config__.tag_field
    for key in given:
        if key not in valid and key != tag_field:
            raise ConfigError(
                "there is no such setting",
                where=f"{where}.{key}",
                valid=", ".join(sorted(valid)),
                remedy=nearest(key, valid),
            )
    try:
        return msgspec.convert(dict(given), kind)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise ConfigError(problem[0].lower() + problem[1:], where=where + path.rstrip("`")) from error
