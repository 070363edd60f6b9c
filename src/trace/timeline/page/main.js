// The page as a whole: the shown lines, the cursor, and the actions of keys and clicks.

const $ = (id) => document.getElementById(id);

class App {
  constructor(data) {
    this.data = data;
    this.run = new Run();
    this.shown = [];
    this.cursor = -1;
    this.filter = {};
    this.byTime = false;
    this.zoom = 1;
    this.playing = null;
    this.wrong = new Map();
    this.still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.tabs = ["now", "slots", "legend"];
    this.tab = "now";
    this.silent = new Set();
    this.panelTimer = 0;
    /** In a lesson, the last row that is revealed; later ones are hidden until the reader gets there. */
    this.seen = Infinity;
  }

  /** The lines to draw: those that the filter selects, without a folded set-up. A message that the network lost is
   * drawn at the line that sent it. */
  select() {
    this.matching = filterRows(this.run, this.filter);
    const matching = new Set(this.matching.some((line) => line.beside) ? this.matching : []);
    return this.setUp.without(this.matching.filter((line) => !line.beside || !matching.has(line.beside)));
  }

  isRevealed(line) {
    return line.row <= this.seen;
  }

  /** Reveals all lines up to this one. */
  unveil(line) {
    if (this.card && line) this.seen = Math.max(this.seen, line.row);
  }

  /** Opens the lines of a finished run. */
  open(texts) {
    this.run.add(texts);
    for (const finding of this.data.findings || []) {
      for (const id of finding.lines) {
        if (!this.wrong.has(id)) this.wrong.set(id, []);
        this.wrong.get(id).push(finding);
      }
    }
    this.diagram = new Diagram(this);
    this.strip = new Strip(this);
    listen(this);
    this.offer();
    drawLegend();
    this.setUp = new SetUp(this);
    // On a phone there is room for the picture or for the panels.
    if (!this.data.live && matchMedia("(max-width: 640px)").matches) this.fold(true);
    this.card = this.data.lesson ? new LessonCard(this) : null;
    if (this.card) this.card.draw();
    this.tellVerdict();
    this.readAddress();
    document.body.classList.remove("loading");
  }

  /** Fills the lists of the filter. */
  offer() {
    const labels = [...new Set(this.run.lines.map((line) => line.req).filter(Boolean))];
    labels.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const option = (value, text) => {
      const made = element("option", "", text);
      made.setAttribute("value", value);
      return made;
    };
    patch($("requests"), ...labels.slice(0, 2000).map((label) => option(label, "")));
    patch($("by-server"), option("", "all"), ...[...this.run.cluster].sort((a, b) => a - b).map((number) => option(number, `s${number}`)));
  }

  /** The chosen line, if there is one. */
  line() {
    return this.shown[this.cursor] || null;
  }

  state() {
    const line = this.line();
    return this.run.stateAt(line ? line.row : -1);
  }

  /** Applies the filter, and keeps the cursor as near as possible to its line. */
  refresh(wanted) {
    const before = wanted || this.line();
    this.shown = this.select();
    const at = before ? this.shown.findIndex((line) => line.row >= before.row) : -1;
    this.cursor = before ? (at < 0 ? this.shown.length - 1 : at) : this.shown.length ? 0 : -1;
    const { req, slot, server } = this.filter;
    $("by-request").value = req || "";
    $("by-slot").value = slot || "";
    $("by-server").value = server || "";
    $("clear").hidden = !(req || slot || server);
    $("nothing").hidden = this.shown.length > 0;
    $("nothing").textContent = this.run.lines.length ? `No line matches ${describeFilter(this.filter)}.` : "No lines yet. Send requests to the cluster: ./run_client.sh";
    this.unveil(this.line());
    this.diagram.layout();
    this.diagram.reveal(this.cursor, true);
    this.tellCount();
    this.settle(false);
  }

