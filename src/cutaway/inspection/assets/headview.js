// Lines from the tokens that look (left) to the tokens looked at (right), a colour a head; one token can be isolated.

const WINDOW = 100; // tokens a side that are drawn at once
const SHADES = 24; // steps of opacity: one path a head and step draws thousands of lines quickly

function headView(app, attention) {
  if (attention.step > 1) {
    return el("p", { class: "notice" }, "The head view needs every single weight, and this page holds only summaries: save fewer layers (layer=…) to use it.");
  }
  const root = el("div");
  requestAnimationFrame(() => drawHeads(app, attention, root));
  return root;
}

function drawHeads(app, attention, root) {
  const { state } = app, heads = attention.heads.length, tokens = { q: attention.q, k: attention.k };
  if (state.heads?.length !== heads) state.heads = attention.heads.map(() => true);
  const again = () => drawHeads(app, attention, root);
  const longest = Math.max(tokens.q.length, tokens.k.length);
  state.start = Math.max(0, Math.min(state.start, longest - Math.min(WINDOW, longest)));
  const range = (side) => [Math.min(state.start, Math.max(0, tokens[side].length - WINDOW)), Math.min(tokens[side].length, state.start + WINDOW)];
  const view = { q: range("q"), k: range("k") };

  const controls = el("div", { class: "bar", style: { "margin-top": "0" } },
    field("Layer", choice(attention.layers.map((layer, index) => [index, String(layer)]), state.layer, (to) => { state.layer = to; again(); root.querySelector("select").focus(); })),
    el("span", {}, el("button", { class: "plain", type: "button", disabled: state.layer === 0, "aria-label": "Previous layer", onclick: () => { state.layer--; again(); } }, "↑"), " ",
      el("button", { class: "plain", type: "button", disabled: state.layer === attention.layers.length - 1, "aria-label": "Next layer", onclick: () => { state.layer++; again(); } }, "↓")));
  const chips = el("div", { class: "chips", role: "group", "aria-label": "Heads shown" }, el("span", { class: "faint" }, `${attention.title}s`));
  attention.heads.forEach((head, index) => chips.append(el("button", {
    class: "chip", type: "button", "aria-pressed": String(state.heads[index]), "aria-label": `${attention.title} ${head}`, title: `Click: show or hide. Double click: this ${attention.each} alone.`,
    style: { "--head": app.headColour(head) },
    onclick: (event) => { state.heads[index] = !state.heads[index]; event.currentTarget.setAttribute("aria-pressed", String(state.heads[index])); lines(); },
    ondblclick: () => { state.heads = attention.heads.map((_, other) => other === index); again(); },
  }, el("i"), String(head))));
  if (heads > 1) {
    for (const [text, on] of [["all", true], ["none", false]]) {
      chips.append(el("button", { class: "plain", type: "button", onclick: () => { state.heads.fill(on); again(); } }, text));
    }
  }
  const sink = el("button", { class: "plain", type: "button", "aria-pressed": String(state.sink), title: "Many heads park what they do not need on the first token; without these lines one sees the rest.",
    onclick: () => { state.sink = !state.sink; sink.setAttribute("aria-pressed", String(state.sink)); lines(); } }, "leave out the first token");
  chips.append(sink);
  const pager = [];
  if (longest > WINDOW) {
    const step = (by) => { state.start += by; again(); };
    pager.push(el("p", { class: "notice" }, `Tokens ${state.start} to ${Math.min(longest, state.start + WINDOW) - 1} of ${longest} are drawn; weights to others are left out here. `,
      el("button", { class: "plain", type: "button", disabled: state.start === 0, onclick: () => step(-WINDOW) }, "earlier"), " ",
      el("button", { class: "plain", type: "button", disabled: state.start + WINDOW >= longest, onclick: () => step(WINDOW) }, "later")));
  }

  const width = Math.min(root.clientWidth, 860), height = 23, label = Math.max(88, Math.min(190, width * 0.27));
  const count = { q: view.q[1] - view.q[0], k: view.k[1] - view.k[0] }, edge = { q: label, k: width - label };
  const picture = svg("svg", { width, height: Math.max(count.q, count.k) * height + 30, role: "group", class: "heads",
    "aria-label": "Head view. Arrow keys move between tokens, left and right change sides, Enter holds one, Escape lets go." });
  const strips = svg("g"), paths = svg("g", { fill: "none", "stroke-width": 1.8 }), nodes = { q: [], k: [] };
  picture.append(svg("text", { x: label - 8, y: 14, "text-anchor": "end", class: "axis-text" }, "looks (query)"),
    svg("text", { x: width - label + 8, y: 14, class: "axis-text" }, "looked at (key)"), strips, paths);
  const y = (index) => 24 + (index + 0.5) * height;
  let held = null, over = null;
  const weight = (head, q, k) => attention.matrix(state.layer, head)[q * attention.columns + k];

  function lines() {
    const focus = over || held, marks = [], drawn = [];
    const active = attention.heads.map((_, index) => index).filter((index) => state.heads[index]);
    for (const [slot, index] of active.entries()) {
      const beside = (slot - (active.length - 1) / 2) * Math.min(2.2, 15 / active.length); // heads side by side, not on top of each other
      const shades = Array.from({ length: 2 * SHADES + 1 }, () => []), codes = attention.matrix(state.layer, index);
      for (let q = view.q[0]; q < view.q[1]; q++) {
        if (focus?.side === "q" && focus.index !== q) continue;
        for (let k = view.k[0]; k < view.k[1]; k++) {
          if ((focus?.side === "k" && focus.index !== k) || (state.sink && k === 0)) continue;
          const share = attention.value[codes[q * attention.columns + k]] / attention.high;
          if (Math.abs(share) >= 0.01) shades[SHADES + Math.sign(share) * Math.max(1, Math.round(Math.abs(share) * SHADES))].push(`M${edge.q} ${y(q - view.q[0]) + beside}L${edge.k} ${y(k - view.k[0]) + beside}`);
        }
      }
      shades.forEach((steps, at) => {
        const shade = at - SHADES;
        if (steps.length) drawn.push(svg("path", { d: steps.join(""), stroke: app.headColour(attention.heads[index]), "stroke-opacity": Math.abs(shade) / SHADES, "stroke-dasharray": shade < 0 ? "5 4" : "none" }));
      });
    }
    if (focus) {
      const other = focus.side === "q" ? "k" : "q", part = (label - 8) / Math.max(1, active.length);
      for (let i = view[other][0]; i < view[other][1]; i++) {
        active.forEach((index, slot) => {
          const code = focus.side === "q" ? weight(index, focus.index, i) : weight(index, i, focus.index);
          const share = Math.abs(attention.value[code]) / attention.high;
          const x = other === "k" ? edge.k + 4 + slot * part : 4 + slot * part;
          if (share >= 0.01) marks.push(svg("rect", { x, y: y(i - view[other][0]) - height / 2 + 1, width: part, height: height - 2, fill: app.headColour(attention.heads[index]), "fill-opacity": 0.75 * share }));
        });
      }
    }
    strips.replaceChildren(...marks);
    paths.replaceChildren(...drawn);
    for (const side of ["q", "k"]) {
      nodes[side].forEach((node, at) => {
        const chosen = focus?.side === side && focus.index === at + view[side][0];
        node.classList.toggle("chosen", Boolean(chosen));
        node.classList.toggle("dim", Boolean(focus && focus.side === side && !chosen));
        node.setAttribute("aria-pressed", String(held?.side === side && held.index === at + view[side][0]));
      });
    }
    tell(focus, active);
  }

  const hint = "Point at a token to see only its lines; click to hold it.";
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  function tell(focus, active) {
    if (!focus) return readout.replaceChildren(el("span", { class: "faint" }, hint));
    const found = [], other = focus.side === "q" ? "k" : "q";
    for (const head of active) {
      for (let i = 0; i < tokens[other].length; i++) found.push([focus.side === "q" ? weight(head, focus.index, i) : weight(head, i, focus.index), head, i]);
    }
    const size = ([code]) => Math.abs(attention.root(code));
    found.sort((a, b) => size(b) - size(a));
    const best = found.slice(0, 3).filter((one) => size(one) > 0);
    readout.replaceChildren(el("bdi", {}, `“${shorten(tokens[focus.side][focus.index], 120)}” (${focus.index})`), focus.side === "q" ? " looks most at " : " is looked at most by ");
    best.forEach(([code, head, i], at) => readout.append(at ? "; " : "", el("bdi", {}, `“${shorten(tokens[other][i], 30)}” (${i})`), ` ${number(attention.value[code])} in ${attention.each} ${attention.heads[head]}`));
    if (!best.length) readout.append(`nothing in these ${attention.each}s`);
  }

  for (const side of ["q", "k"]) {
    for (let at = 0; at < count[side]; at++) {
      const index = at + view[side][0], token = tokens[side][index], left = side === "q";
      const text = svg("text", { x: left ? label - 8 : edge.k + 8, y: y(at) + 4.5, "text-anchor": left ? "end" : "start", "font-size": 14 }, shorten(token, Math.floor(label / 9)));
      const node = svg("g", { class: "token", role: "button", tabindex: side === "q" && at === 0 ? 0 : -1, "aria-label": `${left ? "query" : "key"} ${index}: ${token}`, "data-side": side, "data-index": index },
        svg("rect", { class: "hit", x: left ? 2 : edge.k + 2, y: y(at) - height / 2 + 1, width: label - 4, height: height - 2, rx: 4 }), text, svg("title", {}, `${token} (${index})`));
      node.addEventListener("pointerenter", () => { over = { side, index }; lines(); });
      node.addEventListener("pointerleave", () => { over = null; lines(); });
      node.addEventListener("focus", () => { over = { side, index }; lines(); });
      node.addEventListener("blur", () => { over = null; lines(); });
      const hold = () => { held = held?.side === side && held.index === index ? null : { side, index }; lines(); };
      node.addEventListener("click", hold);
      node.addEventListener("keydown", (event) => {
        const down = { ArrowDown: 1, ArrowUp: -1 }[event.key], turn = { ArrowLeft: "q", ArrowRight: "k" }[event.key];
        if (event.key === "Escape") { held = null; over = null; lines(); return; }
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); hold(); return; }
        if (!down && !turn) return;
        event.preventDefault();
        const list = nodes[turn || side], next = list[Math.max(0, Math.min(list.length - 1, at + (down || 0)))];
        node.setAttribute("tabindex", -1);
        next.setAttribute("tabindex", 0);
        next.focus();
      });
      nodes[side].push(node);
      picture.append(node);
    }
  }
  root.replaceChildren(controls, chips, ...pager, picture, readout, el("p", { class: "faint" },
    "Left = the token that looks, right = the token looked at; the stronger the line, the larger the weight. Weights below 0.01 leave no line." + (attention.signed ? " Dashed lines are negative." : "")));
  lines();
}
