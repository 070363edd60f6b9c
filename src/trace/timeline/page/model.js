// Facts that several lines state together: which message caused which line, which roles were down when, and the state
// of each role.

/** Kinds of edges between lines. A message is drawn always, a basis only at the chosen line, an edge within a role
 * never. */
const MESSAGE = "message", WITHIN = "within", BASIS = "basis";

/** Maximum number of lines kept while a run is watched live; the oldest are dropped first. */
const LIVE_MAX = 60000;
/** Interval, in lines, at which the state of all roles is stored; states in between are computed from there. */
const STATE_EVERY = 256;

class Run {
  constructor() {
    this.lines = [];
    this.byId = new Map();
    this.dropped = 0;
    this.unread = 0;
    this.origin = null;
    this.start = 0;
    this.cluster = new Set();
    this.tables();
  }

  tables() {
    this.last = new Map();        // process -> its last line
    this.answers = new Map();     // PROMISE, ACCEPTED, NACK by request and sender
    this.firstAccept = new Map(); // ballot -> its first ACCEPT
    this.proposals = new Map();   // slot and ballot -> its ACCEPT; transaction -> its VOTEREQ
    this.accepted = new Map();    // slot -> its ACCEPTED lines
    this.waiting = new Map();     // id -> earlier lines that name it
    this.wanted = new Map();      // reply -> earlier lines that count it
    this.states = [];
    this.derived = null;
  }

  /** Adds lines in any order. */
  add(texts) {
    const fresh = [];
    for (const text of texts) {
      const line = readLine(text);
      if (!line) this.unread++;
      else if (!this.byId.has(line.id)) {
        line.key = null;
        line.causes = [];
        line.effects = [];
        line.lost = line.beside = null;
        this.byId.set(line.id, line);
        fresh.push(line);
      }
    }
    if (!fresh.length) return fresh;
    if (this.origin === null) this.origin = fresh.reduce((least, line) => Math.min(least, line.time), Infinity);
    for (const line of fresh) {
      line.at = line.time - this.origin;
      this.start = Math.min(this.start, line.at);
    }
    fresh.sort((a, b) => a.at - b.at || a.n - b.n);
    for (const line of fresh) this.index(line);
    for (const line of fresh) this.join(line);
    for (const line of fresh) this.place(line);
    for (const line of fresh) this.lines.push(line);
    this.lines.sort((a, b) => a.key - b.key || a.n - b.n || (a.process < b.process ? -1 : 1));
    this.renumber();
    return fresh;
  }

  renumber() {
    this.lines.forEach((line, row) => { line.row = row; });
    this.states = [];
    this.derived = null;
  }

  /** Drops the oldest lines of a long live run. */
  trim() {
    if (this.lines.length <= LIVE_MAX) return;
    const old = this.lines.splice(0, this.lines.length - LIVE_MAX);
    this.dropped += old.length;
    const gone = new Set(old);
    for (const line of old) this.byId.delete(line.id);
    for (const line of this.lines) {
      if (line.causes.some((cause) => gone.has(cause.from))) {
        line.causes = line.causes.filter((cause) => !gone.has(cause.from));
      }
    }
    for (const [key, line] of this.proposals) if (gone.has(line)) this.proposals.delete(key);
    for (const [slot, lines] of this.accepted) {
      const kept = lines.filter((line) => !gone.has(line));
      if (kept.length) this.accepted.set(slot, kept);
      else this.accepted.delete(slot);
    }
    for (const answers of this.answers.values()) {
      while (answers.length && gone.has(answers[0])) answers.shift();
    }
    for (const [key, answers] of this.answers) if (!answers.length) this.answers.delete(key);
    this.base = stateAfter(this.base, old);
    this.renumber();
  }

