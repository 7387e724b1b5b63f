// Reads and runs a bundle from Node.js, the same noise: node read_bundle.js BUNDLE OUT.f32

import { writeFileSync } from "node:fs";
import { Tensor } from "onnxruntime-node";
import { fail, graph, open, sha256 } from "./bundle.js";
import { normals } from "./noise.js";

const [folder, out] = process.argv.slice(2);
const [n, seed] = [4, 0];
if (!out) fail("usage: node read_bundle.js BUNDLE OUT.f32");
const bundle = open(folder);
const { name, sampler } = bundle.manifest;
if (sampler.kind !== "latent") fail(`${name} draws no latents, but ${sampler.kind}: generate.js writes texts`);
const { record, session } = await graph(bundle, sampler.graph);
const size = record.row_buckets[0] ?? n; // a batch size at which no row's bytes depend on its neighbours
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
console.log(`${name}: ${n} samples, SHA-256 ${sha256(samples.subarray(0, bytes))}`);
