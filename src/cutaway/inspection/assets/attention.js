// One kind of attention with its bytes decoded: values, heads, colours.

class Attention {
  constructor(entry, codes) {
    Object.assign(this, entry);
    this.codes = codes;
    this.rows = Math.ceil(entry.q.length / entry.step);
    this.columns = Math.ceil(entry.k.length / entry.step);
    this.value = Float32Array.from({ length: 256 }, (_, code) => entry.signed ? Math.sign(code - 128) * ((code - 128) / 127) ** 2 * entry.high : (code / 255) ** 2 * entry.high);
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
        mean[i] = this.code(sum / this.heads.length / this.high);
      }
      this.averages.set(layer, mean);
    }
    return this.averages.get(layer);
  }

  // The code of a share of the largest weight, from −1 or 0 to 1; and back from a code to the share's root.
  code(share) { return Math.round(this.signed ? 128 + 127 * Math.sign(share) * Math.sqrt(Math.abs(share)) : 255 * Math.sqrt(share)); }
  root(code) { return this.signed ? Math.max(-1, (code - 128) / 127) : code / 255; }

  get title() { return this.each[0].toUpperCase() + this.each.slice(1); }

  ramp(app) { return app.ramp(this.signed ? "diverging" : "sequential"); }

  // The colour of each code under a scale: even, small weights lifted (square root), or up to the head's own largest.
  colours(ramp, scale, codes) {
    if (scale === 0) return ramp;
    let most = 0;
    if (scale === 2) for (const code of codes) most = Math.max(most, Math.abs(this.root(code)));
    return Uint32Array.from({ length: 256 }, (_, code) => {
      const root = this.root(code), shown = scale === 1 ? root * Math.abs(root) : Math.max(-1, Math.min(1, root / (most || 1)));
      return ramp[Math.round(this.signed ? 127.5 * (1 + shown) : 255 * shown)];
    });
  }

  span(tokens, block) {
    if (this.step === 1) return `“${shorten(tokens[block], 60)}” (${block})`;
    const first = block * this.step, last = Math.min(tokens.length, first + this.step) - 1;
    return `“${shorten(tokens[first], 24)}” to “${shorten(tokens[last], 24)}” (${first}–${last})`;
  }
}

const SCALES = [[0, "small weights lifted (√)"], [1, "even"], [2, "√, to each head’s own largest"]];

function legend(app, attention) {
  const ramp = attention.ramp(app), stops = [];
  for (let i = 0; i <= 32; i++) stops.push(ramp[Math.round(i / 32 * 255)]);
  const css = stops.map((word) => `rgb(${word & 255} ${(word >> 8) & 255} ${(word >> 16) & 255})`).join(", ");
  const ticks = el("div", { class: "ticks" });
  const above = app.state.scale === 1 ? [0, 0.25, 0.5, 0.75, 1] : [0, 0.02, 0.1, 0.25, 0.5, 1];
  const numbers = attention.signed ? [-1, -0.5, -0.1, 0, 0.1, 0.5, 1] : above;
  for (const share of numbers) {
    const along = app.state.scale === 1 ? share : Math.sign(share) * Math.sqrt(Math.abs(share));
    const place = attention.signed ? (1 + along) / 2 : along;
    const text = app.state.scale === 2 ? Math.round(100 * share) + " %" : String(+(share * attention.high).toPrecision(2));
    ticks.append(el("span", { style: { left: 100 * place + "%" } }, text));
  }
  const what = app.state.scale === 2 ? `Share of the ${attention.each}’s largest weight` : "Attention weight";
  return el("div", { class: "legend" }, el("div", {}, what),
    el("div", { class: "ramp", style: { background: `linear-gradient(to right, ${css})` } }), ticks);
}
