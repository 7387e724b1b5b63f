"""20: all workers are replaced under load: by the same bundle, then by another version."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import closing
from pathlib import Path

from triptych.bundle import writer
from triptych.bundle.manifest import MANIFEST, WEIGHTS, Manifest
from triptych.bundle.reader import read_manifest
from triptych.serve.chaos.experiment import Experiment
from triptych.serve.chaos.jobs import JobLoad
from triptych.serve.chaos.lab import Lab
from triptych.serve.chaos.load import run_load
from triptych.serve.chaos.server import Server

ALL = 1_000_000  # results of jobs


def run(lab: Lab) -> None:
    """A rolling restart, and a swap to another version of the model: nobody sees an error."""
    bundles = copies(lab)
    server = lab.serve(bundles=bundles)
    with lab.trial(server) as trial:
        for _ in range(lab.times(1, long=10)):
            trial.load.wait_for(lab.chance.randrange(20, 60))
            before = server.worker_pids()
            status, said = load_anew(server, lab.stage.image)
            replaced = not set(before) & set(server.worker_pids())
            lab.check("every worker is another", status == 200 and replaced, said)
        trial.load.wait_for(40)
    lab.no_errors(trial)
    hot_swap(lab, server, bundles)


def on_jobs(lab: Lab) -> None:
    """The same while workers do jobs: each is done, by the old version or by the new one."""
    bundles = copies(lab)
    server = lab.serve_jobs(lab.stage.store(), bundles=bundles)
    with lab.jobs(server) as jobs:
        for _ in range(lab.times(1, long=10)):
            jobs.wait_for(lab.chance.randrange(10, 40))
            before = server.worker_pids()
            status, said = load_anew(server, lab.stage.image)
            replaced = not set(before) & set(server.worker_pids())
            lab.check("every worker is another", status == 200 and replaced, said)
        jobs.wait_for(20)
    lab.all_done(jobs)
    with JobLoad(server, lab.stage.image, f"swap-{lab.seed}", first=20_000) as mixed:
        mixed.wait_for(lab.chance.randrange(10, 40))
        exchange(lab, server, bundles)
        mixed.wait_for(40)
    lab.all_done(mixed)
    calm, after = (mixed.direct(each, ALL) for each in (lab.stage.shared(), server))
    strange = [seed for seed, found in mixed.digests.items() if not found <= {calm[seed], after[seed]}]
    renewed = sum(found == {after[seed]} for seed, found in mixed.digests.items())
    detail = f"{len(strange)} strange of {len(mixed.digests)}; {renewed} by the new version"
    lab.check("each result is of the old version or of the new one", not strange and renewed, detail)


def on_machines(lab: Lab) -> None:
    """A rolling restart of the workers: one comes, one goes, until all are others."""
    server = lab.machines()
    with lab.trial(server) as trial:
        for number in range(lab.times(2, long=10)):
            trial.load.wait_for(lab.chance.randrange(20, 60))
            server.add().until_up()
            code = server.dismiss(server.machines[number])  # the oldest
            lab.check("it ends with 0", code == 0, f"exit code {code}")
        lab.all_back(server)
        trial.load.wait_for(40)
    lab.no_errors(trial)


def copies(lab: Lab) -> list[Path]:
    """The bundles of the stage, to be exchanged."""
    folder = Path(tempfile.mkdtemp(dir=lab.stage.folder))
    return [Path(shutil.copytree(bundle, folder / bundle.name)) for bundle in lab.stage.bundles]


def exchange(lab: Lab, server: Server, bundles: list[Path]) -> None:
    """Put a version of the image model with other weights in its place, and swap."""
    place = next(bundle for bundle in bundles if read_manifest(bundle).name == lab.stage.image)
    old = read_manifest(place).version
    fresh = reweighted(place, place.with_name("fresh") / place.name)
    place.rename(place.with_name("old"))
    fresh.rename(place)
    status, said = load_anew(server, lab.stage.image)
    lab.check("swapped", status == 200, said)
    new = server.get(f"/v1/models/{lab.stage.image}")["version"]
    lab.check("another version is served", new == read_manifest(place).version != old, f"{old} to {new}")


def hot_swap(lab: Lab, server: Server, bundles: list[Path]) -> None:
    """The image model gets other weights, and another version."""
    requests = [request for request in lab.stage.requests if request.kind == lab.stage.image]
    with lab.trial(server, requests, versions=2) as trial:
        trial.load.wait_for(lab.chance.randrange(20, 60))
        exchange(lab, server, bundles)
        trial.load.wait_for(60)
    lab.no_errors(trial)
    after = run_load(server, requests).digests()
    known = {n: {lab.stage.reference[n], *after[n]} for n in after}
    strange = [a.number for a in trial.answers if a.digest and a.digest not in known[a.number]]
    changed = sum(len(digests) == 2 for digests in known.values())
    detail = f"{len(strange)} strange of {len(trial.answers)}; {changed} of {len(known)} requests changed"
    lab.check("each answer is of the old version or of the new one", not strange and changed, detail)


def load_anew(server: Server, model: str) -> tuple[int, str]:
    """What `triptych swap` asks for."""
    with closing(server.connect(60.0)) as connection:
        connection.request("POST", f"/v2/repository/models/{model}/load", b"{}")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def reweighted(bundle: Path, destination: Path) -> Path:
    """The same model with the sign of every weight turned: whole by its digests, and of another version."""
    destination.parent.mkdir(parents=True, exist_ok=True)

    def fill(scratch: Path) -> Manifest:
        for file in bundle.iterdir():
            if file.name != MANIFEST:
                shutil.copy(file, scratch)
        weights = bytearray((scratch / WEIGHTS).read_bytes())
        start = 8 + int.from_bytes(weights[:8], "little")
        header = json.loads(weights[8:start])
        for name, tensor in header.items():
            if name != "__metadata__" and tensor["dtype"] == "F32":
                first, last = tensor["data_offsets"]
                for at in range(start + first + 3, start + last, 4):
                    weights[at] ^= 0x80
        (scratch / WEIGHTS).write_bytes(weights)
        return read_manifest(bundle)

    return writer.write(destination, fill)


EXPERIMENT = Experiment(
    20,
    "a rolling restart and a hot swap under load",
    "no error; each answer is of one version",
    run,
    on_jobs=on_jobs,
    on_machines=on_machines,
)
