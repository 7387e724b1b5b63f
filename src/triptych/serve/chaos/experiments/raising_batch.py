"""8: what puts a batch together raises, in the node or in the worker."""

from __future__ import annotations

from triptych.serve.chaos.experiment import ANYWHERE, Experiment
from triptych.serve.chaos.faults import Fault
from triptych.serve.chaos.lab import Lab


def run(lab: Lab) -> None:
    """Collating raises in the worker: that request fails. The batcher raises in the node: it lives on."""
    server = lab.shared()
    past, node = len(server.events), server.node_pid()
    with lab.trial(server) as trial:
        for _ in range(lab.times(2, long=30)):
            trial.load.wait_for(lab.chance.randrange(10, 40))
            refused = trial.ask(lab.harmful(Fault.COLLATE))
            lab.check("collating raised: that request fails", refused.status == 500, refused.error)
        trial.load.wait_for(lab.chance.randrange(10, 40))
        whole = trial.ask(lab.harmful(Fault.GATHER))  # not armed: it does no harm
        lab.stage.arm(Fault.GATHER)
        answer = trial.ask(lab.harmful(Fault.GATHER))
        reason = lab.deaths(server, past, 1)
        lab.check(
            "the log says that the batcher raised", "sabotage: the batcher raises" in str(reason), reason
        )
        lab.check("its request was answered all the same", answer.digest == whole.digest != "", answer.error)
        trial.load.wait_for(40)
    lab.check("the node is the same", server.node_pid() == node, node)
    lab.no_errors(trial)


def on_jobs(lab: Lab) -> None:
    """The same with jobs: the one whose batch cannot be put together has failed, the other is done."""
    server = lab.durable()
    past, node = len(server.events), server.node_pid()
    lab.stage.arm(Fault.GATHER)
    with lab.jobs(server) as jobs:
        lab.hand_in(jobs, Fault.COLLATE)
        lab.hand_in(jobs, Fault.GATHER)
    reason = lab.deaths(server, past, 1)
    lab.check("the log says that the batcher raised", "sabotage: the batcher raises" in str(reason), reason)
    lab.ends(jobs, Fault.COLLATE, "failed")
    lab.check("the node is the same", server.node_pid() == node, node)


EXPERIMENT = Experiment(
    8,
    "collating a batch raises; the batcher itself raises",
    "the request fails or is tried again; the batcher lives; nothing else is lost",
    run,
    brokers=ANYWHERE,
    on_jobs=on_jobs,
)
