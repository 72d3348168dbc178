// All layers × heads as one sheet of small heatmaps; the chosen one large, with its values under the pointer or cursor keys.

function heatmapView(app, attention) {
  const many = attention.layers.length * attention.heads.length > 1;
  const large = el("section", { class: "large", "aria-label": "The chosen head" });
  const root = el("div", { class: many ? "two" : "two single" });
  const redraw = () => { large.replaceChildren(...largeHeatmap(app, attention, root.clientWidth, many)); };
  if (many) {
    const overview = el("section", { "aria-label": "All layers and heads" });
    root.append(overview);
    requestAnimationFrame(() => overview.replaceChildren(...overviewSheet(app, attention, overview.clientWidth, redraw)));
  }
  root.append(large);
  requestAnimationFrame(redraw);
  return root;
}

function overviewSheet(app, attention, width, onchoose) {
  const { state } = app, layers = attention.layers.length, heads = attention.heads.length;
  const gap = 4, left = 26, top = 20;
  const side = Math.max(12, Math.min(110, Math.floor((width - left - 30) / heads) - gap));
  const tall = Math.round(side * Math.min(2, Math.max(0.5, attention.rows / attention.columns)));
  const canvas = el("canvas", { class: "pick", tabindex: 0, role: "application",
    "aria-label": `${layers} layers by ${heads} ${attention.each}s. Arrow keys choose a ${attention.each}; it is shown large.` });
  const context = sheet(canvas, left + heads * (side + gap), top + layers * (tall + gap));
  const mark = el("div", { class: "mark" });
  context.fillStyle = app.ink();
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  const every = Math.ceil(22 / (side + gap)), down = Math.ceil(14 / (tall + gap));
  context.textAlign = "center";
  for (let h = 0; h < heads; h += every) context.fillText(attention.heads[h], left + h * (side + gap) + side / 2, 10);
  context.textAlign = "right";
  for (let l = 0; l < layers; l += down) context.fillText(attention.layers[l], left - 6, top + l * (tall + gap) + tall / 2);
  context.imageSmoothingEnabled = attention.columns > side || attention.rows > tall;
  const ramp = attention.ramp(app);
  for (let l = 0; l < layers; l++) {
    for (let h = 0; h < heads; h++) {
      const codes = attention.matrix(l, h);
      const small = image(codes, attention.rows, attention.columns, attention.colours(ramp, state.scale, codes));
      context.drawImage(small, left + h * (side + gap), top + l * (tall + gap), side, tall);
    }
  }
  const place = () => {
    mark.style.display = state.head < 0 ? "none" : "block";
    Object.assign(mark.style, { left: left + state.head * (side + gap) - 3 + "px", top: top + state.layer * (tall + gap) - 3 + "px",
      width: side + 6 + "px", height: tall + 6 + "px" });
  };
  const choose = (layer, head) => {
    state.layer = Math.max(0, Math.min(layers - 1, layer));
    state.head = Math.max(0, Math.min(heads - 1, head));
    place();
    onchoose();
    app.say(`Layer ${attention.layers[state.layer]}, ${attention.each} ${attention.heads[state.head]}`);
  };
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    const layer = Math.floor((event.clientY - box.top - top) / (tall + gap)), head = Math.floor((event.clientX - box.left - left) / (side + gap));
    if (layer >= 0 && head >= 0) choose(layer, head);
  });
  canvas.addEventListener("keydown", (event) => {
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] || [0, 0];
    if (!down && !right) return;
    event.preventDefault();
    choose(state.layer + down, state.head + right);
  });
  app.onchoice = place;
  place();
  const caption = el("p", { class: "faint" }, `Rows: layers. Columns: ${attention.each}s. Choose one to see it large.`);
  return [caption, el("div", { class: "scroll sheet" }, el("div", { class: "stack" }, canvas, mark))];
}

