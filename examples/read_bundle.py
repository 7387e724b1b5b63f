"""Reads and runs a bundle without Triptych, the same bytes: python read_bundle.py BUNDLE OUT.npy"""

import json
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.random import Generator, Philox
from onnxruntime import InferenceSession
from safetensors.numpy import load_file

folder, out, n, seed = Path(sys.argv[1]), sys.argv[2], 4, 0
raw = (folder / "manifest.json").read_bytes()
if sha256(raw[:-68] + raw[-4:]).hexdigest() != raw[-68:-4].decode():
    sys.exit("manifest.json is damaged")
sampler = (manifest := json.loads(raw))["sampler"]
for name, file in manifest["files"].items():
    if sha256((folder / name).read_bytes()).hexdigest() != file["sha256"]:
        sys.exit(f"{name} is damaged")
if (domain := {"latent": 0, "text": 1}.get(sampler["kind"])) is None:
    sys.exit("draws latents and texts, not " + sampler["kind"])
(graph,) = (g for g in manifest["graphs"] if g["name"] == sampler[["graph", "score_graph"][domain]])
session = InferenceSession(folder / graph["file"])  # finds its weights in model.safetensors by itself
size = (graph["row_buckets"] or [n])[0]  # a batch size at which no row's bytes depend on its neighbours
streams = [Generator(Philox(key=[seed, i], counter=[0, 0, 0, domain])) for i in range(-(-n // size) * size)]
if sampler["kind"] == "latent":
    inputs = {sampler["input"]: np.stack([s.standard_normal(sampler["latent_shape"], "f4") for s in streams])}
    if label := sampler.get("condition"):
        inputs[label["name"]] = np.arange(len(streams)) % int(label["high"] + 1)
    batches = [{key: x[i : i + size] for key, x in inputs.items()} for i in range(0, n, size)]
    samples = np.concatenate([session.run([sampler["output"]], batch)[0] for batch in batches])[:n]
else:
    samples = np.full((n, 1), sampler.get("start_token", 0))
    while samples.shape[1] < sampler["block_size"]:  # each token has its stretch of [0, end[-1])
        ends = np.exp(session.run(None, {"tokens": samples})[0][:, -1].astype(float)).cumsum(1)
        drawn = [np.searchsorted(e, s.random() * e[-1], "right") for e, s in zip(ends, streams, strict=False)]
        samples = np.column_stack((samples, drawn))
print(len(load_file(folder / "model.safetensors")), "tensors", sha256(samples.tobytes()).hexdigest())
np.save(out, samples)
