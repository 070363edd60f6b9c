// Sentences: what a line reports, in plain English. A sentence is a list of parts: strings, and objects that the page
// formats: {ballot}, {server}, {value}. Nothing here makes HTML.

const many = (count, one, more) => (count === 1 ? `1 ${one}` : `${count} ${more || one + "s"}`);
const server = (number) => ({ server: number });
const ballot = (text) => ({ ballot: text });

/** `s1, s2 and s5`. */
function serverList(numbers, all) {
  if (all && numbers.length === all && all > 2) return [`all ${all}`];
  const parts = [];
  numbers.forEach((number, n) => {
    if (n > 0) parts.push(n === numbers.length - 1 ? " and " : ", ");
    parts.push(server(number));
  });
  return parts.length ? parts : ["no server"];
}

/** The command of a line: PUT color = "deep blue". */
function command(fields) {
  if (fields.op === "NOOP") return ["a no-op"];
  const parts = [fields.op || "?"];
  if (fields.key !== undefined) parts.push(" ", { value: readText(fields.key) });
  if (fields.value !== undefined) parts.push(" = ", { value: readText(fields.value) });
  if (fields.if_version !== undefined) parts.push(` if it is at version ${fields.if_version}`);
  return parts;
}

const RESULTS = {
  OK: "done", NOTFOUND: "key not found", MISMATCH: "version mismatch, nothing changes", NOTAPPLIED: "not applied",
  UNKNOWN: "outcome unknown, it may or may not be applied", EXPIRED: "its session is unknown or has expired",
  SUPERSEDED: "the client no longer waits for it",
};

const DROPPED = {
  crashed: "it is down", full: "its queue is full", "disk-full": "the disk is full",
  unconnected: "there is no connection", inactive: "the server is not admitted, or fenced",
  cut: "the link is cut", lost: "the network loses it",
};

/** The command that an acceptance, a vote or a decision is about, where its proposal is known: `: PUT color = blue`. */
const about = (line) => (line.proposal && line.proposal.fields.key !== undefined ? [": ", ...command(line.proposal.fields)] : []);

/** The sentence of a line, in parts. */
function sentence(line, clusterSize) {
  const told = SENTENCES[line.name];
  const parts = told ? told(line, line.fields, line.server ? server(line.server) : { process: line.process }, clusterSize)
    : [`${line.role} ${line.name}`];
  const whole = [...parts, ...lostWords(line, clusterSize)];
  return line.why && line.name !== "NACK" && line.name !== "MALFORMED" ? [...whole, { why: line.why }] : whole;
}

