"""Alarms: what goes wrong in training without ever being infinite, said while it happens, with a remedy.

Each rule looks at the rows of `metrics.jsonl` and at nothing else, so a resumed run raises what an
uninterrupted one raises. The thresholds were set on the shipped recipes, none of which raises any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import NamedTuple

import torch

from triptych.learn.maths.adversarial import overfitting as share_of_overfitting
from triptych.learn.train.metrics import Row

LASTING = 2  # validations in a row after which a state is no passing one
WORSE_THAN_UNTRAINED = 0.5  # of the size of the metric before training
STANDSTILL, STANDSTILL_VALIDATIONS, STANDSTILL_STEP = 0.01, 3, 50  # before it, hardly anything can have moved
INACTIVE_SHARE, INACTIVE_VALIDATIONS = 0.9, 5  # of all latents; a VAE may begin with none
SILENT_STEP, INACTIVE_STEP = 20, 100  # before these a VAE has hardly begun
SILENT_NATS, SILENT_VALIDATIONS = 0.1, 3  # what all latents together tell of x when they tell nothing
UNUSED, ONE_CODE = 0.1, 1.5  # share of the codes, and their perplexity, below which a codebook has collapsed
CODES_STEP, CODES_VALIDATIONS = 50, 3  # a codebook may begin with a few codes
CLEAR_ESTIMATE = 0.3  # of the largest distance that the critic has seen
STEEP = 3.0  # slope of a critic that should have 1
NO_GRADIENT, TINY = 1e-3, 1e-12  # the generator's gradient norm over the critic's
LOST = 0.5  # of the best coverage or diversity there was, when that was
WORTH_LOSING = 0.1
MOSTLY_GOOD = 0.5  # share of a toy's samples that lie in a mode
CRITIC_OVERFITS, CRITIC_VALIDATIONS = 0.5, 4  # a game swings, an estimate with it
RISEN, RISEN_VALIDATIONS = 0.1, 3  # of what training had won


@dataclass(frozen=True, slots=True)
class Alarm:
    """What is wrong, with its numbers, and what usually helps."""

    name: str
    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Episode:
    """An alarm from the validation that raised it to the one at which it was over (None: not yet)."""

    name: str
    raised_at: int
    ended_at: int | None


class Past(NamedTuple):
    """What the rules look at: one validation before training, one or more since, and the training rows."""

    metric: str
    before: Row
    since: Sequence[Row]
    training: Sequence[Row]

    @property
    def now(self) -> Row:
        """The validation that is being judged."""
        return self.since[-1]

    def no_better(self, row: Row) -> bool:
        """Whether training has had its time and won nothing."""
        before = _number(self.before, self.metric)
        gained = before - _number(row, self.metric)
        return row["step"] >= STANDSTILL_STEP and not gained >= STANDSTILL * abs(before)

    def lasting(self, holds: Callable[[Row], bool], validations: int = LASTING) -> bool:
        """Whether this holds at each of the last validations."""
        return len(self.since) >= validations and all(holds(row) for row in self.since[-validations:])


def raised(history: Sequence[Row], metric: str) -> list[Alarm]:
    """The alarms at the last validation of `history`; `metric` is the term that validation watches.

    A run that diverged raises its cause alone, or that it diverged: all else follows from it.
    """
    validations = [row for row in history if row["split"] == "validation"]
    if len(validations) < 2:
        return []
    training = [row for row in history if row["split"] == "train"]
    past = Past(metric, validations[0], validations[1:], training)
    if (diverged := divergence(past)) is not None:
        return _found(CAUSES, past) or [diverged]
    return _found(RULES, past)


def news(before: Iterable[str], now: Sequence[Alarm]) -> list[str]:
    """A line for each alarm that begins, with its remedy, and for each that is over."""
    names = {alarm.name for alarm in now}
    begun = [
        f"alarm: {alarm.name}: {alarm.what}. Remedy: {alarm.remedy}."
        for alarm in now
        if alarm.name not in before
    ]
    return [*begun, *(f"over: {name}" for name in before if name not in names)]


def names_before(history: Iterable[Row]) -> list[str]:
    """The names that the last validation of `history` raised."""
    names: list[str] = []
    for row in history:
        names = row.get("alarms", names)
    return names


def episodes(history: Iterable[Row]) -> list[Episode]:
    """Every alarm of a run, in the order of their beginnings."""
    found: list[Episode] = []
    open_: dict[str, int] = {}  # name to place in `found`
    for row in history:
        if "alarms" not in row:
            continue
        for name in [name for name in open_ if name not in row["alarms"]]:
            place = open_.pop(name)
            found[place] = Episode(name, found[place].raised_at, row["step"])
        for name in row["alarms"]:
            if name not in open_:
                open_[name] = len(found)
                found.append(Episode(name, row["step"], None))
    return found


def divergence(past: Past) -> Alarm | None:
    """The metric is far worse than before training, though finite."""
    value, before = _number(past.now, past.metric), _number(past.before, past.metric)
    if isfinite(value) and value <= before + WORSE_THAN_UNTRAINED * abs(before):
        return None
    shown = f"{value:.4g}" if isfinite(value) else "not a number"
    return Alarm(
        "divergence",
        f"validation {past.metric} is {shown}; before training it was {before:.4g}",
        "lower train.learning_rate tenfold and set train.grad_clip = 1.0; then look at the data's range",
    )


def standstill(past: Past) -> Alarm | None:
    """Validations in a row are no better than before training."""
    if not past.lasting(past.no_better, STANDSTILL_VALIDATIONS) or blind_critic(past) is not None:
        return None
    value, before = _number(past.now, past.metric), _number(past.before, past.metric)
    what = f"validation {past.metric} is {value:.4g}, no better than before training ({before:.4g})"
    estimates = [_number(row, "wasserstein", 0.0) for row in past.since]
    if min(estimates[-STANDSTILL_VALIDATIONS:]) > CLEAR_ESTIMATE * max(*estimates, 0.0):
        return Alarm(
            "critic far ahead",
            f"the critic sees a distance of {estimates[-1]:.4g} that the generator does not lower: {what}",
            "raise train.turns.generator.learning_rate, or lower model.critic_updates",
        )
    return Alarm("standstill", what, "raise train.learning_rate; see that the model is large enough")


def posterior_collapse(past: Past) -> Alarm | None:
    """Hardly a latent carries anything about x."""

    def inactive(row: Row) -> bool:
        latents = len(row.get("kl_per_dimension", []))
        return "active_units" in row and latents - row["active_units"] >= INACTIVE_SHARE * latents

    def silent(row: Row) -> bool:
        return (
            inactive(row)
            and row["step"] >= SILENT_STEP
            and None not in row["kl_per_dimension"]
            and sum(row["kl_per_dimension"]) < SILENT_NATS
        )

    if not (
        past.lasting(silent, SILENT_VALIDATIONS)
        or past.lasting(lambda row: inactive(row) and row["step"] >= INACTIVE_STEP, INACTIVE_VALIDATIONS)
    ):
        return None
    return Alarm(
        "posterior collapse",
        f"{past.now['active_units']:g} of {len(past.now['kl_per_dimension'])} latents carry anything about x",
        "lower model.beta, warm the KL up with model.kl_warmup_steps, or give model.free_bits_nats",
    )


def codebook_collapse(past: Past) -> Alarm | None:
    """Hardly a code is in use: what the decoder can say, it says with these."""

    def unused(row: Row) -> bool:
        few = _number(row, "codebook_used") < UNUSED or _number(row, "codebook_perplexity") < ONE_CODE
        return row["step"] >= CODES_STEP and few

    if not past.lasting(unused, CODES_VALIDATIONS):
        return None
    return Alarm(
        "codebook collapse",
        f"{past.now['codebook_used']:.1%} of the codes are used, with a perplexity of "
        f"{past.now['codebook_perplexity']:.3g}",
        'set model.restart_below = 0.25, lower model.codes, or take model.quantizer = "fsq", '
        "which has no codebook",
    )


def steep_critic(past: Past) -> Alarm | None:
    """The critic's slope is far above 1: what it estimates is no distance."""
    if not past.lasting(lambda row: _number(row, "critic_slope", 1.0) > STEEP):
        return None
    slope = _number(past.now, "critic_slope")
    return Alarm(
        "steep critic",
        f"the critic's slope between data and samples is {slope:.3g} and should be 1",
        "raise model.penalty_weight (the paper uses 10), or lower train.learning_rate",
    )


