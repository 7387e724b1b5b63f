// Reads and runs a bundle from Node.js, the same noise: node read_bundle.js BUNDLE OUT.f32

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { normals } from "./noise.js";

const [folder, out] = process.argv.slice(2);
const [n, seed, weights] = [4, 0, "model.safetensors"];
const sha256 = (data) => createHash("sha256").update(data).digest("hex");
const fail = (problem) => {
  console.error(problem);
  process.exit(1);
};

if (!out) fail("usage: node read_bundle.js BUNDLE OUT.f32");
const raw = readFileSync(join(folder, "manifest.json"));
const covered = Buffer.concat([raw.subarray(0, -68), raw.subarray(-4)]);
if (sha256(covered) !== raw.subarray(-68, -4).toString()) fail("manifest.json is damaged");
const manifest = JSON.parse(raw);
const files = {};
for (const [name, record] of Object.entries(manifest.files)) {
  files[name] = readFileSync(join(folder, name));
  if (sha256(files[name]) !== record.sha256) fail(`${name} is damaged`);
}

const sampler = manifest.sampler;
if (sampler.kind !== "latent") fail(`${manifest.name} is a text model: this example draws from VAEs and GANs`);
const graph = manifest.graphs.find((graph) => graph.name === sampler.graph);
const session = await InferenceSession.create(files[graph.file], {
  externalData: [{ path: weights, data: files[weights] }],
  logSeverityLevel: 3,
});
const size = graph.row_buckets[0] ?? n; // a batch size at which no row's bytes depend on its neighbours
const width = sampler.latent_shape.reduce((product, axis) => product * axis, 1);
const batches = [];
for (let start = 0; start < n; start += size) {
  const latents = new Float32Array(size * width);
  for (let row = 0; row < size; row++) {
    const noise = normals(seed, start + row, 0);
    for (let i = 0; i < width; i++) latents[row * width + i] = noise.next().value;
  }
  const inputs = { [sampler.input]: new Tensor("float32", latents, [size, ...sampler.latent_shape]) };
  if (sampler.condition) {
    const classes = sampler.condition.high + 1;
    const labels = BigInt64Array.from({ length: size }, (_, row) => BigInt((start + row) % classes));
    inputs[sampler.condition.name] = new Tensor("int64", labels, [size]);
  }
  batches.push(Buffer.from((await session.run(inputs))[sampler.output].data.slice().buffer));
}
const samples = Buffer.concat(batches);
const bytes = (samples.length / batches.length / size) * n;
writeFileSync(out, samples.subarray(0, bytes));
console.log(`${manifest.name}: ${n} samples, SHA-256 ${sha256(samples.subarray(0, bytes))}`);
