"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

from math import cos, pi

from triptych.learn.train.settings import TrainSettings, TurnSettings, warms_up


def rate_factor(settings: TrainSettings | TurnSettings, step: int, total: int) -> float:
    r"""What the base learning rate is multiplied by at `step` of `total` (both count from 0), in [0, 1].

    $$ \tfrac12 \left(1 + \cos \pi \tfrac{t - w}{T - w}\right) \quad t \ge w, \qquad \tfrac{t + 1}{w} \quad
    t < w $$

    Source: Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5 without restarts; the linear warm-up is the
    usual one. `warmup_linear` falls as 1 - (t - w) / (T - w) instead (Devlin et al. 2019, arXiv:1810.04805).
    """
    if settings.schedule in (None, "constant"):
        return 1.0
    warmup = min(settings.warmup_steps or 0, total) if warms_up(settings.schedule) else 0
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return 1 - done if settings.schedule == "warmup_linear" else 0.5 * (1 + cos(pi * done))
