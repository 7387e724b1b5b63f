"""21: bundles that are damaged on the disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from triptych.serve.chaos.experiment import Experiment
from triptych.serve.chaos.lab import Lab
from triptych.serve.chaos.server import Server
from triptych.serve.chaos.stage import WORKERS
from triptych.serve.chaos.trial import Trial

BACK_S = 20.0
WEIGHTS = "model.safetensors"


def truncate(file: Path) -> None:
    """Cut the last hundred bytes off."""
    file.write_bytes(file.read_bytes()[:-100])


def flip(at: int) -> Callable[[Path], None]:
    """Flip a bit of the byte at `at`."""

    def flipped(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[at] ^= 1
        file.write_bytes(content)

    return flipped


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "truncated": (WEIGHTS, truncate),
    "a bit of the header": (WEIGHTS, flip(20)),
    "a bit of the weights": (WEIGHTS, flip(-7)),
    "a file missing": ("*.onnx", Path.unlink),
}


def run(lab: Lab) -> None:
    """Refused at the start by name of the file; put under a running server, the old one goes on."""
    folder = Path(tempfile.mkdtemp(dir=lab.stage.folder))
    with ThreadPoolExecutor(len(DAMAGES)) as pool:
        list(pool.map(lambda name: refused(lab, folder, name), DAMAGES))
    replaced(lab, folder)


def refused(lab: Lab, folder: Path, name: str) -> None:
    """A server does not start on it."""
    pattern, damage = DAMAGES[name]
    bundle = Path(shutil.copytree(lab.stage.bundles[0], folder / name.replace(" ", "-")))
    file = next(bundle.glob(pattern))
    damage(file)
    code, said = lab.run_serve(bundle, "--port", "0")
    lab.check(f"{name}: refused by name", code != 0 and file.name in said, said[-300:])


def replaced(lab: Lab, folder: Path) -> None:
    """A damaged bundle takes the place of one that is being served."""
    bundles = [Path(shutil.copytree(bundle, folder / bundle.name)) for bundle in lab.stage.bundles]
    server = lab.serve(bundles=bundles)
    with lab.trial(server) as trial:
        trial.load.wait_for(lab.chance.randrange(20, 40))
        bundles[0].rename(folder / "before")
        shutil.copytree(folder / "before", bundles[0])
        flip(-7)(bundles[0] / WEIGHTS)
        past = len(server.events)
        connection = server.connect()
        connection.request("POST", f"/v2/repository/models/{lab.stage.image}/load", b"{}")
        answer = connection.getresponse()
        said = answer.read().decode()
        connection.close()
        lab.check("the swap is refused by name", answer.status == 409 and WEIGHTS in said, said)
        logged = lab.logged(server, WEIGHTS, past)
        lab.check("the log names the file", logged, logged)
        unreplaced(lab, server, trial)
        shutil.rmtree(bundles[0])
        (folder / "before").rename(bundles[0])
        back = lab.wait_until(lambda: len(server.worker_pids()) == WORKERS, timeout_s=BACK_S)
        lab.check("the worker is back once the bundle is whole", back, server.workers())
        lab.check("and readiness has no more to say", not server.get("/readyz")["reasons"])
        trial.load.wait_for(40)
    lab.no_errors(trial)


def unreplaced(lab: Lab, server: Server, trial: Trial) -> None:
    """A worker dies meanwhile: to replace it is tried ever more rarely, and the other one serves."""
    blow = lab.strike(server, lab.chance.choice(server.worker_pids()))
    seconds = lab.times(3, long=20)
    named = lab.wait_until(lambda: WEIGHTS in str(server.get("/readyz")["reasons"]), timeout_s=5.0)
    lab.check("readiness names the file", named, server.get("/readyz"))
    trial.load.run_for(seconds)
    tries = [reason for reason in lab.deaths(server, blow.past, 2) if WEIGHTS in reason]
    lab.check("the log names the file with each try", tries, tries[:1])
    lab.at_most("tries to replace it", len(tries), "", 4 if seconds < 10 else 7)
    trial.load.wait_for(40)


EXPERIMENT = Experiment(
    21,
    "a bundle truncated, a bit of header or weights flipped, a file missing, replaced while it is served",
    "refused by name of the file; the old one keeps serving; what is not replaced is, once the file is whole",
    run,
)
