// Next-token probabilities and position encodings.

function nextView(app) {
  const panels = app.content.next, root = el("div");
  const draw = () => {
    const panel = panels[app.state.panel], most = Math.max(...panel.items.map((item) => item.p), 1e-9);
    const list = el("ol", { class: "bars", "aria-label": panel.label });
    for (const item of panel.items) {
      list.append(el("li", {}, el("span", { class: "token", title: `${item.token} (id ${item.id})` }, item.token),
        el("span", { class: "fill", "aria-hidden": "true", style: { width: 100 * item.p / most + "%" } }), el("span", { class: "percent" }, percent(item.p))));
    }
    const move = (by) => { app.state.panel += by; draw(); };
    const controls = panels.length > 1 ? [el("div", { class: "bar" },
      field("Position", choice(panels.map((one, index) => [index, shorten(one.label, 48)]), app.state.panel, (to) => { app.state.panel = to; draw(); root.querySelector("select").focus(); })),
      el("span", {}, el("button", { class: "plain", type: "button", "aria-label": "Previous position", disabled: app.state.panel === 0, onclick: () => move(-1) }, "←"), " ",
        el("button", { class: "plain", type: "button", "aria-label": "Next position", disabled: app.state.panel === panels.length - 1, onclick: () => move(1) }, "→")))] : [];
    root.replaceChildren(...controls, el("h2", {}, el("bdi", {}, panel.label)), el("p", { class: "sentence" }, "The most probable tokens, by the softmax of the logits."), list,
      el("p", { class: "faint" }, `All other tokens together: ${percent(panel.rest)}.`));
  };
  draw();
  return root;
}

function positionsView(app) {
  const root = el("div"), wide = Math.min(app.width(), 900);
  for (const panel of app.content.positions) {
    const blocks = el("div", { class: "blocks" }), readout = el("p", { class: "readout", "aria-live": "polite" }, el("span", { class: "faint" }, "Point at a cell to read its value."));
    root.append(el("h2", {}, panel.name), el("p", { class: "sentence" }, panel.sentence), blocks, readout);
    const few = panel.blocks.length <= 2;
    panel.blocks.forEach(async (block) => {
      const [rows, columns] = block.shape, size = few ? Math.min(400, wide) : 150;
      const canvas = el("canvas", { role: "img", "aria-label": `${block.label}: ${rows} ${block.rows} by ${columns} ${block.columns}, from ${number(block.low)} to ${number(block.high)}` });
      blocks.append(el("figure", {}, el("figcaption", {}, `${block.label} (↓ ${block.rows}, → ${block.columns})`), canvas));
      const codes = await inflate(block.bytes), context = sheet(canvas, size, few ? size * 0.8 : size);
      const high = Math.max(...panel.blocks.map((one) => one.high));
      const ramp = app.ramp("diverging"), share = block.high / high;
      const colours = Uint32Array.from({ length: 256 }, (_, code) => ramp[Math.round(127.5 + (code - 127.5) * share)]);
      context.imageSmoothingEnabled = columns > size || rows > size;
      context.drawImage(image(codes, rows, columns, colours), 0, 0, size, few ? size * 0.8 : size);
      canvas.addEventListener("pointermove", (event) => {
        const box = canvas.getBoundingClientRect();
        const r = Math.floor((event.clientY - box.top) / box.height * rows), c = Math.floor((event.clientX - box.left) / box.width * columns);
        if (r < 0 || c < 0 || r >= rows || c >= columns) return;
        const value = block.low + codes[r * columns + c] / 255 * (block.high - block.low);
        readout.replaceChildren(`${block.label}: ${block.rows} ${r}, ${block.columns} ${c}: `, el("strong", {}, value.toFixed(2)));
      });
    });
    const high = Math.max(...panel.blocks.map((one) => one.high));
    root.append(signedLegend(app, high));
    if (panel.curves) root.append(curves(app, panel.curves, Math.min(wide, 760)));
  }
  return root;
}

function signedLegend(app, high) {
  const css = app.content.ramps.diverging[app.theme()].join(", "), ticks = el("div", { class: "ticks" });
  for (const share of [-1, -0.5, 0, 0.5, 1]) ticks.append(el("span", { style: { left: 50 + 50 * share + "%" } }, String(+(share * high).toPrecision(2)).replace("-", "−")));
  return el("div", { class: "legend" }, el("div", {}, "Value"), el("div", { class: "ramp", style: { background: `linear-gradient(to right, ${css})` } }), ticks);
}

function curves(app, data, width) {
  const height = 260, left = 52, bottom = 40, top = 12, all = data.lines.flat();
  let low = Math.min(...all), high = Math.max(...all);
  if (low === high) high = low + 1;
  const x = (value) => left + (value - data.x[0]) / ((data.x.at(-1) - data.x[0]) || 1) * (width - left - 12);
  const y = (value) => height - bottom - (value - low) / (high - low) * (height - bottom - top);
  const picture = svg("svg", { width, height, role: "img", "aria-label": `${data.up} against ${data.across}` });
  for (let i = 0; i <= 4; i++) {
    const value = low + (high - low) * i / 4, place = data.x[0] + (data.x.at(-1) - data.x[0]) * i / 4;
    picture.append(svg("line", { class: "axis", x1: left, x2: width - 12, y1: y(value), y2: y(value) }),
      svg("text", { class: "axis-text", x: left - 6, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(high - low < 10 ? 2 : 0)),
      svg("text", { class: "axis-text", x: x(place), y: height - bottom + 16, "text-anchor": "middle" }, Math.round(place)));
  }
  data.lines.forEach((line, index) => picture.append(svg("path", { fill: "none", stroke: app.headColour(index), "stroke-width": 1.8,
    d: line.map((value, at) => `${at ? "L" : "M"}${x(data.x[at]).toFixed(1)} ${y(value).toFixed(1)}`).join("") })));
  picture.append(svg("text", { class: "axis-text", x: (left + width) / 2, y: height - 6, "text-anchor": "middle" }, data.across));
  const names = data.names.length > 1 ? [el("p", { class: "chips" }, ...data.names.map((name, index) => el("span", { class: "chip", style: { "--head": app.headColour(index) } }, el("i"), name)))] : [];
  return el("figure", { style: { margin: "1rem 0" } }, el("figcaption", { class: "faint" }, data.up), picture, ...names);
}
