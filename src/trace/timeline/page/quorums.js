// Quorums that meet: the acceptors that a ballot's quorum shares with those that accepted at an earlier ballot in the same
// slot. Paxos rests on them: they carry a value from one ballot to the next.

/** For an ACCEPT or CHOSEN: the latest earlier ballot at which acceptors accepted in this slot, these acceptors, and those of
 * them in the quorum of the line, each with its line from then and its line of now. Null if there is none. */
function sharedAcceptors(run, line) {
  if (!line || (line.name !== "ACCEPT" && line.name !== "CHOSEN") || !line.fields.quorum) return null;
  const { slot, ballot } = line.fields, quorum = readServers(line.fields.quorum);
  const earlier = (run.accepted.get(slot) || []).filter((one) => one.row < line.row && compareBallots(one.fields.ballot, ballot) < 0);
  if (!earlier.length) return null;
  const before = earlier.map((one) => one.fields.ballot).reduce((a, b) => (compareBallots(a, b) >= 0 ? a : b));
  const then = new Map(earlier.filter((one) => one.fields.ballot === before).map((one) => [one.server, one]));
  const shared = quorum.filter((number) => then.has(number)).map((number) => {
    const now = line.causes.map((edge) => edge.from).find((one) => one.server === number && one.role === "acceptor");
    const forgot = run.lines.find((one) => one.name === "RESTART" && one.role === "acceptor" && one.server === number
      && one.row > then.get(number).row && one.row < line.row && one.fields.recovered !== "disk");
    return { server: number, then: then.get(number), now: now || line, forgot: forgot || null };
  });
  if (!shared.length) return null;
  return { before, ballot, quorum, accepted: [...then.keys()].sort((a, b) => a - b), shared, majority: then.size * 2 > run.cluster.size };
}

/** What the shared acceptors mean, in parts of a sentence. */
function sharedWords(met, line) {
  const names = serverList(met.shared.map(({ server }) => server));
  const several = met.shared.length > 1, gone = met.shared.filter(({ forgot }) => forgot).map(({ server }) => server);
  const did = line.name === "ACCEPT" ? " promised " : " accepted at ";
  const words = [...names, several ? " belong to both" : " belongs to both", met.majority ? " majorities: " : " groups: ",
    ...serverList(met.accepted), " accepted at ", ballot(met.before), ", and ", ...serverList(met.quorum), did, ballot(met.ballot), ". "];
  if (gone.length) return [...words, ...serverList(gone), " lost what it had accepted, and could not report it."];
  if (line.name !== "ACCEPT") return words;
  return [...words, several ? "They carry the value over." : "It carries the value over."];
}

/** Marks of the shared acceptors in the diagram: what each kept in between, as a line down its column. */
function drawShared(diagram, top) {
  const met = sharedAcceptors(diagram.app.run, diagram.app.line());
  if (!met) return "";
  return met.shared.map(({ server, then, now, forgot }) => {
    const x = diagram.x(then), y1 = diagram.yOf(then) - top, y2 = diagram.yOf(now) - top, end = forgot ? diagram.yOf(forgot) - top : y2;
    const hue = `--hue:var(--s${hueOf(ownerOf(met.before))})`;
    const ring = (line, y) => (line.shown < 0 ? "" : `<circle class="shared" style="${hue}" cx="${x}" cy="${y.toFixed(1)}" r="11"/>`);
    return `<path class="kept" style="${hue}" d="M${x} ${(y1 + 11).toFixed(1)}V${(end - 11).toFixed(1)}"/>`
      + (forgot ? `<path class="kept forgotten" d="M${x} ${(end + 11).toFixed(1)}V${(y2 - 11).toFixed(1)}"/>` : "") + ring(then, y1)
      + (now.role === "acceptor" ? ring(now, y2) : "");
  }).join("");
}

/** The two quorums in the ring of servers, as circles around the seats, and the word at the shared ones. */
function ringQuorums(run, line, at) {
  const met = sharedAcceptors(run, line);
  if (!met) return "";
  const circle = (number, ballotOf, r) => {
    const [x, y] = at.get(number) || [0, 0];
    return at.has(number) ? `<circle class="quorum" style="--hue:var(--s${hueOf(ownerOf(ballotOf))})" cx="${x}" cy="${y}" r="${r}"/>` : "";
  };
  const words = met.shared.filter(({ server }) => at.has(server)).map(({ server, forgot }) => {
    const [x, y] = at.get(server);
    return `<text class="both" x="${x}" y="${y + 46}">${forgot ? "forgot" : "in both"}</text>`;
  });
  return met.accepted.map((number) => circle(number, met.before, SEAT + 4)).join("") + met.quorum.map((number) => circle(number, met.ballot, SEAT + 8)).join("") + words.join("");
}
