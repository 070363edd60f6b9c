// The space-time diagram: columns are roles, time runs down. Only the part near the window is drawn.

const ROW = 26, GAP = 20, GAP_FROM = 20000, HEAD = 44;
/** Height of a further line of a sentence. */
const WRAP = 17;
/** Distances between the columns: the room at the left, between roles, and between servers. On a narrow screen the sentence
 * of a row stands below its marks. */
const WIDE = { left: 84, pitch: 17, space: 9 }, NARROW = { left: 8, pitch: 14, space: 5 }, NARROW_BELOW = 700;
/** Height of a millisecond in the view by time, in pixels, before any zoom. */
const MILLI = 60;
/** Maximum height in pixels: browsers cannot scroll much further. */
const TALL_MAX = 8000000;
/** Maximum number of arrows drawn in a window; the page shows how many are left out. */
const ARROWS_MAX = 1500;
/** Maximum number of clients with their own column; the others share the last one. */
const CLIENT_LANES = 4;

const ROLE_LETTERS = { server: "S", proposer: "P", acceptor: "A", learner: "L", coordinator: "C", participant: "T" };
const ROLE_NAMES = { server: "server", proposer: "proposer", acceptor: "acceptor", learner: "learner",
  coordinator: "coordinator", participant: "participant" };