  index(line) {
    const { name, fields, server } = line;
    if (name === "PROMISE") this.answer(`P ${fields.ballot} ${server}`, line);
    else if (name === "NACK") this.answer(`N ${fields.ballot} ${server}`, line);
    else if (name === "ACCEPTED") {
      this.answer(`A ${fields.slot} ${fields.ballot} ${server}`, line);
      const known = this.accepted.get(fields.slot);
      if (known) known.push(line);
      else this.accepted.set(fields.slot, [line]);
    } else if (name === "VOTEREQ") this.proposals.set(fields.tx, line);
    else if (name === "ACCEPT") {
      this.proposals.set(`${fields.slot} ${fields.ballot}`, line);
      const first = this.firstAccept.get(fields.ballot);
      if (!first || line.n < first.n) this.firstAccept.set(fields.ballot, line);
    } else if (name === "VOTE") this.answer(`V ${fields.tx} ${server}`, line);
    else if (name === "ACK") this.answer(`K ${fields.tx} ${server}`, line);
    else if (name === "BOOT") readServers(fields.cluster).forEach((member) => this.cluster.add(member));
    if (line.server) this.cluster.add(line.server);
  }

  answer(key, line) {
    const known = this.answers.get(key);
    if (known) known.push(line);
    else this.answers.set(key, [line]);
    for (const [late, kind] of this.wanted.get(key) || []) this.link(line, late, kind);
    this.wanted.delete(key);
  }

  join(line) {
    line.proposal = this.proposalOf(line);
    if (line.re) {
      const cause = this.byId.get(line.re);
      if (cause) this.follow(cause, line);
      else this.wait(line.re, line);
    }
    for (const late of this.waiting.get(line.id) || []) this.follow(line, late);
    this.waiting.delete(line.id);
    const { name, fields } = line;
    if (name === "ACCEPT" || name === "LEAD") {
      // A PROMISE serves every slot of its ballot, so its arrow ends at the first proposal only.
      const kind = name === "ACCEPT" && this.firstAccept.get(fields.ballot) !== line ? BASIS : MESSAGE;
      for (const server of readServers(fields.quorum)) this.joinAnswer(`P ${fields.ballot} ${server}`, line, kind);
    } else if (name === "CHOSEN") {
      for (const server of readServers(fields.quorum)) {
        this.joinAnswer(`A ${fields.slot} ${fields.ballot} ${server}`, line, MESSAGE);
      }
    } else if (name === "DECIDE" && fields.reason === "first") {
      for (const server of [...readServers(fields.yes), ...(fields.no ? [readServer(fields.no)] : [])]) {
        this.joinAnswer(`V ${fields.tx} ${server}`, line, MESSAGE);
      }
    } else if (name === "RETRY") {
      for (const server of readNacks(fields.nack)) this.joinAnswer(`N ${fields.ballot} ${server}`, line, MESSAGE);
    }
  }

  /** The line that proposed what this line is about. */
  proposalOf({ name, fields }) {
    if (name === "ACCEPTED" || name === "CHOSEN") return this.proposals.get(`${fields.slot} ${fields.ballot}`) || null;
    if (name === "VOTE" || name === "DECIDE" || name === "ABORTED") return this.proposals.get(fields.tx) || null;
    if (name === "PROMISE" && fields.accepted !== "none" && !fields.accepted.includes(",")) {
      return this.proposals.get(fields.accepted.replace("@", " ")) || null;
    }
    return null;
  }

  /** Joins a line to the line that it names as its cause. A message that the network lost belongs to its sending. */
  follow(cause, line) {
    if (line.name === "DROP" && line.fields.to !== undefined) {
      line.beside = cause;
      (cause.lost = cause.lost || []).push(line);
      return;
    }
    // One message carries the proposals of several slots: each acceptance belongs to the proposal of its own slot.
    const own = line.name === "ACCEPTED" && cause.name === "ACCEPT" && line.proposal;
    this.link(own && own.fields.ballot === cause.fields.ballot ? own : cause, line);
  }

  wait(id, line) {
    const known = this.waiting.get(id);
    if (known) known.push(line);
    else this.waiting.set(id, [line]);
  }

