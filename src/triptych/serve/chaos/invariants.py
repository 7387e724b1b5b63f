"""The seven promises, each checked against what the trials of an experiment saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from triptych.serve.chaos.load import Answer
from triptych.serve.chaos.outcome import Check
from triptych.serve.chaos.trial import Trial

GRACE_S = 1.0
READY_S = 1.0
SCHEDULING_S = 0.25  # a look of one second comes back a little later, through this machine's scheduler
NODE_GROWTH_BYTES = 64 * 2**20
DEFAULT_TIMEOUT_S = 60.0
RESETS = ("ConnectionReset", "RemoteDisconnected", "BrokenPipe", "IncompleteRead", "ValueError: the stream")
POISON = "died of it"


def both(first: dict[str, Check], second: dict[str, Check]) -> dict[str, Check]:
    """What holds of two halves of an experiment holds of both, and the evidence is that of both."""
    found = {**first, **second}
    for name in first.keys() & second.keys():
        one, other = first[name], second[name]
        held = one.held and other.held
        found[name] = Check(f"{one.name}; {other.name}", held, f"{one.detail}; {other.detail}")
    return dict(sorted(found.items()))


def check(trials: Sequence[Trial], reference: Mapping[int, str], patience: float) -> dict[str, Check]:
    """I1 to I6, by name; those that no trial says anything about are missing.

    Args:
        reference: the digest of each request's answer in a run without faults.
        patience: factor on the seconds, for a machine that does other work meanwhile.
    """
    if not trials:
        return {}
    return {
        "I1": terminal(trials, patience),
        "I2": balanced(trials),
        "I3": repeated(trials),
        "I4": own_input(trials, reference),
        "I5": truthful(trials, patience),
        "I6": bounded(trials),
    }


def terminal(trials: Sequence[Trial], patience: float) -> Check:
    """One terminal answer each, in time. Callers of a node that dies see a reset instead, never a hang."""
    late, lost, resets, total, slowest_s = [], [], 0, 0, 0.0
    for trial in trials:
        for answer in trial.answers:
            total += 1
            slowest_s = max(slowest_s, answer.elapsed_s)
            if answer.elapsed_s > (answer.timeout_s or DEFAULT_TIMEOUT_S) + GRACE_S * patience:
                late.append(answer)
            if answer.status == 0:
                is_reset = trial.node_dies and answer.error.startswith(RESETS)
                resets += is_reset
                if not is_reset:
                    lost.append(answer)
    detail = f"{total} asked, slowest answer {slowest_s:.2f} s, {len(late)} late, {len(lost)} unanswered"
    if resets:
        detail += f", {resets} reset with their node"
    return Check("one terminal answer in time", not late and not lost, detail + first((*late, *lost)))


def balanced(trials: Sequence[Trial]) -> Check:
    """Clients and server count the same, and nothing is left inside."""
    problems: list[str] = []
    seen: Counter[int] = Counter()
    poisoned = 0
    for trial in trials:
        mine = Counter(answer.status for answer in trial.answers if answer.status)
        seen += mine
        poisoned += sum(POISON in answer.error for answer in trial.answers)
        if trial.left_over:
            problems.append(f"left over: {trial.left_over}")
        if not trial.counted:
            continue
        too_few, too_many = mine - trial.counted, trial.counted - mine
        if too_few or (too_many and not trial.strangers):
            problems.append(f"clients saw {dict(mine)}, the server counted {dict(trial.counted)}")
    counts = ", ".join(f"{count} x {status}" for status, count in sorted(seen.items()))
    detail = "; ".join(problems) or f"{counts}, of them {poisoned} dead-lettered; nothing left inside"
    return Check("accepted = answered + dead-lettered", not problems, detail)


def repeated(trials: Sequence[Trial]) -> Check:
    """Whatever was asked or computed more than once had the same bytes each time."""
    seen: dict[int, set[str]] = {}
    allowed: Counter[int] = Counter()
    whole = [(trial, answer) for trial in trials for answer in trial.answers if answer.digest]
    for trial, answer in whole:
        seen.setdefault(answer.number, set()).add(answer.digest)
        allowed[answer.number] = max(allowed[answer.number], trial.versions)
    differing = [number for number, digests in seen.items() if len(digests) > allowed[number]]
    again = sum(trial.redelivered for trial in trials)
    detail = f"{len(seen)} requests asked {len(whole)} times, {again} counted as redelivered, "
    return Check("same bytes again", not differing, f"{detail}{len(differing)} differ")


def own_input(trials: Sequence[Trial], reference: Mapping[int, str]) -> Check:
    """No answer is another's. Where versions follow each other, there is more than one right answer."""
    whole = [answer for trial in trials for answer in trial.answers if answer.digest]
    single = [answer for trial in trials if trial.versions == 1 for answer in trial.answers if answer.digest]
    known = [answer for answer in single if answer.number in reference]
    wrong = [answer for answer in known if reference[answer.number] != answer.digest]
    silent = [answer for answer in whole if not answer.seed_echoed]
    detail = f"{len(known)} of {len(whole)} compared, {len(wrong)} differ, {len(silent)} echo another seed"
    return Check("each answer is its own", not wrong and not silent, detail)


def truthful(trials: Sequence[Trial], patience: float) -> Check:
    """`/readyz` answers within a second, and what it says has been true within the last one."""
    slow_s = READY_S + SCHEDULING_S * patience
    settled = [judged for trial in trials for judged in trial.watch.settled(READY_S * patience)]
    lies = [look for look, truth in settled if look.ready != truth]
    late = [look for look, _ in settled if look.elapsed_s > slow_s]
    longest_s = max((look.elapsed_s for look, _ in settled), default=0.0)
    detail = f"{len(settled)} looks, {len(lies)} untrue, the longest took {longest_s:.2f} s"
    return Check("readiness is true", not lies and not late, detail)


def bounded(trials: Sequence[Trial]) -> Check:
    """The queue never held more than it may, and root and node did not grow beyond a bound."""
    overfull = [trial for trial in trials if trial.watch.deepest > trial.watch.capacity]
    growth = max(trial.watch.most_bytes - trial.watch.first_bytes for trial in trials)
    deepest = max(trial.watch.deepest for trial in trials)
    capacity = max(trial.watch.capacity for trial in trials)
    detail = (
        f"queue at most {deepest} of {capacity}, root and node grew by {growth / 2**20:.1f} MiB "
        f"(at most {NODE_GROWTH_BYTES / 2**20:.0f})"
    )
    return Check("bounded", not overfull and growth <= NODE_GROWTH_BYTES, detail)


def first(answers: Sequence[Answer]) -> str:
    """The first of them, for the evidence."""
    if not answers:
        return ""
    answer = answers[0]
    return f"; first: {answer.kind} {answer.number}, {answer.elapsed_s:.2f} s, {answer.error[:150]}"