/** The lanes of processes and roles: a list from left to right, and a way to find one. */
function layLanes(run, { left, pitch, space }) {
  const others = new Map(), roles = new Set();
  for (const line of run.lines) {
    if (line.server) roles.add(line.role);
    else others.set(line.process, (others.get(line.process) || 0) + 1);
    // A remote client has no lines here, but servers name it.
    const asker = !line.server || line.name !== "REQUEST" || !line.re ? null : line.re.slice(0, line.re.lastIndexOf("."));
    if (asker && !others.has(asker)) others.set(asker, 0);
  }
  if (!roles.has("coordinator")) for (const role of ["proposer", "acceptor", "learner"]) roles.add(role);
  const clients = [...others.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const lanes = [], find = new Map();
  let x = left + pitch / 2;
  clients.forEach((name, n) => {
    if (n < CLIENT_LANES) {
      lanes.push({ x, key: name, client: name, shared: 0 });
      x += pitch + 4;
    } else lanes[lanes.length - 1].shared++;
    find.set(name, lanes[lanes.length - 1].x);
  });
  if (clients.length) x += space;
  const groups = [];
  const order = ["server", "proposer", "coordinator", "acceptor", "participant", "learner"].filter((role) => role === "server" || roles.has(role));
  for (const number of [...run.cluster].sort((a, b) => a - b)) {
    const from = x - pitch / 2 - 2;
    for (const role of order) {
      lanes.push({ x, key: `${number} ${role}`, server: number, role });
      find.set(`${number} ${role}`, x);
      x += pitch;
    }
    groups.push({ server: number, from, to: x - pitch / 2 + 2 });
    x += space;
  }
  return { lanes, groups, find, end: x };
}

class Diagram {
  constructor(app) {
    this.app = app;
    this.box = document.getElementById("run");
    this.sheet = document.getElementById("sheet");
    this.window = document.getElementById("window");
    this.head = document.getElementById("lanes");
    this.drawn = null;
    this.hidden = 0;
    this.box.addEventListener("scroll", () => this.onScroll(), { passive: true });
    new ResizeObserver(() => {
      if (this.ys && this.box.clientWidth !== this.width) {
        this.layout();
        this.reveal(app.cursor, true);
      } else this.draw();
    }).observe(this.box);
  }

  onScroll() {
    const { scrollTop: top, clientHeight: height } = this.box;
    if (!this.drawn || top < this.drawn.safeTop || top + height > this.drawn.safeEnd) this.draw();
  }

  /** Gives every shown line its vertical position. */
  layout() {
    const { run, shown, byTime } = this.app;
    this.width = this.box.clientWidth;
    this.narrow = this.width > 0 && this.width < NARROW_BELOW;
    this.box.classList.toggle("narrow", this.narrow);
    this.box.classList.toggle("by-time", byTime);
    this.places = layLanes(run, this.narrow ? NARROW : WIDE);
    const tell = this.narrow ? 10 : this.places.end + 4;
    const room = Math.max(this.width - tell - 16, this.narrow ? 200 : 240);
    for (const line of run.lines) line.shown = -1;
    const ys = this.ys = new Float64Array(shown.length), tops = this.tops = new Float64Array(shown.length + 1);
    const from = shown.length ? shown[0].at : 0;
    let y = 6 + (this.app.setUp.count ? ROW : 0);
    const begin = y;
    shown.forEach((line, n) => {
      line.shown = n;
      if (byTime) {
        ys[n] = Math.max(n ? ys[n - 1] : 0, begin + ROW / 2 + (line.at - from) / 1000 * this.scale());
        tops[n] = ys[n] - ROW / 2;
        y = ys[n] + ROW / 2;
        return;
      }
      if (n && line.at - shown[n - 1].at >= GAP_FROM) y += GAP;
      tops[n] = y;
      ys[n] = y + ROW / 2;
      y += this.rowHeight(line, room);
    });
    tops[shown.length] = y;
    this.height = y + ROW / 2;
    this.sheet.style.height = `${this.height}px`;
    this.box.style.setProperty("--tell", `${tell}px`);
    this.sheet.style.minWidth = this.head.style.minWidth = this.narrow ? "0" : `${tell + 240}px`;
    this.drawHead();
    this.draw();
  }

  /** The height of a row, with room for its whole sentence. */
  rowHeight(line, room) {
    const lines = linesOf(line, this.app.run.cluster.size, room);
    return this.narrow ? ROW + lines * WRAP + 3 : ROW + (lines - 1) * WRAP;
  }

  /** The row at this vertical position, or -1. */
  rowUnder(y) {
    if (this.app.byTime) {
      const row = this.nearest(y);
      return row >= 0 && Math.abs(this.ys[row] - y) < 40 ? row : -1;
    }
    let low = 0, high = this.ys.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.tops[middle + 1] <= y) low = middle + 1;
      else high = middle;
    }
    return low < this.ys.length && y >= this.tops[low] - GAP ? low : -1;
  }

  /** The number of rows that are revealed: in a lesson the later ones wait until the reader gets there. */
  revealed() {
    const { shown, seen } = this.app;
    let low = 0, high = shown.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (shown[middle].row <= seen) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Pixels for each millisecond. */
  scale() {
    const { shown, zoom } = this.app;
    if (!shown.length) return 1;
    const millis = Math.max((shown[shown.length - 1].at - shown[0].at) / 1000, 1);
    return Math.min(MILLI * zoom, TALL_MAX / millis);
  }

  x(line) {
    return this.places.find.get(line.server ? `${line.server} ${line.role}` : line.process) ?? 0;
  }

  /** The first shown line at or below a vertical position. */
  rowAt(y) {
    let low = 0, high = this.ys.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.ys[middle] < y) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The shown line nearest to a vertical position, or -1. */
  nearest(y) {
    const row = this.rowAt(y);
    if (!this.ys.length) return -1;
    if (row === this.ys.length) return row - 1;
    return row > 0 && y - this.ys[row - 1] < this.ys[row] - y ? row - 1 : row;
  }

  /** The vertical position of a line's time, even if the line is not shown. */
  yOf(line) {
    if (line.shown >= 0) return this.ys[line.shown];
    const { shown } = this.app;
    let low = 0, high = shown.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (shown[middle].row < line.row) low = middle + 1;
      else high = middle;
    }
    return low < shown.length ? this.ys[low] - ROW / 2 : this.height - 2;
  }

  drawHead() {
    const state = this.app.state();
    const parts = document.createDocumentFragment();
    const put = (className, left, width, text, title) => {
      const span = document.createElement("span");
      span.className = className;
      span.style.left = `${left}px`;
      if (width) span.style.width = `${width}px`;
      span.textContent = text;
      if (title) span.title = title;
      parts.append(span);
      return span;
    };
    const short = this.narrow ? "s" : "server ";
    for (const lane of this.places.lanes) {
      if (lane.client) put("name", lane.x - 14, 28, lane.shared ? `${lane.client}\u2026` : lane.client,
        lane.shared ? `${lane.client} and ${lane.shared} more processes share this column` : lane.client).style.setProperty("--hue", "var(--dim)");
      else {
        const down = state.get(lane.server);
        const off = down && (!down.up || down.down.has(lane.role));
        put(off ? "role off" : "role", lane.x - 8, 16, ROLE_LETTERS[lane.role], `s${lane.server} ${ROLE_NAMES[lane.role]}${off ? ", down" : ""}`);
      }
    }
    for (const group of this.places.groups) {
      const known = state.get(group.server);
      const off = known && !known.up;
      put(off ? "name off" : "name", group.from, group.to - group.from, `${short}${group.server}`).style.setProperty("--hue", `var(--s${hueOf(group.server)})`);
    }
    if (!this.narrow) put("says", this.places.end + 4, 0, "what happened, and why");
    patch(this.head, parts);
  }

  draw() {
    if (!this.ys) return;
    const { clientHeight } = this.box;
    // When fewer lines are shown than before, the scroll position may still be beyond the new end.
    const scrollTop = Math.min(this.box.scrollTop, Math.max(0, this.height + HEAD - clientHeight));
    const reach = Math.max(clientHeight, 400);
    const top = Math.max(0, scrollTop - reach), end = scrollTop + clientHeight + reach;
    const revealed = this.revealed(), isAll = revealed === this.ys.length;
    const from = Math.min(this.rowAt(top - 200), revealed), to = Math.min(this.rowAt(end), revealed);
    // Nothing is drawn below the last revealed row.
    const last = isAll ? this.height : this.tops[revealed] ?? 0;
    this.drawn = { top, safeTop: top && scrollTop - reach / 2, safeEnd: scrollTop + clientHeight + reach / 2 };
    this.window.style.top = `${top}px`;
    const height = Math.max(Math.min(end, last) - top, 1);
    const svg = `<svg width="${this.places.end}" height="${height}" aria-hidden="true"><defs><pattern id="hatch" width="6" height="6" `
      + `patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect class="hatch-back" width="6" height="6"/>`
      + `<path class="hatch-line" d="M0 0V6"/></pattern></defs>${this.columns(height)}${this.bands(top, Math.min(end, last))}${this.walls(top, Math.min(end, last))}`
      + `${drawShared(this, top)}${this.arrows(from, to, top)}${this.losses(from, to, top)}${this.marks(from, to, top)}</svg>`;
    // This text contains only numbers and words of this script; text from clients is inserted as text nodes below.
    const holder = document.createElement("div");
    holder.innerHTML = svg;
    patch(this.window, ...this.rows(from, to, top, end), holder.firstChild, ...(isAll ? [] : [this.veil(last - top)]));
    this.app.tellUndrawn(this.hidden);
  }

  columns(height) {
    const groups = this.places.groups.map((group) =>
      `<rect class="column" style="--hue:var(--s${hueOf(group.server)})" x="${group.from}" y="0" width="${group.to - group.from}" height="${height}"/>`);
    const threads = this.places.lanes.map((lane) => `<path class="thread" d="M${lane.x} 0V${height}"/>`);
    return groups.join("") + threads.join("");
  }

  bands(top, end) {
    const drawn = [];
    for (const outage of this.app.run.derive().outages) {
      if (!this.app.isRevealed(outage.from)) continue;
      const y1 = this.yOf(outage.from), y2 = Math.min(end, outage.to ? this.yOf(outage.to) : this.height);
      // Between two shown lines there may be no room for an outage between hidden ones.
      if (y2 < top || y1 > end || y2 - y1 < 3) continue;
      const lanes = this.places.lanes.filter((lane) => lane.server === outage.server && (!outage.role || lane.role === outage.role));
      const y = Math.max(y1, top - 20), height = y2 - y;
      for (const lane of lanes) {
        drawn.push(`<rect class="band${outage.told ? "" : " unsure"}" x="${lane.x - 7}" y="${(y - top).toFixed(1)}" width="14" height="${Math.max(height, 1).toFixed(1)}"/>`);
      }
    }
    return drawn.join("");
  }

  /** Walls between columns, while no message can pass there. */
  walls(top, end) {
    const drawn = [];
    for (const { right, from, to } of this.app.run.derive().walls) {
      const y1 = this.yOf(from), y2 = to ? this.yOf(to) : this.height;
      const at = this.places.groups.findIndex((group) => group.server === right);
      if (at < 1 || y2 < top || y1 > end || y2 - y1 < 3) continue;
      const x = (this.places.groups[at - 1].to + this.places.groups[at].from) / 2;
      drawn.push(`<path class="wall" d="M${x} ${(Math.max(y1, top - 20) - top).toFixed(1)}V${(Math.min(y2, end) - top).toFixed(1)}"/>`);
    }
    return drawn.join("");
  }

  /** Messages of these rows that the network lost: a broken line that ends in a cross, at the wall if there is one. */
  losses(from, to, top) {
    const drawn = [];
    for (let row = from; row < to; row++) {
      const line = this.app.shown[row], x1 = this.x(line), y = this.ys[row] - top;
      const ends = new Set();
      for (const drop of line.lost || []) {
        for (const server of readServers(drop.fields.to)) ends.add(this.lossEnd(line, server, RECEIVER[readText(drop.fields.msg)]));
      }
      for (const x2 of ends) {
        const way = Math.sign(x2 - x1) || 1;
        drawn.push(`<path class="stray" style="--hue:var(--s${lineHue(line)})" d="M${x1 + 7 * way} ${y + 1}L${x2} ${y + 9}"/>`
          + `<path class="cross" transform="translate(${x2} ${y + 9})" d="${SHAPES.cross(3.6)}"/>`);
      }
    }
    return `<g class="losses">${drawn.join("")}</g>`;
  }

  /** Where a lost message ends: at the first wall on its way, or just before the column of its receiver. */
  lossEnd(line, server, role) {
    const { groups, find } = this.places, x1 = this.x(line);
    const target = find.get(`${server} ${role}`) ?? groups.find((group) => group.server === server)?.from ?? x1;
    const way = Math.sign(target - x1);
    const stands = this.app.run.derive().walls.filter(({ from, to }) => from.row <= line.row + 1 && (!to || to.row > line.row));
    const xs = stands.map(({ right }) => groups.findIndex((group) => group.server === right)).filter((at) => at > 0)
      .map((at) => (groups[at - 1].to + groups[at].from) / 2).filter((x) => (x - x1) * way > 0 && (target - x) * way > 0);
    return xs.length ? xs.reduce((a, b) => (Math.abs(a - x1) < Math.abs(b - x1) ? a : b)) : target - 9 * way;
  }

  /** Arrows that start or end in these rows. */
  arrows(from, to, top) {
    const { cursor, shown } = this.app;
    const chosen = shown[cursor];
    const usual = new Map(), hot = new Map();
    let count = 0;
    this.hidden = 0;
    const add = (edge) => {
      if (edge.from.shown < 0 || edge.to.shown < 0 || !this.app.isRevealed(edge.from) || !this.app.isRevealed(edge.to)) return;
      const isHot = edge.from === chosen || edge.to === chosen;
      if (edge.kind === WITHIN || (edge.kind === BASIS && !isHot)) return;
      if (++count > ARROWS_MAX && !isHot) {
        this.hidden++;
        return;
      }
      const style = edgeStyle(edge);
      const into = isHot ? hot : usual;
      if (!into.has(style.key)) into.set(style.key, { style, shafts: [], heads: [] });
      this.arrow(edge, top, into.get(style.key));
    };
    for (let row = from; row < to; row++) {
      for (const edge of shown[row].causes) add(edge);
      for (const edge of shown[row].effects) if (edge.to.shown >= to || edge.to.shown < from) add(edge);
    }
    for (let row = from; row < to; row++) this.ghost(shown[row], top, usual);
    const paint = (groups, className) => `<g class="${className}">` + [...groups.values()].map(({ style, shafts, heads }) =>
      `<path class="shaft" style="--hue:var(--s${style.hue})" stroke-width="${style.width}"${style.dash} d="${shafts.join("")}"/>`
      + `<path class="head" style="--hue:var(--s${style.hue})" d="${heads.join("")}"/>`).join("") + "</g>";
    return paint(usual, "arrows") + paint(hot, "arrows hot");
  }

  /** A remote client has no lines here; it is drawn from the server's lines about it. */
  ghost(line, top, into) {
    if (!/^RE(QUEST|SPONSE)$/.test(line.name) || !line.server || !line.req) return;
    const x = this.places.find.get(line.req.slice(0, line.req.lastIndexOf("-"))), at = this.x(line);
    const isHeard = line.name === "REQUEST" ? line.causes.length : line.effects.length;
    if (x === undefined || isHeard) return;
    const key = "ghost", y = this.ys[line.shown] - top;
    if (!into.has(key)) into.set(key, { style: { hue: 0, width: 1.1, dash: ' stroke-dasharray="2 3"' }, shafts: [], heads: [] });
    const { shafts, heads } = into.get(key);
    const [x1, x2, y1, y2] = line.name === "REQUEST" ? [x, at - 7, y - 5, y] : [at - 7, x + 4, y, y + 5];
    const way = Math.sign(x2 - x1);
    shafts.push(`M${x1} ${y1}L${x2} ${y2}`);
    heads.push(`M${x2} ${y2}L${x2 - 5 * way} ${y2 - 2.6}L${x2 - 5 * way} ${y2 + 2.6}Z`);
  }

  arrow(edge, top, into) {
    const x1 = this.x(edge.from), y1 = this.ys[edge.from.shown] - top, x2 = this.x(edge.to), y2 = this.ys[edge.to.shown] - top;
    const length = Math.hypot(x2 - x1, y2 - y1) || 1;
    const dx = (x2 - x1) / length, dy = (y2 - y1) / length;
    const [startX, startY, endX, endY] = [x1 + dx * 7, y1 + dy * 7, x2 - dx * 7.5, y2 - dy * 7.5].map((n) => n.toFixed(1));
    into.shafts.push(`M${startX} ${startY}L${endX} ${endY}`);
    const head = (along, across) => `${(x2 - dx * along - dy * across).toFixed(1)} ${(y2 - dy * along + dx * across).toFixed(1)}`;
    if (edge.from.name === "NACK") into.heads.push(`M${head(6.5, 4)}L${head(6.5, -4)}L${head(8, -4)}L${head(8, 4)}Z`);
    else if (edge.to.name !== "DROP") into.heads.push(`M${head(6.2, 0)}L${head(11.5, 2.7)}L${head(11.5, -2.7)}Z`);
  }

  marks(from, to, top) {
    const { cursor, shown } = this.app;
    const drawn = [];
    const chosen = shown[cursor];
    const around = new Set(chosen ? chosen.causes.filter((edge) => edge.kind !== WITHIN).map((edge) => edge.from) : []);
    for (let row = from; row < to; row++) {
      const line = shown[row], x = this.x(line), y = (this.ys[row] - top).toFixed(1);
      drawn.push(drawMark(line, x, y));
      if (line === chosen) drawn.push(`<circle class="ring" cx="${x}" cy="${y}" r="10"/>`);
      else if (around.has(line)) drawn.push(`<circle class="ring" cx="${x}" cy="${y}" r="9" stroke-dasharray="2 2.5"/>`);
    }
    return `<g class="marks">${drawn.join("")}</g>`;
  }

  /** The sentences, as elements. Where lines are too close together in the view by time, the later ones are counted. */
  rows(from, to, top, end) {
    const { shown, cursor, run, byTime, wrong } = this.app;
    const chosen = shown[cursor];
    const basis = new Set(chosen ? chosen.causes.filter((edge) => edge.kind !== WITHIN).map((edge) => edge.from) : []);
    const drawn = [], reach = this.box.clientHeight / 2;
    if (byTime && to < shown.length && to > 0 && this.ys[to] - this.ys[to - 1] > reach) drawn.push(...this.silence(to, top, end));
    let last = -Infinity, untold = 0, lastRow = null;
    const tellUntold = () => {
      if (lastRow && untold) lastRow.lastChild.append(Object.assign(document.createElement("span"), { className: "more", textContent: `and ${untold} more lines` }));
      untold = lastRow ? 0 : untold;
    };
    for (let row = from; row < to; row++) {
      const line = shown[row], y = this.ys[row];
      if (!byTime && row > 0 && line.at - shown[row - 1].at >= GAP_FROM) drawn.push(this.gap(line.at - shown[row - 1].at, y - top));
      if (byTime && y - last < 19 && line !== chosen) {
        untold++;
        continue;
      }
      if (byTime && y - last < 19 && lastRow) {
        drawn.splice(drawn.indexOf(lastRow), 1);
        untold++;
        lastRow = null;
      }
      tellUntold();
      if (byTime && row > 0 && y - this.ys[row - 1] > reach) drawn.push(...this.silence(row, top, end));
      last = y;
      const element = document.createElement("div");
      element.className = `line ${loudness(line)}${line === chosen ? " here" : basis.has(line) ? " basis" : ""}${wrong.has(line.id) ? " wrong" : ""}`;
      element.style.top = `${y - top - ROW / 2}px`;
      if (!byTime) element.style.height = `${this.tops[row + 1] - this.tops[row] - (row + 1 < shown.length && shown[row + 1].at - line.at >= GAP_FROM ? GAP : 0)}px`;
      element.dataset.row = row;
      element.dataset.key = line.id;
      const when = document.createElement("span");
      when.className = "when";
      when.textContent = relative(line.at - run.start);
      const tell = document.createElement("span");
      tell.className = "tell";
      tell.append(dressed(sentence(line, run.cluster.size)));
      element.append(when, tell);
      drawn.push(element);
      lastRow = element;
    }
    tellUntold();
    return drawn;
  }

  /** A label for a time without lines, placed inside the visible part. */
  silence(row, top, end) {
    const { shown } = this.app, y1 = this.ys[row - 1] + 40, y2 = this.ys[row] - 40;
    const middle = this.box.scrollTop + this.box.clientHeight * 0.4;
    const y = Math.max(y1, Math.min(middle, y2));
    if (y < top || y > end) return [];
    const element = document.createElement("div");
    element.className = "silence";
    element.style.top = `${y - top}px`;
    element.textContent = `nothing happens for ${spell(shown[row].at - shown[row - 1].at)}`;
    return [element];
  }

  /** What stands below the last revealed row of a lesson. */
  veil(y) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "veil";
    button.style.top = `${y}px`;
    button.textContent = "The rest is hidden until you get there. Show all";
    button.addEventListener("click", () => {
      this.app.unveil(this.app.run.lines[this.app.run.lines.length - 1]);
      this.draw();
    });
    return button;
  }

  gap(micros, y) {
    const element = document.createElement("div");
    element.className = "gap";
    element.style.top = `${y - ROW / 2 - GAP}px`;
    element.style.width = `${this.places.end - 4}px`;
    element.append(Object.assign(document.createElement("span"), { textContent: `\u22ee ${spell(micros)}` }));
    return element;
  }

  /** Scrolls a shown line into view. */
  reveal(row, centre) {
    if (row < 0 || row >= this.ys.length) return;
    const { scrollTop, clientHeight } = this.box;
    const y = this.ys[row], margin = ROW * 3, above = HEAD;
    if (centre || y < scrollTop + margin || y > scrollTop + clientHeight - above - margin) {
      this.box.scrollTop = Math.max(0, y - (clientHeight - above) * (centre ? 0.4 : y < scrollTop + margin ? 0.3 : 0.6));
    }
  }
}