  /** Adds new lines. A cursor at the newest line follows; any other cursor stays. */
  grow(follows) {
    const line = this.line(), top = this.diagram.box.scrollTop, before = line ? this.diagram.yOf(line) : 0;
    this.shown = this.select();
    const at = line ? this.shown.indexOf(line) : -1;
    this.cursor = follows || at < 0 ? this.shown.length - 1 : at;
    $("nothing").hidden = this.shown.length > 0;
    this.diagram.layout();
    if (follows) this.diagram.reveal(this.cursor, false);
    else if (line) this.diagram.box.scrollTop = top + this.diagram.yOf(line) - before;
    this.strip.paper = null;
    this.tellCount();
    this.settle(false);
  }

  /** Moves the cursor to a row, and updates every view of it. */
  goRow(row, centre) {
    if (!this.shown.length) return;
    const before = this.cursor;
    this.cursor = Math.max(0, Math.min(row, this.shown.length - 1));
    this.unveil(this.line());
    this.diagram.reveal(this.cursor, centre);
    this.settle(this.cursor === before + 1);
  }

  settle(forward) {
    if (this.card) this.card.follow();
    this.diagram.draw();
    this.strip.draw();
    if (this.tellMoment) this.tellMoment();
    // While a key is held down, the panels are drawn later and do not delay the diagram.
    cancelAnimationFrame(this.panelTimer);
    this.panelTimer = requestAnimationFrame(() => this.drawPanels(forward));
    this.writeAddress();
  }

  drawPanels(forward) {
    this.diagram.drawHead();
    if (this.tab === "now") {
      drawRing($("stage"), this.run, this.state(), this.line() ? this.line().row : -1, { line: this.line(), moves: forward && !this.still });
      drawState(this);
      drawDetail(this);
    } else if (this.tab === "slots") drawSlots(this);
    else if (this.tab === "lab") this.drawLab();
    const line = this.line(), strip = this.strip.canvas;
    $("said").textContent = line && !this.playing ? plain(sentence(line, this.run.cluster.size)) : "";
    strip.setAttribute("aria-valuemax", this.shown.length);
    strip.setAttribute("aria-valuenow", this.cursor + 1);
    strip.setAttribute("aria-valuetext", line ? `line ${this.cursor + 1} of ${this.shown.length}, after ${relative(line.at - this.run.start)} seconds` : "no line");
  }

  /** Moves the cursor to a line; a filter that hides the line is removed. */
  go(line) {
    line = line.beside || line;
    if (line.shown < 0) {
      this.filter = {};
      if (this.setUp.hides(line)) this.setUp.open = true;
      this.refresh(line);
    } else this.goRow(line.shown, false);
  }

