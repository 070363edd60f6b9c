// The strip: the whole run in real time, from left to right. Requests are bars, higher is slower; below are the
// outages.

/** Space for the labels at the left, in pixels. */
const MARGIN = 44;

class Strip {
  constructor(app) {
    this.app = app;
    this.canvas = document.getElementById("strip");
    this.paper = null;
    new ResizeObserver(() => { this.paper = null; this.draw(); }).observe(this.canvas);
    const seek = (event) => {
      const { left, width } = this.canvas.getBoundingClientRect();
      app.goTime(this.from + (event.clientX - left - MARGIN) / (width - MARGIN) * (this.to - this.from));
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      seek(event);
    });
    this.canvas.addEventListener("pointermove", (event) => { if (event.buttons & 1) seek(event); });
  }

  /** The page's present colors. */
  colors() {
    const style = getComputedStyle(document.documentElement);
    const found = (name) => style.getPropertyValue(name).trim();
    return { ink: found("--ink"), dim: found("--dim"), rule: found("--rule"), hatch: found("--hatch"), bad: found("--bad"),
      warn: found("--warn"), glow: found("--glow"), servers: [0, 1, 2, 3, 4, 5, 6].map((n) => found(`--s${n}`)) };
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas, ratio = window.devicePixelRatio || 1;
    if (!width || !height) return;
    if (!this.paper) this.paint(width, height, ratio);
    const context = this.canvas.getContext("2d");
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    context.drawImage(this.paper, 0, 0);
    context.scale(ratio, ratio);
    const line = this.app.line();
    if (line) {
      const x = this.x(line.at, width);
      context.fillStyle = this.palette.ink;
      context.fillRect(x - 0.75, 4, 1.5, height - 8);
      context.beginPath();
      context.moveTo(x - 5, 2);
      context.lineTo(x + 5, 2);
      context.lineTo(x, 8);
      context.fill();
    }
  }

  x(at, width) {
    return MARGIN + (at - this.from) / Math.max(this.to - this.from, 1) * (width - MARGIN - 2);
  }

  /** Draws everything except the cursor, once. */
  paint(width, height, ratio) {
    const { run, wrong } = this.app;
    this.palette = this.colors();
    this.paper = document.createElement("canvas");
    this.paper.width = width * ratio;
    this.paper.height = height * ratio;
    const context = this.paper.getContext("2d");
    context.scale(ratio, ratio);
    const lines = run.lines;
    this.from = Infinity;
    this.to = -Infinity;
    for (const line of lines) {
      this.from = Math.min(this.from, line.at);
      this.to = Math.max(this.to, line.at);
    }
    if (!lines.length) this.from = this.to = 0;
    const members = [...run.cluster].sort((a, b) => a - b);
    const lane = Math.min(7, 34 / Math.max(members.length, 1)), foot = height - 4 - members.length * lane;
    this.outages(context, width, members, lane, foot);
    this.requests(context, width, foot - 6);
    context.fillStyle = this.palette.bad;
    for (const id of wrong.keys()) {
      const line = run.byId.get(id);
      if (line) context.fillRect(this.x(line.at, width) - 1, 0, 2, height);
    }
    context.font = "10px system-ui, sans-serif";
    context.fillStyle = this.palette.dim;
    context.textAlign = "right";
    context.fillText(spell(this.to - this.from), width - 2, 12);
  }

  outages(context, width, members, lane, foot) {
    const { run } = this.app, thin = lane / 3;
    const row = { proposer: 0, acceptor: 1, learner: 2, coordinator: 0, participant: 1 };
    members.forEach((number, n) => {
      context.fillStyle = this.palette.servers[hueOf(number)];
      context.globalAlpha = 0.28;
      context.fillRect(MARGIN, foot + n * lane + lane / 2 - 0.5, width, 1);
    });
    context.globalAlpha = 1;
    for (const outage of run.derive().outages) {
      const n = members.indexOf(outage.server);
      const x1 = this.x(outage.from.at, width), x2 = outage.to ? this.x(outage.to.at, width) : width;
      context.fillStyle = this.palette.servers[hueOf(outage.server)];
      context.globalAlpha = outage.told ? 0.75 : 0.35;
      const top = foot + n * lane;
      if (outage.role) context.fillRect(x1, top + row[outage.role] * thin, Math.max(x2 - x1, 1.5), Math.max(thin - 0.3, 1));
      else context.fillRect(x1, top, Math.max(x2 - x1, 1.5), lane - 0.6);
      // The same band, faintly, behind the requests: it shows which requests were slow during an outage.
      context.fillStyle = this.palette.hatch;
      context.globalAlpha = 0.09;
      context.fillRect(x1, 4, x2 - x1, foot - 8);
      context.globalAlpha = 1;
    }
  }

  /** Bars of requests, on a logarithmic scale: 0.1 ms at the bottom, 10 s at the top. */
  requests(context, width, height) {
    const decades = 5, unit = (height - 6) / decades;
    context.font = "9px system-ui, sans-serif";
    context.textAlign = "right";
    for (let n = 1; n < decades; n++) {
      const y = height - n * unit;
      context.fillStyle = this.palette.rule;
      context.fillRect(MARGIN, y, width, 1);
      context.fillStyle = this.palette.dim;
      if (n % 2 === 1 && (unit > 6 || n === 1)) context.fillText(["", "1 ms", "", "100 ms", "", ""][n], MARGIN - 6, y + 3);
    }
    // Only the highest bar of a pixel is visible.
    const highest = new Map();
    for (const { request, reply } of this.app.run.derive().exchanges) {
      const took = (reply ? reply.at : this.to) - request.at;
      const x = Math.round(this.x(request.at, width));
      const bar = Math.max(2, Math.min(decades, Math.log10(Math.max(took, 100) / 100)) * unit);
      const done = reply && reply.name === "RESPONSE" && /^(OK|NOTFOUND|MISMATCH)$/.test(reply.fields.status);
      const known = highest.get(x);
      if (!known || known.bar < bar || (known.done && !done)) highest.set(x, { bar, done: Boolean(done) });
    }
    for (const [x, { bar, done }] of highest) {
      context.fillStyle = context.strokeStyle = done ? this.palette.ink : this.palette.warn;
      context.globalAlpha = done ? 0.65 : 1;
      if (done) context.fillRect(x, height - bar, 2, bar);
      else context.strokeRect(x - 1, height - bar, 4, bar);
    }
    context.globalAlpha = 1;
  }
}
