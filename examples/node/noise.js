// The noise of a bundle: Philox-4x64-10 and numpy's float32 ziggurat, in plain JavaScript.

const MASK = (1n << 64n) - 1n;
const MULTIPLIERS = [0xd2e7470ee14c6c93n, 0xca5a826395121157n];
const WEYL = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn];
const ROUNDS = 10;

/** The 64-bit words of sample `index` of `seed` in `domain`, one after the other. */
export function* words(seed, index, domain) {
  for (let counter = 1n; ; counter++) {
    let block = [counter & MASK, counter >> 64n, 0n, BigInt(domain)];
    let key = [BigInt(seed), BigInt(index)];
    for (let round = 0; round < ROUNDS; round++) {
      const [first, second] = [MULTIPLIERS[0] * block[0], MULTIPLIERS[1] * block[2]];
      block = [
        (second >> 64n) ^ block[1] ^ key[0],
        second & MASK,
        (first >> 64n) ^ block[3] ^ key[1],
        first & MASK,
      ];
      key = key.map((part, i) => (part + WEYL[i]) & MASK);
    }
    yield* block;
  }
}

/** 256 layers of equal area under exp(-x^2 / 2): where each ends, how wide it is, how high it lies. */
const LAYERS = 256, EDGE = 3.6541528853610088, AREA = 0.00492867323399, PLACES = 2 ** 23;
const density = (x) => Math.exp(-0.5 * x * x);
const { inner, width, height } = layers();

function layers() {
  const inner = new Uint32Array(LAYERS), width = new Float32Array(LAYERS), height = new Float32Array(LAYERS);
  let outer = EDGE;
  const base = AREA / density(EDGE);
  [inner[0], width[0], height[0]] = [(EDGE / base) * PLACES, base / PLACES, 1];
  [width[LAYERS - 1], height[LAYERS - 1]] = [EDGE / PLACES, density(EDGE)];
  for (let layer = LAYERS - 2; layer >= 1; layer--) {
    const end = Math.sqrt(-2 * Math.log(AREA / outer + density(outer)));
    [inner[layer + 1], width[layer], height[layer]] = [(end / outer) * PLACES, end / PLACES, density(end)];
    outer = end;
  }
  return { inner, width, height };
}

/** Standard normal numbers as float32: the low and then the high half of each word are used. */
export function* normals(seed, index, domain) {
  const halves = (function* () {
    for (const word of words(seed, index, domain)) yield* [Number(word & 0xffffffffn), Number(word >> 32n)];
  })();
  const next = () => halves.next().value;
  const uniform = () => Math.fround((next() >>> 8) / 2 ** 24);
  for (;;) {
    const bits = next();
    const layer = bits & 0xff, sign = bits & 0x100 ? -1 : 1, place = bits >>> 9;
    const x = Math.fround(sign * Math.fround(place * width[layer]));
    if (place < inner[layer]) {
      yield x;
    } else if (layer === 0) {
      let beyond, up;
      do {
        beyond = Math.fround(-Math.fround(1 / EDGE) * Math.fround(Math.log1p(-uniform())));
        up = Math.fround(-Math.fround(Math.log1p(-uniform())));
      } while (Math.fround(up + up) <= Math.fround(beyond * beyond));
      yield Math.fround(((place >>> 8) & 1 ? -1 : 1) * Math.fround(Math.fround(EDGE) + beyond));
    } else {
      const step = Math.fround(Math.fround(height[layer - 1] - height[layer]) * uniform());
      if (Math.fround(step + height[layer]) < density(x)) yield x;
    }
  }
}