  /** Moves the cursor to the last line before a time. */
  goTime(at) {
    let low = 0, high = this.shown.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.shown[middle].at <= at) low = middle + 1;
      else high = middle;
    }
    this.goRow(low - 1, true);
  }

  /** Moves to the next or previous problem: a line that a finding names, a warning other than DROP, or an error. */
  goTrouble(direction) {
    for (let row = this.cursor + direction; row >= 0 && row < this.shown.length; row += direction) {
      const line = this.shown[row];
      if (this.wrong.has(line.id) || line.level === "ERROR" || (line.level === "WARN" && line.name !== "DROP")) {
        this.goRow(row, true);
        return;
      }
    }
  }

  setFilter(filter) {
    this.filter = filter;
    this.refresh();
  }

  setView(byTime) {
    this.byTime = byTime;
    $("by-order").setAttribute("aria-pressed", !byTime);
    $("by-time").setAttribute("aria-pressed", byTime);
    this.diagram.layout();
    this.diagram.reveal(this.cursor, true);
    this.settle(false);
  }

  setZoom(factor) {
    this.zoom = Math.max(1 / 16, Math.min(this.zoom * factor, 4096));
    if (this.byTime) this.setView(true);
  }

  play(on) {
    clearInterval(this.playing);
    this.playing = null;
    $("play").setAttribute("aria-pressed", on);
    $("play").setAttribute("aria-label", on ? "Pause" : "Play");
    if (!on) return;
    if (this.cursor >= this.shown.length - 1) this.goRow(0, true);
    this.playing = setInterval(() => {
      if (this.cursor >= this.shown.length - 1) this.play(false);
      else this.goRow(this.cursor + 1, false);
    }, 1000 / Number($("speed").value));
  }

  showTab(name) {
    this.tab = name;
    for (const other of this.tabs) {
      $(other).hidden = other !== name;
      $(`tab-${other}`).setAttribute("aria-selected", other === name);
      $(`tab-${other}`).tabIndex = other === name ? 0 : -1;
    }
    this.fold(false);
    this.drawPanels(false);
  }

  /** Hides the panels, or shows them. */
  fold(on) {
    document.body.classList.toggle("folded", on);
    $("fold").setAttribute("aria-expanded", !on);
  }

  setTheme(dark) {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    $("theme").setAttribute("aria-pressed", dark);
    this.strip.paper = null;
    this.strip.draw();
  }

  /** Writes the filter and the line into the address, so that it can be shared. */
  writeAddress() {
    if (this.reading) return;
    const parts = [], { req, slot, server } = this.filter, line = this.line();
    if (req) parts.push(`req=${encodeURIComponent(req)}`);
    if (slot) parts.push(`slot=${slot}`);
    if (server) parts.push(`server=${server}`);
    if (line) parts.push(`at=${encodeURIComponent(line.id)}`);
    if (this.byTime) parts.push("view=time");
    clearTimeout(this.addressTimer);
    // Browsers limit the number of changes a second, and a held key exceeds the limit.
    this.addressTimer = setTimeout(() => history.replaceState(null, "", `#${parts.join("&")}`), 120);
  }

  readAddress() {
    const asked = new URLSearchParams(location.hash.slice(1));
    this.reading = true;
    const slot = Number(asked.get("slot")), server = Number(asked.get("server"));
    this.filter = {};
    if (asked.get("req")) this.filter.req = asked.get("req");
    if (slot > 0) this.filter.slot = slot;
    if (server > 0) this.filter.server = server;
    if (asked.get("view") === "time") this.byTime = true;
    $("by-order").setAttribute("aria-pressed", !this.byTime);
    $("by-time").setAttribute("aria-pressed", this.byTime);
    this.cursor = -1;
    this.seen = this.card ? -1 : Infinity;
    this.shown = this.select();
    const named = this.run.byId.get(asked.get("at") || "");
    const first = this.run.byId.get(this.data.first || "") || (this.card ? this.card.line(0) : this.data.live ? null : firstWorthSeeing(this.run));
    const opensAt = named ? named.beside || named : Object.keys(this.filter).length ? null : first;
    if (opensAt && this.setUp.hides(opensAt)) this.setUp.open = true;
    this.refresh(opensAt);
    if (asked.get("tab")) this.showTab(["slots", "legend"].includes(asked.get("tab")) ? asked.get("tab") : "now");
    this.reading = false;
  }

  copyLink() {
    this.writeAddress();
    setTimeout(() => navigator.clipboard && navigator.clipboard.writeText(location.href).catch(() => {}), 150);
  }

  tellVerdict() {
    const { verdict, findings } = this.data;
    if (!verdict) return;
    $("verdict").hidden = false;
    $("verdict").classList.add({ proved: "good", violated: "bad" }[verdict] || "warn");
    const broken = findings.filter((finding) => finding.verdict === "violated").length;
    $("verdict").textContent = verdict === "proved" ? (this.data.unsafe ? "UNSAFE, no violation" : "\u2713 proved") : verdict === "violated"
      ? `\u26a0 ${many(broken, "violation")}` : "not provable";
    $("verdict").title = verdict === "unproven" && findings.length ? findings[0].says : "Result of the audit of these lines";
    const list = findings.map((finding) => {
      const links = element("ul", "links", ...finding.lines.map((id) => this.run.byId.get(id)).filter(Boolean).map((line) => jump(this, line)));
      links.addEventListener("click", () => $("findings").close());
      return element("div", finding.verdict === "violated" ? "finding bad" : "finding", element("b", "", `${finding.rule}: `), finding.says, links);
    });
    const said = { proved: "These lines prove, without trusting the servers, that every rule was kept.",
      unproven: "No violation was found, but lines are missing, so nothing is proved.", violated: "A rule was broken." }[verdict];
    const more = this.data.more ? element("p", "dim", `and ${this.data.more} more`) : "";
    $("findings-list").replaceChildren(element("p", "", this.data.unsafe && verdict === "proved"
      ? "Every rule was kept, but only by chance: in this run acceptors restart without their stable storage." : said), ...list, more);
  }

  tellCount() {
    const all = this.run.lines.length, some = this.matching.length;
    $("count").textContent = some === all ? `${all.toLocaleString("en")} lines` : `${some.toLocaleString("en")} of ${all.toLocaleString("en")} lines`;
  }

  /** Shows what is not drawn. */
  tellUndrawn(arrows) {
    const said = [];
    if (this.data.left_out) said.push(`${this.data.left_out.toLocaleString("en")} lines of the run are not on this page`);
    if (this.run.dropped) said.push(`the oldest ${this.run.dropped.toLocaleString("en")} lines were dropped`);
    if (this.run.unread) said.push(`${many(this.run.unread, "line")} could not be read`);
    if (this.data.lost) said.push(`${this.data.lost} lines were lost before they reached this page`);
    if (this.data.deaf) said.push(...this.data.deaf);
    if (arrows) said.push(`too many arrows here: ${arrows} not drawn`);
    if (this.data.torn && this.data.torn.length) said.push(`torn last line ignored: ${this.data.torn.join(", ")}`);
    $("undrawn").textContent = said.join("; ");
  }
}

