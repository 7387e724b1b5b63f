"""The model card: the first thing a person reads in a bundle's folder."""

from __future__ import annotations

from triptych.bundle.manifest import (
    SAMPLES_PICTURE,
    SAMPLES_TEXT,
    GraphRecord,
    Manifest,
    TensorSpec,
    TextSampler,
)
from triptych.bundle.pictures import is_image


def describe(manifest: Manifest) -> str:
    """The card of a bundle, as Markdown."""
    is_text = isinstance(manifest.sampler, TextSampler)
    if is_text:
        picture = f"Samples: [{SAMPLES_TEXT}]({SAMPLES_TEXT})\n\n"
    else:
        picture = f"![samples]({SAMPLES_PICTURE})\n\n" if is_image(manifest.sample.shape) else ""
    use = 'engine.generate("To be", max_tokens=200, seed=0).text' if is_text else "engine.sample(16, seed=0)"
    if classes := manifest.sampler.classes:
        use = f'engine.sample(16, seed=0, condition={{"label": 0}})  # a label from 0 to {classes - 1}'
    return (
        f"# {manifest.name}\n\nA {manifest.family} model, exported by Triptych "
        f"{manifest.created_with.get('triptych', '')}.\n\n{picture}"
        f'```python\nimport triptych\n\nengine = triptych.load("{manifest.name}")\n{use}\n```\n\n'
        f"## Graphs\n\n{graph_table(manifest.graphs)}\n"
        f"## Training\n\n{facts(manifest.training)}\n"
        f"## Settings\n\n{facts(manifest.config)}\n"
        "Every byte of this folder is covered by SHA-256 digests in `manifest.json`, which `triptych inspect`"
        " checks.\n"
        "A digest detects damage; it is not a signature.\n"
    )


def graph_table(graphs: tuple[GraphRecord, ...]) -> str:
    """What can be run, and how close it is to torch."""
    lines = [
        "| graph | inputs | outputs | max error against torch | batch sizes |",
        "| --- | --- | --- | --- | --- |",
    ]
    for graph in graphs:
        inputs, outputs = summary(graph.inputs), summary(graph.outputs)
        error = f"{graph.parity.max_abs_error:.2g} (allowed {graph.parity.tolerance:.2g})"
        buckets = ", ".join(map(str, graph.row_buckets)) or "as given"
        lines.append(f"| `{graph.name}` | {inputs} | {outputs} | {error} | {buckets} |")
    return "\n".join(lines) + "\n"


def summary(specs: tuple[TensorSpec, ...], most: int = 4) -> str:
    """Names and shapes; the many tensors of a cache are counted, not listed."""
    named = [f"`{spec.name}` ({', '.join(map(str, spec.shape))})" for spec in specs[:most]]
    return ", ".join(named) + (f" and {len(specs) - most} more" if len(specs) > most else "")


def facts(values: dict[str, object]) -> str:
    """The plain values of a mapping, as a list."""
    lines = [
        f"- {key}: {value}" for key, value in values.items() if not isinstance(value, dict | list | tuple)
    ]
    return "\n".join(lines or ["- not recorded"]) + "\n"