/** The style of an arrow: the second phase is heavier, refused or lost messages are broken, clients have no color. */
function edgeStyle({ from, to }) {
  const hue = lineHue(to.name === "DROP" ? from : from.fields.ballot ? from : to.fields.ballot && from.role !== "client" ? to : from);
  const heavy = from.name === "ACCEPT" || from.name === "ACCEPTED";
  const broken = from.name === "NACK" || to.name === "DROP";
  const width = heavy ? 1.7 : 1.1;
  return { hue, width, dash: broken ? ' stroke-dasharray="4 3"' : from.name === "CHOSEN" ? ' stroke-dasharray="1 2.5"' : "",
    key: `${hue} ${width} ${broken} ${from.name === "CHOSEN"}` };
}

/** The number of lines that a sentence takes in a column of this width. The browser would tell exactly, but not for a
 * hundred thousand rows at once. */
function linesOf(line, clusterSize, room) {
  if (line.room === room) return line.lines;
  const isBold = /key|error/.test(loudness(line));
  let count = 1, x = 0;
  const put = (width) => {
    if (x > 0 && x + width > room) {
      count++;
      x = 0;
    }
    x += width;
  };
  for (const part of sentence(line, clusterSize)) {
    const text = typeof part === "string" ? part : part.why !== undefined ? ` \u2014 ${part.why}` : plain([part]);
    // Bold and slanted words are wider, and ballots and values have a frame.
    const weight = isBold || part.server !== undefined ? 1.1 : part.why !== undefined ? 1.08 : 1.03;
    if (part.ballot !== undefined) put(widthOf(text) + 10);
    else for (const word of text.split(/(?<= )/)) put(widthOf(word) * weight + (part.value !== undefined ? 9 : 0));
  }
  line.room = room;
  line.lines = count;
  return count;
}