  /** Joins the last reply given before this line, or else the first. */
  joinAnswer(key, line, kind) {
    const answers = this.answers.get(key);
    if (!answers) {
      this.wanted.set(key, [...this.wanted.get(key) || [], [line, kind]]);
      return;
    }
    let best = answers[0];
    for (const answer of answers) if (answer.at <= line.at && answer.at >= best.at) best = answer;
    this.link(best, line, kind);
  }

  link(from, to, kind) {
    if (from === to || to.causes.some((cause) => cause.from === from)) return;
    const inside = from.process === to.process && from.role === to.role;
    const edge = { from, to, kind: inside ? WITHIN : kind || MESSAGE };
    to.causes.push(edge);
    from.effects.push(edge);
  }

  /** Places a line by time, but after its parent, even if the clocks of two machines disagree. */
  place(line) {
    const stack = [line];
    while (stack.length) {
      const top = stack[stack.length - 1];
      if (typeof top.key === "number") { stack.pop(); continue; }
      const open = top.placing ? [] : top.causes.filter((cause) => cause.from.key === null && !cause.from.placing);
      top.placing = true;
      if (open.length) {
        for (const cause of open) stack.push(cause.from);
        continue;
      }
      let key = top.at;
      for (const cause of top.causes) if (cause.from.key !== null) key = Math.max(key, cause.from.key + 0.001);
      const before = this.last.get(top.process);
      if (before && before.n < top.n) key = Math.max(key, before.key + 0.001);
      if (!before || before.n < top.n) this.last.set(top.process, top);
      top.key = key;
      stack.pop();
    }
  }

  /** Outages of roles, requests with their ends, and links that were cut or lost. */
  derive() {
    if (!this.derived) {
      this.derived = { outages: outages(this.lines), exchanges: exchanges(this.lines), cuts: cutLinks(this.lines, setUpEnd(this, null)) };
      this.derived.walls = walls(this.derived.cuts, [...this.cluster].sort((a, b) => a - b));
    }
    return this.derived;
  }

  /** The state of each role after the line of this row; row -1 is before all lines. */
  stateAt(row) {
    const whole = Math.floor((row + 1) / STATE_EVERY);
    for (let n = this.states.length; n <= whole; n++) {
      const before = n === 0 ? this.base || new Map() : this.states[n - 1];
      this.states.push(n === 0 ? before : stateAfter(before, this.lines.slice((n - 1) * STATE_EVERY, n * STATE_EVERY)));
    }
    return stateAfter(this.states[whole], this.lines.slice(whole * STATE_EVERY, row + 1));
  }
}

/** The times during which a role was down: from its CRASH to its RESTART, or for all roles from a process's end to
 * the BOOT of the next. A killed process writes no last line, so its outage starts at the last line that it wrote. */
function outages(lines) {
  const found = [], open = new Map(), lastOf = new Map();
  for (const line of lines) {
    if (!line.server) continue;
    const key = `${line.server} ${line.role}`;
    if (line.name === "BOOT") {
      for (const role of ["proposer", "acceptor", "learner", "coordinator", "participant"]) close(`${line.server} ${role}`, line);
      const before = lastOf.get(line.server);
      if (before && before.process !== line.process) {
        found.push({ server: line.server, role: null, from: before, to: line, told: before.name === "STOP" });
      }
    } else if (line.name === "CRASH") {
      close(key, line);
      const outage = { server: line.server, role: line.role, from: line, to: null, told: true };
      open.set(key, outage);
      found.push(outage);
    } else if (line.name === "RESTART") close(key, line);
    lastOf.set(line.server, line);
  }
  for (const [server, line] of lastOf) {
    if (line.name === "STOP") found.push({ server, role: null, from: line, to: null, told: true });
  }
  function close(key, line) {
    const outage = open.get(key);
    if (outage) outage.to = line;
    open.delete(key);
  }
  return found;
}