def blind_critic(past: Past) -> Alarm | None:
    """The critic ranks samples no lower than data while they are worse than untrained: it teaches nothing."""

    def blind(row: Row) -> bool:
        return past.no_better(row) and _number(row, "wasserstein") <= 0

    if not past.lasting(blind):
        return None
    return Alarm(
        "blind critic",
        f"the critic ranks samples no lower than data, though {past.metric} is "
        f"{_number(past.now, past.metric):.4g}, no better than before training",
        "raise model.critic_updates or train.turns.critic.learning_rate, "
        "or lower train.turns.generator.learning_rate",
    )


def generator_without_gradient(past: Past) -> Alarm | None:
    """The critic has become flat, or the generator saturated: nothing tells it where to go."""
    ratios = [
        _number(row["grad_norm"], "generator") / max(_number(row["grad_norm"], "critic"), TINY)
        for row in past.training[-LASTING:]
        if isinstance(row.get("grad_norm"), dict) and row["grad_norm"].keys() >= {"generator", "critic"}
    ]
    if len(ratios) < LASTING or max(ratios) > NO_GRADIENT:
        return None
    return Alarm(
        "generator without gradient",
        f"the generator's gradient is {ratios[-1]:.2g} of the critic's",
        "lower train.learning_rate and start anew: weights that saturated do not come back",
    )


