"""9: RabbitMQ goes away: killed, stopped, or out of reach without a word."""

from __future__ import annotations

import signal
import time
from collections import Counter

from triptych.serve.chaos.experiment import AMQP, Experiment
from triptych.serve.chaos.jobs import JobLoad
from triptych.serve.chaos.lab import Lab
from triptych.serve.chaos.trial import Trial

BACK_S, LOST_S, DONE_S = 30.0, 20.0, 60.0
PUBLISH_S = 5.0  # how long a job may wait for RabbitMQ before it is refused
PAST_HEARTBEAT_S = 25.0


def run(lab: Lab) -> None:
    """SIGKILL it, stop it for longer than its heartbeat, let nothing pass: every accepted job is done."""
    with lab.jobs(lab.shared()) as jobs:
        for _ in range(lab.times(1, long=5)):
            jobs.wait_for(lab.chance.randrange(20, 60))
            killed(lab, jobs)
        if not lab.quick:
            stopped(lab, jobs)
    finish(lab, jobs)
    half_open(lab)


def killed(lab: Lab, jobs: JobLoad) -> None:
    """As a power cut would end it."""
    rabbit = lab.stage.rabbit()
    rabbit.kill()
    rabbit.start()
    accepted_again(lab, jobs, "it was killed")


def stopped(lab: Lab, jobs: JobLoad) -> None:
    """Both sides give the connection up meanwhile."""
    rabbit = lab.stage.rabbit()
    rabbit.send(signal.SIGSTOP)
    time.sleep(PAST_HEARTBEAT_S)
    rabbit.send(signal.SIGCONT)
    accepted_again(lab, jobs, "it was stopped")


def half_open(lab: Lab) -> None:
    """Nothing passes any more, and nobody is told."""
    relay = lab.relay(lab.stage.rabbit().port)
    server = lab.serve_behind(relay)
    with lab.jobs(server) as jobs:
        jobs.wait_for(lab.chance.randrange(20, 60))
        past = len(server.events)
        relay.freeze()
        lost = lab.logged(server, "lost: ", past, timeout_s=LOST_S)
        lab.check("the log says that nothing comes through", lost, lost)
        if not lab.quick:
            time.sleep(PAST_HEARTBEAT_S)
        relay.thaw()
        accepted_again(lab, jobs, "nothing passed")
    finish(lab, jobs)


def on_machines(lab: Lab) -> None:
    """The same while clients wait for direct answers: each is answered or refused, then all are answered."""
    rabbit = lab.stage.rabbit()
    relay = lab.relay(rabbit.port)
    server = lab.machines(relay=relay)
    with lab.trial(server, pause_s=0.05) as trial:
        trial.load.wait_for(lab.chance.randrange(20, 60))
        trial.watch.expect(None)
        rabbit.kill()
        rabbit.start()
        answered_again(lab, trial, "it was killed")
        relay.cut()
        answered_again(lab, trial, "every connection was cut")
        relay.freeze()
        time.sleep(3.0 if lab.quick else PAST_HEARTBEAT_S)
        relay.thaw()
        answered_again(lab, trial, "nothing passed")
        trial.watch.expect(True)
        trial.load.wait_for(40)
    refused = Counter(answer.status for answer in trial.answers if answer.status != 200)
    lab.check("clients are refused with 503, or 504, alone", set(refused) <= {503, 504}, dict(refused))
    with lab.trial(server) as after:
        after.load.wait_for(100)
    lab.no_errors(after)


def answered_again(lab: Lab, trial: Trial, what: str) -> None:
    """Note how long it takes until direct requests are answered."""
    started_s, past = time.monotonic(), len(trial.answers)

    def calm() -> bool:
        return sum(answer.status == 200 for answer in trial.answers[past:]) >= 10

    back = lab.wait_until(calm, timeout_s=BACK_S)
    lab.recovery_s = max(lab.recovery_s or 0.0, time.monotonic() - started_s)
    lab.check(f"requests are answered again after {what}", back, f"{len(trial.answers) - past} answers")


def accepted_again(lab: Lab, jobs: JobLoad, what: str) -> None:
    """Note how long it takes until jobs are accepted."""
    started_s = time.monotonic()
    back = jobs.wait_for(10, timeout_s=BACK_S * lab.stage.patience)
    lab.recovery_s = max(lab.recovery_s or 0.0, time.monotonic() - started_s)
    lab.check(f"jobs are accepted again after {what}", back, f"{len(jobs.accepted)} accepted")


def finish(lab: Lab, jobs: JobLoad) -> None:
    """Wait for the end of every job; who was refused meanwhile was told so in time, and when to come back."""
    jobs.finish(DONE_S * lab.stage.patience)
    lab.check("jobs are refused with 503 alone", set(jobs.refused) <= {503}, dict(jobs.refused))
    lab.check("and with Retry-After", not jobs.blunt, f"{jobs.blunt} without")
    lab.at_most("slowest refusal", jobs.slowest_refusal_s, "s", PUBLISH_S + 0.5)


EXPERIMENT = Experiment(
    9,
    "RabbitMQ killed and started; stopped for longer than its heartbeat; half-open connections to it",
    "reconnected; no accepted job is lost; meanwhile 503 within 5 s",
    run,
    brokers=AMQP,
    on_machines=on_machines,
)