/** Each request of a client, with the line that ends it, if there is one. */
function exchanges(lines) {
  const found = [], open = new Map();
  for (const line of lines) {
    if (line.role !== "client" || line.req === null) continue;
    const key = `${line.process} ${line.req}`;
    if (line.name === "REQUEST") {
      const exchange = { request: line, reply: null };
      open.set(key, exchange);
      found.push(exchange);
    } else if (line.name === "RESPONSE" || line.name === "TIMEOUT") {
      const exchange = open.get(key);
      if (exchange) exchange.reply = line;
      open.delete(key);
    }
  }
  return found;
}

/** The rows of the lines that a filter selects, the same that `paxos-server logs --req --slot` prints. */
function filterRows(run, { req, slot, server }) {
  let told = run.lines;
  if (req) told = told.filter((line) => line.req === req);
  if (slot) {
    const about = aboutSlot(run, slot);
    told = told.filter(about);
  }
  if (req || slot) told = withFailures(run, told);
  if (server) told = told.filter((line) => line.server === server);
  return told;
}

/** Whether a line is about a slot: its ballots, its value, and the requests whose commands were proposed in it. */
function aboutSlot(run, slot) {
  const ballots = new Set(), labels = new Set();
  for (const { name, fields, req } of run.lines) {
    if (name === "ACCEPT" && readSlot(fields.slot) === slot) {
      ballots.add(fields.ballot);
      if (req && fields.key !== undefined) labels.add(req);
    }
  }
  return ({ name, fields, req }) => {
    const ranges = fields.slot !== undefined && fields.slot.endsWith("+");
    switch (name) {
      case "ACCEPT": case "ACCEPTED": case "CHOSEN": case "LEARN": case "FILL": case "VIOLATION":
        return readSlot(fields.slot) === slot;
      case "NACK":
        return readSlot(fields.slot) === slot || (ranges && ballots.has(fields.ballot));
      case "PREPARE": case "PROMISE": case "RETRY":
        return readSlot(fields.slot) === slot || ballots.has(fields.ballot);
      case "REQUEST": case "RESPONSE": case "TIMEOUT": case "FAILOVER":
        return req !== null && labels.has(req);
      default:
        return false;
    }
  };
}

/** The same lines, with the crashes and restarts that overlap them. */
function withFailures(run, told) {
  if (!told.length) return told;
  let first = Infinity, last = -Infinity;
  for (const line of told) {
    first = Math.min(first, line.at);
    last = Math.max(last, line.at);
  }
  const rows = new Set(told);
  for (const outage of run.derive().outages) {
    if (outage.role && outage.from.at <= last && (!outage.to || outage.to.at >= first)) {
      rows.add(outage.from);
      if (outage.to) rows.add(outage.to);
    }
  }
  for (const line of run.lines) {
    if (line.name === "BOOT" && line.life > 1 && line.at >= first && line.at <= last) rows.add(line);
  }
  return run.lines.filter((line) => rows.has(line));
}

/** The state of a server before its first line. */
function blank() {
  return { up: false, down: new Set(), promised: "none", accepted: "", count: 0, applied: 0, proposing: "", forgot: false,
    doubts: new Set(), commits: false, stopped: false, work: null, leads: "" };
}

/** The state of every server after some more lines; the given state is not changed. */
function stateAfter(state, lines) {
  const after = new Map(state);
  const fresh = new Set();
  const own = (number) => {
    if (!fresh.has(number)) {
      const known = after.get(number) || blank();
      after.set(number, { ...known, down: new Set(known.down), doubts: new Set(known.doubts) });
      fresh.add(number);
    }
    return after.get(number);
  };
  for (const line of lines) {
    if (line.req && /^(RESPONSE|TIMEOUT)$/.test(line.name)) {
      for (const [number, known] of after) if (endsWork(line, number, known)) endWork(own(number));
    }
    if (line.server) step(own(line.server), line);
  }
  return after;
}

/** Whether the request on which a proposer works has ended: its server has replied, its client has a result or has
 * given up, or another server has done it. A server that only refused it has not ended the work of the others. */