def mode_collapse(past: Past) -> Alarm | None:
    """Samples reach ever less of the data, repeat each other, or miss most modes of a toy."""

    def lost(name: str) -> bool:
        best = max((x for row in past.since if isfinite(x := _number(row, name, 0.0))), default=0.0)
        return best >= WORTH_LOSING and past.lasting(lambda row: _number(row, name, best) < LOST * best)

    def misses(row: Row) -> bool:
        hit, missed = _number(row, "modes_hit", 0.0), _number(row, "modes_missed", 0.0)
        return missed > hit and _number(row, "high_quality", 0.0) > MOSTLY_GOOD

    now = past.now
    if past.lasting(misses):
        what = f"good samples, but of {now['modes_hit']} of {now['modes_hit'] + now['modes_missed']} modes"
    elif lost("coverage"):
        what = f"samples reach {now['coverage']:.0%} of the data, less than half of what they had reached"
    elif lost("diversity"):
        what = f"samples differ {now['diversity']:.2g} times as much as the data do, less than half of before"
    else:
        return None
    return Alarm(
        "mode collapse",
        what,
        "go back to checkpoints/best; lower train.learning_rate, raise train.batch_size",
    )


def critic_overfitting(past: Past) -> Alarm | None:
    """Most of the distance that the critic sees holds for the examples it was trained on only."""
    estimates = {row["step"]: _number(row, "wasserstein", 0.0) for row in past.training}

    def share(row: Row) -> float:
        training, validation = estimates.get(row["step"], 0.0), _number(row, "wasserstein", 0.0)
        if not 0 < training < inf:
            return 0.0
        return share_of_overfitting(torch.tensor(training), torch.tensor(validation)).item()

    if not past.lasting(lambda row: share(row) > CRITIC_OVERFITS, CRITIC_VALIDATIONS):
        return None
    return Alarm(
        "critic overfitting",
        f"{share(past.now):.0%} of the distance the critic sees is gone on examples it has not seen",
        "more data, a smaller model.critic_hidden, or fewer steps: checkpoints/best is the one to keep",
    )


def overfitting(past: Past) -> Alarm | None:
    """The validation has been rising for long while training still falls."""
    values = [_number(row, past.metric) for row in past.since]
    best = min(values)
    won = _number(past.before, past.metric) - best
    since_best = len(values) - 1 - values.index(best)
    if won <= 0 or since_best < RISEN_VALIDATIONS or values[-1] < best + RISEN * won:
        return None
    best_step = past.since[values.index(best)]["step"]
    then, later = ([row for row in past.training if row["step"] <= step] for step in (best_step, inf))
    if not then or not _number(later[-1], past.metric) < _number(then[-1], past.metric):
        return None
    return Alarm(
        "overfitting",
        f"validation {past.metric} is {values[-1]:.4g}; it was {best:.4g} at step {best_step}",
        "checkpoints/best is from before: set train.patience, use more data or a smaller model",
    )


CAUSES = (blind_critic, generator_without_gradient)  # of what looks like divergence
RULES = (
    standstill,
    posterior_collapse,
    codebook_collapse,
    steep_critic,
    blind_critic,
    generator_without_gradient,
    mode_collapse,
    critic_overfitting,
    overfitting,
)


def _found(rules: Iterable[Callable[[Past], Alarm | None]], past: Past) -> list[Alarm]:
    return [alarm for rule in rules if (alarm := rule(past)) is not None]


def _number(row: Row, name: str, otherwise: float = inf) -> float:
    """A number of a row, or infinity for what is none: JSON has NaN and infinities as null."""
    value = row.get(name, otherwise)
    return float(value) if value is not None and isfinite(value) else inf