const SENTENCES = {
  REQUEST: (line, f, who) => line.role === "client"
    ? [who, " asks ", server(readServer(f.to)), ": ", ...command(f)]
    : [who, " receives the request: ", ...command(f)],
  RESPONSE: (line, f, who) => {
    const result = f.value !== undefined ? ["the value is ", { value: readText(f.value) }] : [RESULTS[f.status] || f.status];
    const because = f.cause !== undefined ? [`: ${readText(f.cause)}`] : [];
    const where = f.slot !== undefined ? [` (slot ${f.slot}, ${shortTime(f.took)})`] : [` (${shortTime(f.took)})`];
    const verb = line.role === "client" ? [" receives the reply of ", server(readServer(f.server)), ": "] : [" replies: "];
    return [who, ...verb, ...result, ...because, ...where];
  },
  PREPARE: (line, f, who, all) =>
    [who, " asks ", ...serverList(readServers(f.to), all), " to promise ", ballot(f.ballot), ` for all slots from ${readSlot(f.slot)} on`],
  PROMISE: (line, f, who) => {
    const accepted = f.accepted === "none" ? [`has accepted nothing from slot ${readSlot(f.slot)} on`]
      : ["has accepted ", ...f.accepted.split(",").flatMap((part, n) => {
        const [slot, at] = part.split("@");
        const told = at ? [`slot ${slot} at `, ballot(at), ...about(line)] : [`${parseInt(part.slice(1), 10)} more`];
        return n ? [", ", ...told] : told;
      })];
    return [who, " promises ", ballot(f.ballot), "; it ", ...accepted];
  },
  NACK: (line, f, who) =>
    [who, " refuses ", ballot(f.ballot), f.slot.endsWith("+") ? "" : ` in slot ${f.slot}`, ": it has promised ", ballot(f.promised)],
  ACCEPT: (line, f, who) => {
    const value = f.adopted && f.adopted !== "none" ? ["the value accepted at ", ballot(f.adopted), ": ", ...command(f)] : command(f);
    return [who, ` proposes for slot ${f.slot} at `, ballot(f.ballot), ": ", ...value];
  },
  ACCEPTED: (line, f, who) => [who, ` accepts for slot ${f.slot} at `, ballot(f.ballot), ...about(line)],
  CHOSEN: (line, f, who) => [`Slot ${f.slot} is chosen`, ...about(line), ". ", who, " has counted ", ...serverList(readServers(f.quorum)), " at ", ballot(f.ballot)],
  LEARN: (line, f, who) => {
    const results = { OK: "", NOTFOUND: ": key not found", MISMATCH: ": version mismatch, nothing changes", NOOP: "",
      OPENED: `: session ${f.session}`, SUPERSEDED: ": the client no longer waits for it", EXPIRED: ": its session is unknown or has expired" };
    const first = /^DUPLICATE\(first=(\d+)\)$/.exec(f.result || "");
    const result = first ? `: already applied in slot ${first[1]}` : results[f.result] === undefined ? `: ${f.result}` : results[f.result];
    const version = f.result === "OK" && f.version !== undefined ? ` (version ${f.version})` : "";
    return [who, ` applies slot ${f.slot}: `, ...command(f), result + version];
  },
  VOTEREQ: (line, f, who, all) =>
    [who, " asks ", ...serverList(readServers(f.to), all), " to vote on ", ballot(f.tx), ": ", ...command(f)],
  VOTE: (line, f, who) => [who, f.vote === "YES" ? " votes yes on " : " votes no on ", ballot(f.tx), ...(f.vote === "YES" ? about(line) : []),
    ...(f.by !== undefined ? [": ", ballot(f.by), " holds the lock"] : [])],
  DECIDE: (line, f, who, all) => [who, f.decision === "COMMIT" ? " decides to commit " : " decides to abort ", ballot(f.tx), ...about(line),
    { first: " and notifies ", again: " and repeats the decision to ", presumed: " (presumed, it has no record) and notifies " }[f.reason] || " ",
    ...serverList(readServers(f.to), all)],
  ACK: (line, f, who) => {
    const results = { OK: "", NOTFOUND: ": key not found", MISMATCH: ": version mismatch, nothing changes", OPENED: `: session ${f.session}` };
    const version = f.result === "OK" && f.version !== undefined ? ` (version ${f.version})` : "";
    return [who, " commits ", ballot(f.tx), ": ", ...command(f), (results[f.result] || "") + version];
  },
  ABORTED: (line, f, who) => [who, " aborts ", ballot(f.tx)],
  GIVEUP: (line, f, who) => [who, " has not voted on ", ballot(f.tx), " and will never vote yes"],
  INQUIRE: (line, f, who, all) => [who, " is in doubt about ", ballot(f.tx), " and asks ", ...serverList(readServers(f.to), all)],
  ANSWER: (line, f, who) => [who, " answers ", server(readServer(f.to)), " about ", ballot(f.tx), ": ",
    { COMMIT: "committed", ABORT: "aborted", PREPARED: "in doubt here, too", VOTING: "still counting the votes" }[f.known]],
  BLOCKED: (line, f, who) => [who, " has been BLOCKED for ", shortTime(f.waited), " by ", ballot(f.tx), ": only ",
    server(readServer(f.coordinator)), " knows the decision",
    ...(f.key !== undefined ? ["; locked key: ", { value: readText(f.key) }] : [])],
  WAIT: (line, f, who) => [who, " delays a read: ", ballot(f.tx), " has locked ", { value: readText(f.key) }],
  END: (line, f, who) => [who, " drops its record of ", ballot(f.tx)],
  RETRY: (line, f, who) => [who, " gives up ", ballot(f.ballot), ` for slot ${f.slot} and will retry with round ${f.next_round}`],
  CRASH: (line, f, who) => [who, `'s ${line.role} crashes after ${shortTime(f.up)}`,
    f.cause === "admin" ? ", on request" : "", f.down ? `; it will be down for ${shortTime(f.down)}` : ""],
  RESTART: (line, f, who) => {
    const memory = f.recovered === "disk" ? "with its data from disk" : "without its data: UNSAFE";
    const known = line.role === "acceptor" ? [": promised ", f.promised === "none" ? "nothing" : ballot(f.promised), `, ${many(Number(f.accepted), "slot")} accepted`]
      : line.role === "participant" ? [`: ${many(Number(f.applied || 0), "transaction")} committed, ${f.in_doubt} in doubt`]
      : line.role === "coordinator" ? [`: next number ${f.next}, ${many(Number(f.in_doubt || 0), "commit")} not acknowledged by all`]
      : f.applied !== undefined ? [`: applied up to slot ${f.applied}`] : f.next !== undefined ? [`: next round ${f.next}`] : [];
    return [who, `'s ${line.role} restarts after ${shortTime(f.down)}, ${memory}`, ...known];
  },
  DROP: (line, f, who) => {
    const from = f.from ? [" from ", server(readServer(f.from))] : [];
    if (f.to !== undefined) return [`${readText(f.msg)} of `, who, " is lost on its way to ", ...serverList(readServers(f.to)), `: ${DROPPED[f.cause] || f.cause}`];
    if (f.n !== undefined) return [`${many(Number(f.n), "message")} to `, who, `'s ${line.role} dropped: ${(DROPPED[f.cause] || f.cause).replace(" is ", " was ")}`];
    return [`${readText(f.msg)}`, ...from, " does not reach ", who, `'s ${line.role}: ${DROPPED[f.cause] || f.cause}`];
  },
  FAILOVER: (line, f, who) => [who, " has waited ", shortTime(f.waited), " for ", server(readServer(f.from)), ` (${readText(f.cause)}) and asks `,
    server(readServer(f.to)), " instead"],
  TIMEOUT: (line, f, who) => [who, ` gives up after ${shortTime(f.waited)}: ${RESULTS[f.status] || f.status}`],
  MALFORMED: (line, f, who) => [who, ` received malformed request of length ${f.length} from ${f.from}`],
  BOOT: (line, f, who) => !line.server ? [who, " starts"] : f.protocol === "two-phase-commit"
    ? [who, ` starts${f.incarnation > 1 ? `, incarnation ${f.incarnation}` : ""}: ${many(Number(f.applied || 0), "transaction")} committed`] : [who, ` starts${f.incarnation > 1 ? `, incarnation ${f.incarnation}` : ""}: applied up to slot ${f.applied || 0}, promised `,
    f.promised && f.promised !== "none" ? ballot(f.promised) : "nothing",
    f.restart && f.restart !== "disk" ? "; its acceptor loses its data at each restart: UNSAFE" : ""],
  STOP: (line, f, who) => [who, ` stops (${readText(f.cause)})`],
  FORWARD: (line, f, who) => [who, " forwards its client's command to ", server(readServer(f.to)), ", which leads at ", ballot(f.ballot)],
  LEAD: (line, f, who) => [who, " leads from slot ", `${readSlot(f.slot)} at `, ballot(f.ballot), ": ", ...serverList(readServers(f.quorum)), " promised"],
  STEPDOWN: (line, f, who) => [who, " steps down at ", ballot(f.ballot), ...(f.promised ? ["; the higher ballot is ", ballot(f.promised)] : [])],
  CATCHUP: (line, f, who) => [who, " asks ", server(readServer(f.to)), ` for slots ${f.from} to ${f.known}`],
  FILL: (line, f, who) => [who, " asks ", ...serverList(readServers(f.to)), ` to get every slot up to ${f.slot} chosen`],
  SNAPSHOT: (line, f, who) => f.from ? [who, " installs a snapshot of ", server(readServer(f.from)), `, after slot ${f.slot}`]
    : [who, ` has saved a checkpoint after slot ${f.slot}`],
  DIGEST: (line, f, who) => f.equal !== undefined ? [who, `: ${f.equal} of ${f.of} replicas are equal after slot ${f.slot}`]
    : [who, `: digest ${f.digest} after slot ${f.slot}`],
  LOST: (line, f, who) => [`${many(Number(f.n), "line")} of `, who, " could not be written"],
  LINK: (line, f, who) => [who, ...{ up: [" connects to "], lost: [" has lost its connection to "], refused: [" and "],
    cut: [" is cut off from "], joined: [" can reach "] }[f.state] || [` ${f.state} `], ...serverList(readServers(f.peer)),
    f.state === "joined" ? " again" : "", f.state === "refused" ? ": the connection was refused" : "",
    f.cause !== undefined ? ` (${readText(f.cause)})` : ""],
  STAGE: (line, f, who) => [who, ": ", readText(f.name)],
  FAULT: (line, f, who) => [who, `: ${readText(f.part)} failed (${readText(f.cause)})`],
  VIOLATION: (line, f, who) => [who, ` breaks a rule: ${readText(f.rule)}`],
};

