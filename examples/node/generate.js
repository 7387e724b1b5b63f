// Goes on from a prompt with a text bundle: node generate.js BUNDLE PROMPT [MAX_TOKENS [TEMPERATURE [SEED]]]

import { Tokenizer } from "@huggingface/tokenizers";
import { Tensor } from "onnxruntime-node";
import { fail, graph, open } from "./bundle.js";
import { words } from "./noise.js";

const [folder, prompt, most = "40", temperature = "0", seed = "0"] = process.argv.slice(2);
if (prompt === undefined) fail("usage: node generate.js BUNDLE PROMPT [MAX_TOKENS [TEMPERATURE [SEED]]]");
const bundle = open(folder);
const { name, sampler } = bundle.manifest;
if (sampler.kind !== "text") fail(`${name} is no text model: read_bundle.js draws from VAEs and GANs`);
if (!sampler.standard_graph) fail(`${name} has no step in operators of ONNX alone: export it again`);
const tokenizer = new Tokenizer(JSON.parse(bundle.files["tokenizer.json"]), {});
const { record, session } = await graph(bundle, sampler.standard_graph);
const [size, ends, draws] = [sampler.block_size, sampler.end_tokens ?? [], words(seed, 0, 1)];
let cache, cached; // keys and values of the tokens read so far, and how many those are

function empty({ name, shape }) {
  const dims = [1, ...shape.slice(1)];
  return [name, new Tensor("float32", new Float32Array(dims.reduce((a, b) => a * b)), dims)];
}

/** Reads the tokens into the cache after what it holds, or from the beginning; returns the next one's logits. */
async function read(tokens, isPrompt) {
  if (isPrompt) [cache, cached] = [Object.fromEntries(record.inputs.slice(3).map(empty)), 0];
  cached += tokens.length;
  const { logits, ...present } = await session.run({
    tokens: new Tensor("int64", BigInt64Array.from(tokens, BigInt), [1, tokens.length]),
    seqlens_k: new Tensor("int32", [cached - 1], [1]),
    total_sequence_length: new Tensor("int32", [isPrompt ? tokens.length : size], []),
    ...cache,
  });
  for (const key in present) cache[key.replace("present_", "past_")] = present[key];
  return Array.from(logits.data);
}

/** The likeliest token, or the one on whose stretch a random number falls. */
function choose(logits) {
  const largest = Math.max(...logits);
  if (Number(temperature) === 0) return logits.indexOf(largest);
  let end = 0;
  const stretches = logits.map((x) => (end += Math.exp((x - largest) / Number(temperature))));
  const place = (Number(draws.next().value >> 11n) / 2 ** 53) * end;
  return stretches.findIndex((stretch) => stretch > place);
}

const ids = tokenizer.encode(prompt, { add_special_tokens: false }).ids;
if (ids.includes(undefined)) fail("the prompt holds characters this model does not know");
let text = ids.length ? ids.slice(-size) : [sampler.start_token ?? 0];
const made = [];
let logits = await read(text, true);
while (made.length < Number(most)) {
  made.push(choose(logits));
  if (ends.includes(made.at(-1)) || made.length === Number(most)) break;
  text.push(made.at(-1));
  const isFull = cached === size; // then the older half is forgotten
  if (isFull) text = text.slice(-Math.max(1, Math.floor(size / 2)));
  logits = await read(isFull ? text : text.slice(-1), isFull);
}
const shown = ends.includes(made.at(-1)) ? made.slice(0, -1) : made;
const asItIs = { skip_special_tokens: false, clean_up_tokenization_spaces: false };
process.stdout.write(tokenizer.decode([...ids, ...shown], asItIs) + "\n");