function endsWork({ role, name, fields, req, server }, number, { work }) {
  return work !== null && work.req === req
    && (server === number || role === "client" || (name === "RESPONSE" && /^(OK|NOTFOUND|MISMATCH)$/.test(fields.status)));
}

/** A proposer begins a step of its work on a request, or, without one, on a slot. */
function work(server, says, req, slot) {
  server.proposing = says;
  server.work = { req, slot: readSlot(slot) };
}

function endWork(server) {
  server.work = null;
  server.proposing = server.leads && `leads ${server.leads}`;
}

function step(server, { name, role, fields, req }) {
  if (name !== "STOP") server.up = true;
  switch (name) {
    case "BOOT":
      Object.assign(server, blank(), { up: true, doubts: server.doubts, commits: fields.protocol === "two-phase-commit", promised: fields.promised || "none", count: Number(fields.accepted || 0),
        applied: readSlot(fields.applied), accepted: "" });
      break;
    case "STOP": Object.assign(server, { up: false, stopped: true }); break;
    case "CRASH":
      server.down.add(role);
      if (role === "proposer" || role === "coordinator") {
        server.leads = "";
        endWork(server);
      }
      break;
    case "RESTART":
      server.down.delete(role);
      if (role === "acceptor") {
        server.promised = fields.promised || "none";
        server.count = Number(fields.accepted || 0);
        server.forgot = fields.recovered !== "disk";
        if (server.forgot) server.accepted = "";
      } else if (role === "learner") server.applied = readSlot(fields.applied);
      break;
    case "VOTEREQ": server.proposing = `asks ${fields.tx}`; break;
    case "DECIDE": server.proposing = `${fields.decision === "COMMIT" ? "commits" : "aborts"} ${fields.tx}`; break;
    case "VOTE": if (fields.vote === "YES") server.doubts.add(fields.tx); break;
    case "ACK":
      server.doubts.delete(fields.tx);
      server.applied = Number(fields.applied);
      break;
    case "ABORTED": server.doubts.delete(fields.tx); break;
    case "PREPARE": work(server, `asks ${fields.ballot}`, req, fields.slot); break;
    case "ACCEPT": work(server, `${fields.slot} at ${fields.ballot}`, req, fields.slot); break;
    case "RETRY": work(server, "waits", req, fields.slot); break;
    case "LEAD":
      server.leads = fields.ballot;
      endWork(server);
      break;
    case "STEPDOWN":
      server.leads = "";
      endWork(server);
      break;
    case "PROMISE": server.promised = fields.ballot; break;
    case "NACK": server.promised = fields.promised; break;
    case "ACCEPTED":
      server.promised = fields.ballot;
      server.accepted = `${fields.slot}@${fields.ballot}`;
      server.count++;
      break;
    case "LEARN":
      server.applied = readSlot(fields.applied);
      if (server.work && (server.work.req ? server.work.req === req : server.work.slot === readSlot(fields.slot))) endWork(server);
      break;
  }
}

/** The state of each slot on each server at this row: the ballot last accepted there, and whether it is applied. */
function slotsAt(run, row) {
  const slots = new Map();
  for (let at = 0; at <= row && at < run.lines.length; at++) {
    const { name, server, fields } = run.lines[at];
    if (name !== "ACCEPTED" && name !== "LEARN" && name !== "CHOSEN" && name !== "ACCEPT") continue;
    const slot = readSlot(fields.slot);
    let known = slots.get(slot);
    if (!known) slots.set(slot, known = { accepted: {}, applied: {}, chosen: "", ballots: new Set(), what: null });
    if (name === "ACCEPTED") known.accepted[server] = fields.ballot;
    else if (name === "CHOSEN") known.chosen = fields.ballot;
    else if (name === "LEARN") { known.applied[server] = fields.ballot; known.what = run.lines[at]; }
    else { known.ballots.add(fields.ballot); known.what = known.what || run.lines[at]; }
  }
  return slots;
}
