// Opens a bundle: every byte is checked before anything is made of it.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { InferenceSession } from "onnxruntime-node";

const WEIGHTS = "model.safetensors";
export const sha256 = (data) => createHash("sha256").update(data).digest("hex");
export const fail = (problem) => {
  console.error(problem);
  process.exit(1);
};

/** The manifest of the bundle in `folder`, and its files by name. */
export function open(folder) {
  const raw = readFileSync(join(folder, "manifest.json"));
  const covered = Buffer.concat([raw.subarray(0, -68), raw.subarray(-4)]);
  if (sha256(covered) !== raw.subarray(-68, -4).toString()) fail("manifest.json is damaged");
  const manifest = JSON.parse(raw);
  const files = {};
  for (const [name, record] of Object.entries(manifest.files)) {
    files[name] = readFileSync(join(folder, name));
    if (sha256(files[name]) !== record.sha256) fail(`${name} is damaged`);
  }
  return { manifest, files };
}

/** What the manifest says of a graph, and a session that runs it over the weights that were checked. */
export async function graph({ manifest, files }, name) {
  const record = manifest.graphs.find((graph) => graph.name === name);
  const session = await InferenceSession.create(files[record.file], {
    externalData: [{ path: WEIGHTS, data: files[WEIGHTS] }],
    logSeverityLevel: 3,
  });
  return { record, session };
}