/** `26.171ms` as `26 ms`, `2.150s` as `2.15 s`. */
function shortTime(text) {
  const found = /^([\d.]+)(ms|s)$/.exec(text || "");
  if (!found) return text || "";
  const number = Number(found[1]);
  return `${number >= 100 ? Math.round(number) : Number(number.toPrecision(3))} ${found[2]}`;
}

/** The sentence as plain text, for screen readers and links. */
function plain(parts) {
  return parts.map((part) => {
    if (typeof part === "string") return part;
    if (part.server !== undefined) return `s${part.server}`;
    if (part.why !== undefined) return ` (${part.why})`;
    if (part.value !== undefined) return JSON.stringify(part.value);
    return part.ballot || part.process || "";
  }).join("");
}

/** The sentence as elements. Text is inserted as text nodes: a hostile key stays a key. */
function dressed(parts) {
  const box = document.createDocumentFragment();
  for (const part of parts) {
    if (typeof part === "string") { box.append(part); continue; }
    const span = document.createElement("span");
    if (part.server !== undefined) {
      span.className = "who";
      span.style.setProperty("--hue", `var(--s${hueOf(part.server)})`);
      span.textContent = `s${part.server}`;
    } else if (part.ballot !== undefined) {
      span.className = "ballot";
      span.style.setProperty("--hue", `var(--s${hueOf(ownerOf(part.ballot))})`);
      span.textContent = part.ballot;
    } else if (part.value !== undefined) {
      span.className = "value";
      span.textContent = part.value === "" ? "\u201c\u201d" : part.value;
    } else if (part.why !== undefined) {
      span.className = "why";
      span.textContent = part.why;
    } else {
      span.className = "who other";
      span.textContent = part.process || "";
    }
    box.append(span);
  }
  return box;
}

/** The color of a server, one of six. */
function hueOf(number) {
  return number > 0 ? (number - 1) % 6 + 1 : 0;
}
