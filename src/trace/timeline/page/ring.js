// The ring of servers: which roles are up, which links are cut, and the messages that caused the chosen line.

/** Radius of a server; with more servers than this, all are drawn smaller. */
const SEAT = 27, SEATS_FULL = 8;

const ROLES = ["proposer", "acceptor", "learner"], COMMIT_ROLES = ["coordinator", "participant"];

/** The roles of the servers of a run. */
function rolesOf(state) {
  return [...state.values()].some((known) => known.commits) ? COMMIT_ROLES : ROLES;
}

/** What is known of a server, in words. A server from which nothing is heard may be up or down. */
function describeServer(number, known, roles, isSilent) {
  if (isSilent) return `s${number}: no contact, its state is unknown`;
  if (!known.up) return `s${number}: ${known.stopped ? "its process has stopped" : "no line yet"}`;
  return `s${number}: ${roles.map((role) => `${role} ${known.down.has(role) ? "down" : "up"}`).join(", ")}`;
}

/** Draws the state of all servers after the line of this row. `line` is the chosen line: the messages that caused it and
 * those that the network lost are drawn, and the quorums that meet in it. `silent` are servers from which nothing is heard. */
function drawRing(box, run, state, row, { line = null, moves = false, silent = new Set() } = {}) {
  const members = [...run.cluster].sort((a, b) => a - b), roles = rolesOf(state), cut = cutPairsAt(run, row);
  const at = new Map(members.map((number, n) => {
    const angle = Math.PI * 2 * n / members.length - Math.PI / 2;
    return [number, [160 + 112 * Math.cos(angle), 98 + 68 * Math.sin(angle)]];
  }));
  const size = Math.min(1, SEATS_FULL / members.length);
  const wires = members.flatMap((a, n) => members.slice(n + 1).map((b) => wire(a, b, at, cut.has(`${a} ${b}`))));
  const flying = flightsOf(line).filter(({ from, to }) => at.has(from) && at.has(to) && from !== to).map((one) => flight(one, at, moves));
  const seats = members.map((number) => {
    const [x, y] = at.get(number);
    return `<g data-key="s${number}" transform="translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${size})">${seat(number, state.get(number) || blank(), roles, silent.has(number))}</g>`;
  });
  // This text contains only numbers and words of this script.
  const holder = document.createElement("div");
  holder.innerHTML = `<svg viewBox="0 -6 320 218" aria-hidden="true">${wires.join("")}${flying.join("")}${line ? drawLostFlights(line, at) : ""}${seats.join("")}${ringQuorums(run, line, at)}</svg>`;
  patch(box, holder.firstChild);
  const cuts = [...cut].map((pair) => `the link of s${pair.replace(" ", " and s")} is cut`);
  box.setAttribute("aria-label", [...members.map((number) => describeServer(number, state.get(number) || blank(), roles, silent.has(number))), ...cuts].join("; "));
  for (const motion of box.querySelectorAll("animateMotion")) {
    if (!motion.isBegun) motion.beginElement();
    motion.isBegun = true;
  }
}

function wire(a, b, at, isCut) {
  const [x1, y1] = at.get(a), [x2, y2] = at.get(b);
  const path = `<path class="wire${isCut ? " cut" : ""}" d="M${x1.toFixed(1)} ${y1.toFixed(1)}L${x2.toFixed(1)} ${y2.toFixed(1)}"/>`;
  const [x, y] = [(x1 + x2) / 2, (y1 + y2) / 2].map((n) => n.toFixed(1));
  const cross = isCut ? `<path class="cut-mark" transform="translate(${x} ${y})" d="M-5 -5L5 5M5 -5L-5 5"/>` : "";
  return `<g data-key="${a}-${b}">${path}${cross}</g>`;
}

/** A server: its name, its promise or what is wrong with it, and a letter for each role. */
function seat(number, known, roles, isSilent) {
  const isDown = (role) => !known.up || known.down.has(role);
  const off = isSilent || roles.every(isDown);
  const promised = known.commits ? [...known.doubts][0] || "" : known.promised === "none" ? "" : known.promised;
  const says = isSilent ? "no contact" : !known.up ? (known.stopped ? "stopped" : "no line") : off ? "all down" : promised || "\u00b7";
  const letters = roles.map((role, n) => {
    const x = (n - (roles.length - 1) / 2) * 13;
    const mark = isSilent ? "" : isDown(role) ? `<rect class="off" x="${x - 5.5}" y="5" width="11" height="12" rx="2.5"/>` : "";
    return `${mark}<text class="letter${mark ? " off" : ""}" x="${x}" y="14.5">${ROLE_LETTERS[role]}</text>`;
  });
  return `<title>${describeServer(number, known, roles, isSilent)}</title>`
    + `<circle class="seat${off ? " off" : ""}" style="--hue:var(--s${hueOf(number)})" r="${SEAT}"/>`
    + (promised && !off ? `<circle class="core" style="--fill:var(--s${hueOf(ownerOf(promised))})" r="${SEAT - 3}"/>` : "")
    + `<text y="-10">s${number}</text><text class="sub" y="1.5">${says}</text>${letters.join("")}`;
}

function flight({ from, to, edge }, at, moves) {
  const [x1, y1] = at.get(from), [x2, y2] = at.get(to), length = Math.hypot(x2 - x1, y2 - y1);
  const trim = (n) => [x1 + (x2 - x1) * n / length, y1 + (y2 - y1) * n / length].map((value) => value.toFixed(1));
  const [startX, startY] = trim(SEAT + 3), [endX, endY] = trim(length - SEAT - 5);
  const lost = edge.to.name === "DROP" ? " lost" : "";
  const move = moves ? `<animateMotion dur="0.35s" begin="indefinite" fill="freeze" path="M${startX} ${startY}L${endX} ${endY}"/>` : "";
  return `<g data-key="${edge.from.id} ${edge.to.id}" style="--hue:var(--s${edgeStyle(edge).hue})"><path class="flight${lost}" d="M${startX} ${startY}L${endX} ${endY}"/>`
    + `<circle class="ball" r="5"${move ? "" : ` cx="${endX}" cy="${endY}"`}>${move}</circle></g>`;
}
