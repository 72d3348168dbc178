// The page: one picture's content in a shadow root of its own, so that many can stand in one notebook.

const VIEWS = { heatmap: "Heatmaps", heads: "Head view", next: "Next token", positions: "Positions" };

class App {
  constructor(host, content) {
    this.host = host;
    this.content = content;
    const layer = content.layer || 0, head = content.head || 0;
    this.state = { view: content.view, kind: 0, layer, head, scale: 0, zoom: 1, start: 0, sink: false, heads: null, panel: content.panel || 0 };
    this.mode = surroundings();
    this.cache = new Map();
    this.ramps = new Map();
    this.root = el("div", { class: "app" });
    this.body = el("div", { role: "tabpanel", "aria-label": "Picture" });
    this.live = el("div", { "aria-live": "polite", style: { position: "absolute", width: "1px", height: "1px", overflow: "hidden", "clip-path": "inset(50%)" } });
    const shadow = host.attachShadow({ mode: "open" });
    shadow.append(el("style", {}, content.style), this.root);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    let width = 0;
    new ResizeObserver(([entry]) => {
      const now = Math.round(entry.contentRect.width);
      if (now && now !== width) { width = now; this.draw(); }
    }).observe(host);
  }

  theme() { return this.mode === "auto" ? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light") : this.mode; }
  width() { return this.root.clientWidth - 2 * parseFloat(getComputedStyle(this.root).paddingLeft); }
  ink() { return this.theme() === "dark" ? "#e8eaed" : "#1b1f24"; }
  rule() { return this.theme() === "dark" ? "#3a414b" : "#d5d9df"; }
  headColour(head) { return this.content.headColours[head % this.content.headColours.length]; }
  say(text) { this.live.textContent = text; }

  ramp(name = "sequential") {
    const key = name + this.theme();
    if (!this.ramps.has(key)) this.ramps.set(key, lookup(this.content.ramps[name][this.theme()]));
    return this.ramps.get(key);
  }

  views() {
    const { attention, next, positions } = this.content;
    return [...(attention?.length ? ["heatmap", "heads"] : []), ...(next?.length ? ["next"] : []), ...(positions?.length ? ["positions"] : [])];
  }

  async attention() {
    const entry = this.content.attention[this.state.kind];
    if (!this.cache.has(entry)) this.cache.set(entry, Attention.from(entry));
    return this.cache.get(entry);
  }

  draw() {
    const { content, state } = this;
    this.host.style.colorScheme = this.mode === "auto" ? "" : this.mode;
    if (content.page) document.documentElement.style.colorScheme = this.host.style.colorScheme;
    const keep = (name, focus) => { if (focus) this.root.querySelector(`[data-value="${name}"]`)?.focus(); };
    const views = this.views(), dark = this.theme() === "dark";
    const bar = el("div", { class: "bar" });
    if (views.length > 1) bar.append(picker("tab", "View", views.map((view) => [view, view === "next" ? content.nextName || VIEWS.next : VIEWS[view]]), state.view, (view, focus) => { state.view = view; this.draw(); keep(view, focus); }));
    if (content.attention?.length > 1 && (state.view === "heatmap" || state.view === "heads")) {
      bar.append(picker("radio", "Kind of attention", content.attention.map((one, index) => [index, one.name]), state.kind, (kind, focus) => {
        Object.assign(state, { kind, layer: 0, head: 0, start: 0, heads: null });
        this.draw();
        keep(kind, focus);
      }));
    }
    this.root.replaceChildren(el("header", {}, el("div", {}, el("h1", {}, content.title), content.text ? el("p", { class: "text", tabindex: 0 }, el("bdi", {}, content.text)) : null),
      el("button", { class: "plain theme", type: "button", "aria-label": dark ? "Light colours" : "Dark colours", title: dark ? "Light colours" : "Dark colours",
        onclick: () => { this.mode = dark ? "light" : "dark"; this.draw(); this.root.querySelector(".theme").focus(); } }, dark ? "☀" : "☾")), bar, this.body, this.live);
    this.refresh();
  }

  // Only the view itself, so that the controls above keep the focus; the chosen control inside it is focused again.
  async refresh() {
    const { state } = this, focused = [...this.body.querySelectorAll("select, button, canvas")].indexOf(this.host.shadowRoot.activeElement);
    if (state.view === "next") this.body.replaceChildren(nextView(this));
    else if (state.view === "positions") this.body.replaceChildren(positionsView(this));
    else {
      const attention = await this.attention();
      const sentence = el("p", { class: "sentence" }, attention.sentence);
      if (state.view === "heads") this.body.replaceChildren(headView(this, attention));
      else this.body.replaceChildren(sentence, heatmapView(this, attention));
    }
    requestAnimationFrame(() => requestAnimationFrame(() => {
      if (focused >= 0) this.body.querySelectorAll("select, button, canvas")[focused]?.focus({ preventScroll: true });
      this.host.dataset.ready = state.view;
    }));
  }
}

// Notebooks say by attributes of their own whether they are dark.
function surroundings() {
  const { body, documentElement } = document;
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "true" ? "light" : "dark";
  if (body.classList.contains("vscode-dark") || documentElement.getAttribute("theme") === "dark") return "dark";
  if (body.classList.contains("vscode-light")) return "light";
  return "auto";
}

function mount(id, content) {
  for (const host of document.querySelectorAll(`[id="${id}"]`)) {
    if (!host.shadowRoot) { new App(host, content); return; }
  }
}
