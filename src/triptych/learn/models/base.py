"""The training interface: what a family must say, and nothing more.

Likelihood, adversarial and autoregressive models differ in *who plays* and *what they pay*. A model lists its
`turns` and answers `loss(batch, turn, progress)`; the trainer knows nothing else about it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import msgspec
from torch import Tensor, nn

from triptych.bundle.manifest import Sampler, TensorSpec
from triptych.errors import ConfigError, InputError

EXACT = 2.0**-23  # the relative error of a float32


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="family"):
    """Base of every family's settings; becomes `config.json`. The tag is the family's name."""

    def require(self, field: str, holds: bool, valid: str, remedy: str = "") -> None:
        """Raise `ConfigError` about `field` unless `holds`."""
        if not holds:
            got = f"got {getattr(self, field)!r}"
            raise ConfigError(got, where=f"model.{field}", valid=valid, remedy=remedy)


AnyConfig = Config  # the same under a name that `GenerativeModel.Config` does not shadow


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples as tensors: `x` is (B, *sample_shape) in [0, 1] for images, (B, T + 1) token ids for text.

    `size_bytes`, where known, is how much text the targets stand for; evaluation fills it in.
    """

    x: Tensor
    labels: Tensor | None = None
    size_bytes: int | None = None

    def __len__(self) -> int:
        return int(self.x.shape[0])


class Progress(NamedTuple):
    """Where training stands; what KL warm-up and the like depend on.

    In a compiled step `step` and `epoch` are 0-d tensors: use arithmetic and torch's functions on them, no
    `if` and no `min`.
    """

    step: int | Tensor = 0
    epoch: int | Tensor = 0
    max_steps: int = 1


@dataclass(frozen=True, slots=True)
class Terms:
    """A loss, term by term. Each value is a scalar: the mean over the batch of a per-example quantity.

    `total` is what the turn's player minimises; `named` is what the log shows (nats per example for
    likelihoods, nats per token for text). `statistics` is what the model keeps account of besides its
    gradients, as means over the batch: averaged over accumulated batches and over processes, they come back
    to `absorb`.
    """

    total: Tensor
    named: dict[str, Tensor] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Turn:
    """One player's move: who plays, how many updates in a row, and the optimiser its paper asks for.

    Each update draws a fresh batch, unless `needs_data` is false. `learning_rate` and `betas` are defaults
    that the training settings override.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    updates: int = 1
    needs_data: bool = True
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0


@dataclass(frozen=True, slots=True)
class Graph:
    """A pure function to export: `module` maps `inputs` to `outputs`, in that order, batch first.

    `example` holds one tensor per input, batch 2 or more, drawn from the range the graph will see.
    Every parameter and buffer of `module` must be one of the model's own (same storage), so weights are
    stored once. `rounding` is the relative error of a number in the exported graph.
    """

    name: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    example: tuple[Tensor, ...]
    rounding: float = EXACT


class GenerativeModel(nn.Module, ABC):
    """A generative model, as the trainer, the exporter and the report see it.

    Subclasses set `family` and `Config`, and are constructed from a config alone.
    """

    family: ClassVar[str]
    Config: ClassVar[type[Config]]
    validation_metric: ClassVar[
        str
    ]  # the named validation term that early stopping and `best` watch; lower is better

    def __init__(self, config: AnyConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def turns(self) -> tuple[Turn, ...]:
        """Who plays, in which order."""

    @abstractmethod
    def loss(self, batch: Batch, turn: Turn, progress: Progress) -> Terms:
        """What the player of `turn` pays on `batch`. Noise comes from torch's global generator."""

    @abstractmethod
    def validate(self, batch: Batch) -> Terms:
        """The validation terms on `batch`, without regularisers' schedules; holds `validation_metric`."""

    @abstractmethod
    def sample(self, n: int, *, seed: int = 0, condition: object | None = None) -> Tensor:
        """`n` samples of shape (n, *sample_shape); the noise is `triptych.bundle.noise`'s for that seed."""

    @abstractmethod
    def figures(self, batches: Iterable[Batch]) -> dict[str, float]:
        """What a model card reports, over all of `batches`; see `triptych.learn.evaluate`."""

    @abstractmethod
    def graphs(self) -> tuple[Graph, ...]:
        """The pure functions to export."""

    @abstractmethod
    def sampler(self) -> Sampler:
        """How a reader of the bundle turns a seed into a sample."""

    @abstractmethod
    def sample_spec(self) -> TensorSpec:
        """Shape (without batch), dtype and range of one sample."""

    def reconstruct(self, x: Tensor, labels: Tensor | None = None) -> Tensor | None:
        """Reconstructions of `x` for the report, or None for families that have none. A conditional model
        needs the labels of `x`, (B,).
        """
        return None

    def diagnose(self, batches: Iterable[Batch]) -> dict[str, float | list[float]]:
        """Signs of a collapse to come, over validation batches: for the log, the report and the alarms.

        It is called in evaluation mode, without gradients, and may draw from torch's global generator.
        """
        return {}

    def refuse(self, condition: object | None) -> None:
        """Raise `InputError` if a condition is given to a family that takes none."""
        if condition is not None:
            got = f"got {type(condition).__name__}"
            raise InputError(got, where="condition", valid=f"nothing: a {self.family} takes no condition")

    def absorb(self, turn: Turn, statistics: dict[str, Tensor]) -> None:
        """Take in the statistics of a whole update, after the player has moved. Buffers may change here, in
        place. It is called in every process alike, with the generators in the same state.
        """

    def after_update(self, turn: Turn) -> Iterable[str]:
        """Constraints that hold after an update (weight clipping); returns the names of what it touched."""
        return ()