function describeFilter({ req, slot, server }) {
  return [req && `request ${req}`, slot && `slot ${slot}`, server && `server ${server}`].filter(Boolean).join(" and ");
}

/** Connects keys, clicks and pointer moves. */
function listen(app) {
  $("first").onclick = () => app.goRow(0, true);
  $("back").onclick = () => app.goRow(app.cursor - 1, false);
  $("next").onclick = () => app.goRow(app.cursor + 1, false);
  $("play").onclick = () => app.play(!app.playing);
  $("speed").onchange = () => { if (app.playing) app.play(true); };
  $("by-order").onclick = () => app.setView(false);
  $("by-time").onclick = () => app.setView(true);
  $("clear").onclick = () => app.setFilter({});
  $("verdict").onclick = () => $("findings").showModal();
  $("help").onclick = () => $("about").showModal();
  $("theme").onclick = () => app.setTheme(document.documentElement.dataset.theme !== "dark");
  for (const name of ["now", "slots", "legend", "lab"]) $(`tab-${name}`).onclick = () => app.showTab(name);
  $("fold").onclick = () => app.fold(!document.body.classList.contains("folded"));
  const readFilter = () => {
    const slot = Number($("by-slot").value);
    $("by-slot").classList.toggle("wrong", $("by-slot").value !== "" && !(Number.isInteger(slot) && slot > 0));
    app.setFilter({ req: $("by-request").value || undefined, slot: Number.isInteger(slot) && slot > 0 ? slot : undefined,
      server: Number($("by-server").value) || undefined });
  };
  $("filter").onsubmit = (event) => event.preventDefault();
  $("filter").onchange = readFilter;
  addEventListener("hashchange", () => app.readAddress());
  pointing(app);
  addEventListener("keydown", (event) => onKey(app, event));
}