/** The width of a word in pixels. */
function widthOf(word) {
  let width = WORD_WIDTHS.get(word);
  if (width === undefined) {
    if (!ruler) {
      ruler = document.createElement("canvas").getContext("2d");
      ruler.font = `13px ${getComputedStyle(document.body).fontFamily}`;
    }
    if (WORD_WIDTHS.size > 50000) WORD_WIDTHS.clear();
    width = ruler.measureText(word).width;
    WORD_WIDTHS.set(word, width);
  }
  return width;
}
const WORD_WIDTHS = new Map();
let ruler = null;

function loudness(line) {
  if (line.level === "ERROR") return "error";
  if (line.name === "CHOSEN") return "key";
  if (line.level === "WARN" && line.name !== "DROP") return "warn";
  return line.name === "REQUEST" || line.name === "RESPONSE" || line.name === "ACCEPT" || line.name === "RESTART" ? "" : "soft";
}

/** Time since the first line: 3.214567. */
function relative(micros) {
  return (micros / 1e6).toFixed(micros < 1e9 ? 6 : 3);
}

/** 1.2 s, 35 ms. */
function spell(micros) {
  return micros >= 1e6 ? `${(micros / 1e6).toFixed(1)} s` : micros >= 1000 ? `${(micros / 1000).toFixed(micros >= 10000 ? 0 : 1)} ms` : `${Math.round(micros)} \u00b5s`;
}
