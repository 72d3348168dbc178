// One kind of attention with its bytes decoded: values, heads, colours.

class Attention {
  constructor(entry, codes) {
    Object.assign(this, entry);
    this.codes = codes;
    this.rows = Math.ceil(entry.q.length / entry.step);
    this.columns = Math.ceil(entry.k.length / entry.step);
    this.value = Float32Array.from({ length: 256 }, (_, code) => (code / 255) ** 2 * entry.high);
    this.averages = new Map();
  }

  static async from(entry) { return new Attention(entry, await inflate(entry.bytes)); }

  // Codes of one head (rows × columns); head −1 is the mean of the layer's heads.
  matrix(layer, head) {
    const size = this.rows * this.columns, first = layer * this.heads.length;
    if (head >= 0) return this.codes.subarray((first + head) * size, (first + head + 1) * size);
    if (!this.averages.has(layer)) {
      const mean = new Uint8Array(size);
      for (let i = 0; i < size; i++) {
        let sum = 0;
        for (let h = 0; h < this.heads.length; h++) sum += this.value[this.codes[(first + h) * size + i]];
        mean[i] = Math.round(255 * Math.sqrt(sum / this.heads.length / this.high));
      }
      this.averages.set(layer, mean);
    }
    return this.averages.get(layer);
  }

  // The colour of each code under a scale: even, small weights lifted (square root), or up to the head's own largest.
  colours(ramp, scale, codes) {
    if (scale === 0) return ramp;
    if (scale === 1) return Uint32Array.from({ length: 256 }, (_, code) => ramp[Math.round(code * code / 255)]);
    let most = 1;
    for (const code of codes) if (code > most) most = code;
    return Uint32Array.from({ length: 256 }, (_, code) => ramp[Math.min(255, Math.round(255 * code / most))]);
  }

  span(tokens, block) {
    if (this.step === 1) return `“${shorten(tokens[block], 60)}” (${block})`;
    const first = block * this.step, last = Math.min(tokens.length, first + this.step) - 1;
    return `“${shorten(tokens[first], 24)}” to “${shorten(tokens[last], 24)}” (${first}–${last})`;
  }
}

const SCALES = [[0, "small weights lifted (√)"], [1, "even, 0 to 1"], [2, "√, to each head’s own largest"]];

function legend(app, attention) {
  const ramp = app.ramp(), stops = [];
  for (let i = 0; i <= 32; i++) stops.push(ramp[Math.round(i / 32 * 255)]);
  const css = stops.map((word) => `rgb(${word & 255} ${(word >> 8) & 255} ${(word >> 16) & 255})`).join(", ");
  const ticks = el("div", { class: "ticks" });
  const numbers = app.state.scale === 1 ? [0, 0.25, 0.5, 0.75, 1] : [0, 0.02, 0.1, 0.25, 0.5, 1];
  for (const share of numbers) {
    const place = app.state.scale === 1 ? share : Math.sqrt(share);
    const text = app.state.scale === 2 ? Math.round(100 * share) + " %" : String(+(share * attention.high).toPrecision(2));
    ticks.append(el("span", { style: { left: 100 * place + "%" } }, text));
  }
  const what = app.state.scale === 2 ? "Share of the head’s largest weight" : "Attention weight";
  return el("div", { class: "legend" }, el("div", {}, what),
    el("div", { class: "ramp", style: { background: `linear-gradient(to right, ${css})` } }), ticks);
}
