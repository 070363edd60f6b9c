// The network between the servers: links that were cut or lost, walls that divide the servers, and lost messages.

/** The times during which two servers could not exchange messages, as {pair, from, to}. A simulated network says that it
 * cuts a link. A server of a real run says that its connection is lost; a link is down if both directions are. What ends
 * before the given row is set-up. */
function cutLinks(lines, since) {
  const links = new Map(), found = [];
  const linkOf = (a, b) => {
    const key = a < b ? `${a} ${b}` : `${b} ${a}`;
    if (!links.has(key)) links.set(key, { pair: [Math.min(a, b), Math.max(a, b)], cut: new Map(), lost: new Set(), open: null });
    return links.get(key);
  };
  const judge = (link, line) => {
    const down = link.cut.size > 0 || link.lost.size === 2;
    if (down && !link.open) link.open = { pair: link.pair, from: line, to: null };
    else if (!down && link.open) {
      link.open.to = line;
      if (line.row >= since) found.push(link.open);
      link.open = null;
    }
    if (link.open) link.open.isCut = link.cut.size > 0;
  };
  for (const line of lines) {
    if (line.name === "BOOT" && line.server) {
      // A process that starts has no connection yet, so none was lost, and it cuts none.
      for (const link of links.values()) {
        if (!link.pair.includes(line.server)) continue;
        link.lost.clear();
        if (link.cut.get(line.server) === "lab") link.cut.delete(line.server);
        judge(link, line);
      }
    }
    if (line.name !== "LINK" || !line.server) continue;
    for (const peer of readServers(line.fields.peer)) {
      const link = linkOf(line.server, peer);
      switch (line.fields.state) {
        case "cut": link.cut.set(line.server, line.fields.cause); break;
        case "joined": link.cut.delete(line.server); break;
        case "lost": link.lost.add(line.server); break;
        case "up": link.lost.delete(line.server); break;
      }
      judge(link, line);
    }
  }
  for (const { open } of links.values()) if (open) found.push(open);
  return found.sort((a, b) => a.from.row - b.from.row);
}

/** The pairs of servers, as `1 2`, that could not exchange messages after the line of this row. */
function cutPairsAt(run, row) {
  return new Set(run.derive().cuts.filter(({ from, to }) => from.row <= row && (!to || to.row > row)).map(({ pair }) => pair.join(" ")));
}

/** The pairs of servers, as `1 2`, whose links are cut now, and not only lost. */
function labCuts(run) {
  return new Set(run.derive().cuts.filter(({ to, isCut }) => !to && isCut).map(({ pair }) => pair.join(" ")));
}

/** Walls between neighboring columns, as {right, from, to}: no message can pass, not even over a third server. */
function walls(cuts, members) {
  const changes = [...new Set(cuts.flatMap(({ from, to }) => (to ? [from, to] : [from])))].sort((a, b) => a.row - b.row);
  const found = [], open = new Map();
  for (const line of changes) {
    const down = new Set(cuts.filter(({ from, to }) => from.row <= line.row && (!to || to.row > line.row)).map(({ pair }) => pair.join(" ")));
    const part = parts(members, down);
    members.slice(1).forEach((right, n) => {
      const divided = part.get(right) !== part.get(members[n]);
      if (divided && !open.has(right)) open.set(right, { right, from: line, to: null });
      else if (!divided && open.has(right)) {
        found.push({ ...open.get(right), to: line });
        open.delete(right);
      }
    });
  }
  return [...found, ...open.values()];
}

/** For each server the lowest server that it can reach, also over others. */
function parts(members, down) {
  const part = new Map();
  for (const first of members) {
    if (part.has(first)) continue;
    const reached = [first];
    part.set(first, first);
    while (reached.length) {
      const a = reached.pop();
      for (const b of members) {
        if (part.has(b) || down.has(a < b ? `${a} ${b}` : `${b} ${a}`)) continue;
        part.set(b, first);
        reached.push(b);
      }
    }
  }
  return part;
}

/** The servers that a line's message does not reach, because the network lost it. */
function lostTo(line) {
  const servers = (line.lost || []).flatMap((drop) => readServers(drop.fields.to));
  return [...new Set(servers)].sort((a, b) => a - b);
}

/** What becomes of a line's message in the network, as a part of its sentence. */
function lostWords(line, clusterSize) {
  if (!line.lost) return [];
  const causes = [...new Set(line.lost.map((drop) => DROPPED[drop.fields.cause] || drop.fields.cause))];
  return ["; lost on its way to ", ...serverList(lostTo(line), clusterSize), `: ${causes.join(", ")}`];
}

/** In the ring: the messages of this line that the network lost, each as a broken line that ends in a cross. */
function drawLostFlights(line, at) {
  if (!at.has(line.server)) return "";
  const [x1, y1] = at.get(line.server);
  return lostTo(line).filter((number) => at.has(number)).map((number) => {
    const [x2, y2] = at.get(number), part = (n) => [x1 + (x2 - x1) * n, y1 + (y2 - y1) * n];
    const [start, end] = [part(0.22), part(0.5)];
    return `<g style="--hue:var(--s${lineHue(line)})"><path class="flight lost" d="M${start}L${end}"/>`
      + `<path class="cross" transform="translate(${end.join(" ")})" d="${SHAPES.cross(4.5)}"/></g>`;
  }).join("");
}

/** The role that receives a message. */
const RECEIVER = { PREPARE: "acceptor", ACCEPT: "acceptor", PROMISE: "proposer", NACK: "proposer", ACCEPTED: "learner", CHOSEN: "learner",
  VOTEREQ: "participant", DECIDE: "participant", VOTE: "coordinator", ACK: "coordinator" };