function largeHeatmap(app, attention, rootWidth, many) {
  const { state } = app, { rows, columns, step } = attention;
  const again = () => { app.onchoice?.(); app.refresh(); };
  const heads = [...attention.heads.map((head, index) => [index, String(head)])];
  if (heads.length > 1) heads.unshift([-1, "mean of all"]);
  const zoom = (factor) => { state.zoom = Math.max(1, Math.min(16, state.zoom * factor)); app.refresh(); };
  const controls = el("div", { class: "bar", style: { "margin-top": "0" } },
    field("Layer", choice(attention.layers.map((layer, index) => [index, String(layer)]), state.layer, (to) => { state.layer = to; again(); })),
    field(attention.title, choice(heads, state.head, (to) => { state.head = to; again(); })),
    field("Colour scale", choice(SCALES, state.scale, (to) => { state.scale = to; app.refresh(); })),
    el("span", {}, el("button", { class: "plain", type: "button", "aria-label": "Zoom out", disabled: state.zoom <= 1, onclick: () => zoom(0.5) }, "−"), " ",
      el("button", { class: "plain", type: "button", "aria-label": "Zoom in", disabled: state.zoom >= 16, onclick: () => zoom(2) }, "+")));

  const wide = rootWidth > 790 && many ? rootWidth * 7 / 12 - 24 : rootWidth;
  const font = "13px system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";
  const probe = document.createElement("canvas").getContext("2d");
  probe.font = font;
  const name = (tokens, block) => shorten(tokens[block * step], 14);
  const reach = (tokens, count) => {
    let most = 20;
    for (let i = 0; i < count; i++) most = Math.max(most, probe.measureText(name(tokens, i)).width);
    return Math.min(Math.ceil(most) + 10, wide < 480 ? 84 : 130);
  };
  const left = reach(attention.q, rows), top = reach(attention.k, columns);
  const room = Math.max(10, (window.innerHeight * 0.8 - top - 160) / rows); // the legend should stay in sight
  const fit = Math.min(30, room, (wide - left - 12) / columns), cell = (fit >= 2 ? Math.floor(fit) : fit) * state.zoom;
  const canvas = el("canvas", { tabindex: 0, role: "application", class: "matrix",
    "aria-label": `Attention weights, ${rows} rows (queries) by ${columns} columns (keys). Arrow keys move and read a weight.` });
  const context = sheet(canvas, left + columns * cell + 1, top + rows * cell + 1);
  const codes = attention.matrix(state.layer, state.head);
  context.imageSmoothingEnabled = cell < 1;
  context.drawImage(image(codes, rows, columns, attention.colours(attention.ramp(app), state.scale, codes)), left, top, columns * cell, rows * cell);
  context.strokeStyle = app.rule();
  context.strokeRect(left - 0.5, top - 0.5, columns * cell + 1, rows * cell + 1);
  context.fillStyle = app.ink();
  context.font = cell < 13 ? font.replace("13px", "11px") : font;
  context.textBaseline = "middle";
  const every = Math.max(1, Math.ceil(12 / cell));
  context.textAlign = "right";
  for (let i = 0; i < rows; i += every) context.fillText(name(attention.q, i), left - 6, top + (i + 0.5) * cell, left - 8);
  context.textAlign = "left";
  for (let i = 0; i < columns; i += every) {
    context.save();
    context.translate(left + (i + 0.5) * cell, top - 6);
    context.rotate(-Math.PI / 2);
    context.fillText(name(attention.k, i), 0, 0, top - 8);
    context.restore();
  }

  const row = el("div", { class: "cross" }), column = el("div", { class: "cross" }), mark = el("div", { class: "mark" });
  const hint = "Point at a cell, or use the arrow keys, to read its weight.";
  const readout = el("p", { class: "readout", "aria-live": "polite" }, el("span", { class: "faint" }, hint));
  let at = null;
  const read = (q, k) => {
    at = q === null ? null : [Math.max(0, Math.min(rows - 1, q)), Math.max(0, Math.min(columns - 1, k))];
    for (const node of [row, column, mark]) node.style.display = at ? "block" : "none";
    if (!at) return readout.replaceChildren(el("span", { class: "faint" }, hint));
    [q, k] = at;
    Object.assign(row.style, { left: left + "px", top: top + q * cell + "px", width: columns * cell + "px", height: cell + "px" });
    Object.assign(column.style, { left: left + k * cell + "px", top: top + "px", width: cell + "px", height: rows * cell + "px" });
    const size = Math.max(cell, 4);
    Object.assign(mark.style, { left: left + k * cell - 1 + "px", top: top + q * cell - 1 + "px", width: size + 2 + "px", height: size + 2 + "px" });
    const weight = attention.value[codes[q * columns + k]];
    readout.replaceChildren(el("bdi", {}, attention.span(attention.q, q)), " looks at ", el("bdi", {}, attention.span(attention.k, k)), ": ",
      el("strong", {}, number(weight)), step > 1 ? " (the largest weight in this block)" : "");
  };
  read(null);
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const q = Math.floor((event.clientY - box.top - top) / cell), k = Math.floor((event.clientX - box.left - left) / cell);
    if (q >= 0 && k >= 0 && q < rows && k < columns) read(q, k);
    else if (at) read(null);
  });
  canvas.addEventListener("pointerleave", () => read(null));
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    read((at ? at[0] + move[0] : 0), (at ? at[1] + move[1] : 0));
  });

  const notice = step > 1 ? [el("p", { class: "notice" }, `This is much attention for one page: each cell keeps the largest weight of ${step} × ${step} tokens. Save a single layer or head to see every token.`)] : [];
  return [controls, ...notice, readout, el("div", { class: "scroll" }, el("div", { class: "stack" }, canvas, row, column, mark)), legend(app, attention)];
}
