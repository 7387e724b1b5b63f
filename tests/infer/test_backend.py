"""The seam to onnxruntime: its errors become ours, with the graph's name."""

import dataclasses

import numpy as np
import pytest

from triptych.bundle import reader
from triptych.errors import BundleError
from triptych.infer.onnx_runtime import OnnxRuntimeBackend


def test_a_graph_the_library_does_not_take_is_named(vae_bundle):
    bundle = reader.read(vae_bundle)
    broken = dataclasses.replace(bundle, graphs={**bundle.graphs, "decode": b"not a graph"})
    backend = OnnxRuntimeBackend(broken, threads=1)
    with pytest.raises(BundleError, match="decode"):
        backend.run("decode", {"z": np.zeros((1, 4), np.float32)})
