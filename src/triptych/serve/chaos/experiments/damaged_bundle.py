"""21: bundles that are damaged on the disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from triptych.serve.chaos.experiment import Experiment
from triptych.serve.chaos.lab import Lab

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
        blow = lab.strike(server, lab.chance.choice(server.worker_pids()))
        refusal = lab.wait_until(lambda: WEIGHTS in str(lab.deaths(server, blow.past, 2)), timeout_s=10.0)
        lab.check("a worker does not start on it, and the other one serves", refusal)
        trial.load.wait_for(40)
        shutil.rmtree(bundles[0])
        (folder / "before").rename(bundles[0])
        lab.all_back(server)
        trial.load.wait_for(40)
    lab.no_errors(trial)


EXPERIMENT = Experiment(
    21,
    "a bundle truncated, a bit of header or weights flipped, a file missing, replaced while it is served",
    "refused by name of the file; the old one keeps serving",
    run,
)
