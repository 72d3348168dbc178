// Small helpers that every view uses. Text only ever enters the page as text nodes, never as markup.

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, set] of Object.entries(value)) node.style.setProperty(key, set);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function field(label, select) {
  select.setAttribute("aria-label", label);
  return el("label", { class: "field" }, label, select);
}

function choice(options, chosen, onchange) {
  const select = el("select", { onchange: () => onchange(Number(select.value)) });
  for (const [value, text] of options) select.append(el("option", { value, selected: value === chosen }, text));
  select.value = String(chosen);
  return select;
}

// A row of buttons of which one is chosen; arrow keys move, as in native radio groups and tab lists.
function picker(role, label, options, chosen, onchoose) {
  const tab = role === "tab";
  const box = el("div", { class: "tabs", role: tab ? "tablist" : "radiogroup", "aria-label": label });
  options.forEach(([value, text]) => {
    const on = value === chosen;
    box.append(el("button", {
      type: "button", role, [tab ? "aria-selected" : "aria-checked"]: String(on), tabindex: on ? 0 : -1,
      "data-value": value, onclick: () => onchoose(value),
    }, text));
  });
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = options.findIndex(([value]) => value === chosen);
    onchoose(options[(at + step + options.length) % options.length][0], true);
  });
  return box;
}

function shorten(text, limit) {
  const parts = Array.from(new Intl.Segmenter().segment(text), (part) => part.segment);
  return parts.length <= limit ? text : parts.slice(0, limit - 1).join("") + "…";
}

async function inflate(base64) {
  const binary = atob(base64), packed = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) packed[i] = binary.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// 256 colours from the stops of a ramp, as little-endian RGBA words.
function lookup(stops) {
  const rgb = stops.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  return Uint32Array.from({ length: 256 }, (_, code) => {
    const place = (code / 255) * (rgb.length - 1), low = Math.min(Math.floor(place), rgb.length - 2);
    const [r, g, b] = rgb[low].map((value, i) => Math.round(value + (rgb[low + 1][i] - value) * (place - low)));
    return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  });
}

// Codes (rows × columns) as an image, one pixel a cell.
function image(codes, rows, columns, colours) {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const pixels = new Uint32Array(rows * columns);
  for (let i = 0; i < pixels.length; i++) pixels[i] = colours[codes[i]];
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), columns, rows), 0, 0);
  return canvas;
}

// A canvas that is sharp on dense screens, with its context already scaled to CSS pixels.
function sheet(canvas, width, height) {
  const dense = Math.min(window.devicePixelRatio || 1, Math.sqrt(60e6 / Math.max(1, width * height)));
  canvas.width = Math.max(1, Math.round(width * dense));
  canvas.height = Math.max(1, Math.round(height * dense));
  canvas.style.width = width + "px";
  canvas.style.height = height + "px";
  const context = canvas.getContext("2d");
  context.setTransform(dense, 0, 0, dense, 0, 0);
  return context;
}

function number(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  return size < 0.001 ? "<0.001".replace("<", value < 0 ? ">−" : "<") : value.toFixed(size < 0.0995 ? 3 : 2);
}

function percent(p) { return p > 0 && p < 1e-4 ? "<0.01 %" : (100 * p).toFixed(p < 0.01 ? 2 : 1) + " %"; }