function pointing(app) {
  const run = $("run"), tip = $("tip");
  const rowUnder = (event) => {
    const box = run.getBoundingClientRect(), y = event.clientY - box.top + run.scrollTop - HEAD;
    if (event.clientY - box.top < HEAD || event.target.closest("button")) return -1;
    return app.diagram.rowUnder(y);
  };
  run.addEventListener("click", (event) => {
    const row = rowUnder(event);
    if (row >= 0) app.goRow(row, false);
  });
  let wait = 0;
  run.addEventListener("pointermove", (event) => {
    clearTimeout(wait);
    tip.hidden = true;
    if (event.pointerType === "touch") return;
    wait = setTimeout(() => {
      const row = rowUnder(event);
      if (row < 0) return;
      tip.textContent = app.shown[row].text;
      tip.hidden = false;
      const { width, height } = tip.getBoundingClientRect();
      tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - width - 10))}px`;
      tip.style.top = `${event.clientY + 22 + height > innerHeight ? event.clientY - height - 14 : event.clientY + 20}px`;
    }, 350);
  });
  for (const name of ["pointerleave", "scroll"]) run.addEventListener(name, () => { clearTimeout(wait); tip.hidden = true; });
}

function onKey(app, event) {
  const { key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
    if (key === "Escape") event.target.blur();
    return;
  }
  const onButton = event.target.tagName === "BUTTON";
  if (onButton && (key === " " || key === "Enter")) return;
  if (event.target.getAttribute && event.target.getAttribute("role") === "tab" && /^Arrow/.test(key)) {
    const names = app.tabs;
    const next = names[(names.indexOf(app.tab) + (key === "ArrowLeft" ? names.length - 1 : 1)) % names.length];
    app.showTab(next);
    $(`tab-${next}`).focus();
    event.preventDefault();
    return;
  }
  const page = Math.max(1, Math.floor($("run").clientHeight / ROW) - 3);
  const line = app.line();
  const acts = {
    ArrowRight: () => app.goRow(app.cursor + 1), ArrowDown: () => app.goRow(app.cursor + 1), j: () => app.goRow(app.cursor + 1),
    ArrowLeft: () => app.goRow(app.cursor - 1), ArrowUp: () => app.goRow(app.cursor - 1), k: () => app.goRow(app.cursor - 1),
    PageDown: () => app.goRow(app.cursor + page), PageUp: () => app.goRow(app.cursor - page),
    Home: () => app.goRow(0, true), End: () => app.goRow(app.shown.length - 1, true),
    " ": () => app.play(!app.playing), n: () => app.goTrouble(1), p: () => app.goTrouble(-1),
    c: () => { if (line && line.causes.length) app.go(line.causes[0].from); },
    r: () => { if (line && line.req) app.setFilter({ req: line.req }); },
    f: () => $("by-request").focus(), t: () => app.setView(!app.byTime), d: () => $("theme").click(),
    "+": () => app.setZoom(2), "=": () => app.setZoom(2), "-": () => app.setZoom(0.5), "?": () => $("about").showModal(),
    Escape: () => { app.play(false); app.setFilter({}); }, u: () => app.setUp.show(!app.setUp.open),
    ...(app.card ? app.card.keys() : {}),
  };
  if (!acts[key]) return;
  event.preventDefault();
  if (key !== " " && app.playing) app.play(false);
  acts[key]();
}

/** For tests, and for use in the browser's console. */
const TOOLS = { readLine, readText, filterRows };

/** The lines in the page: text, packed with deflate and encoded in base64. */
async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return (await new Response(stream).text()).split("\n").filter(Boolean);
}

async function start() {
  const data = JSON.parse($("data").textContent);
  document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const app = window.paxosTimeline = new App(data);
  app.tools = TOOLS;
  if (typeof DecompressionStream === "undefined") {
    $("nothing").hidden = false;
    $("nothing").textContent = "This browser is too old to unpack the lines of this page. Use a browser from 2023 or later.";
    return;
  }
  app.open(data.packed ? await unpack(data.packed) : []);
  if (data.live && typeof watch === "function") watch(app);
}

start().catch((error) => {
  $("nothing").hidden = false;
  $("nothing").textContent = `This page could not be drawn: ${error.message}`;
  throw error;
});
