// Marks: the shapes of the diagram. A diamond requests, a circle replies; hollow is phase 1, filled is phase 2.
// Problems have shapes of their own.

const R = 5.2;

const SHAPES = {
  diamond: (r) => `M0 ${-r * 1.25}L${r * 1.25} 0L0 ${r * 1.25}L${-r * 1.25} 0Z`,
  circle: (r) => `M${-r} 0A${r} ${r} 0 1 1 ${r} 0A${r} ${r} 0 1 1 ${-r} 0Z`,
  square: (r) => `M${-r * 0.8} ${-r * 0.8}H${r * 0.8}V${r * 0.8}H${-r * 0.8}Z`,
  star: (r) => {
    const points = [];
    for (let n = 0; n < 10; n++) {
      const far = n % 2 ? r * 0.62 : r * 1.5, angle = Math.PI * (n / 5 - 0.5);
      points.push(`${(far * Math.cos(angle)).toFixed(2)} ${(far * Math.sin(angle)).toFixed(2)}`);
    }
    return `M${points.join("L")}Z`;
  },
  cross: (r) => `M${-r} ${-r}L${r} ${r}M${r} ${-r}L${-r} ${r}`,
  no: (r) => `${SHAPES.circle(r)}M${-r * 0.68} ${r * 0.68}L${r * 0.68} ${-r * 0.68}`,
  loop: (r) => `M${r * 0.9} ${-r * 0.5}A${r} ${r} 0 1 0 ${r} ${r * 0.35}M${r * 1.1} ${-r * 1.15}V${-r * 0.35}H${r * 0.3}`,
  right: (r) => `M${-r * 0.8} ${-r}L${r} 0L${-r * 0.8} ${r}Z`,
  left: (r) => `M${r * 0.8} ${-r}L${-r} 0L${r * 0.8} ${r}Z`,
  bar: (r) => `M${-r * 1.5} ${-r * 0.5}H${r * 1.5}V${r * 0.5}H${-r * 1.5}Z`,
  up: (r) => `M0 ${-r * 1.1}L${r} ${r * 0.8}H${-r}Z`,
  clock: (r) => `${SHAPES.circle(r)}M0 ${-r * 0.55}V0L${r * 0.45} ${r * 0.3}`,
  alarm: (r) => `M0 ${-r * 1.4}L${r * 1.5} ${r * 1.1}H${-r * 1.5}Z`,
  ask: (r) => `M0 ${-r}V${r}M${-r * 0.7} ${r * 0.25}L0 ${r}L${r * 0.7} ${r * 0.25}`,
  dot: (r) => SHAPES.circle(r * 0.55),
  flag: (r) => `M${-r * 0.7} ${r * 1.1}V${-r * 1.1}L${r} ${-r * 0.5}L${-r * 0.7} ${r * 0.1}`,
};

/** name -> [shape, fill style, text of the legend]. */
const MARKS = {
  REQUEST: ["right", "hollow", "a client sends a request"],
  PREPARE: ["diamond", "hollow", "a proposer asks for promises (phase 1)"],
  PROMISE: ["circle", "hollow", "an acceptor promises"],
  NACK: ["no", "open", "an acceptor refuses: it has promised a higher ballot"],
  RETRY: ["loop", "open", "a proposer gives up a ballot and retries with a higher one"],
  ACCEPT: ["diamond", "full", "a proposer proposes a value (phase 2)"],
  ACCEPTED: ["circle", "full", "an acceptor accepts the value"],
  CHOSEN: ["star", "full", "a majority has accepted the value: it is chosen"],
  LEARN: ["square", "full", "a learner applies the slot to its replica"],
  RESPONSE: ["left", "full", "the reply (hollow: not done)"],
  DROP: ["cross", "open", "a message is dropped"],
  CRASH: ["bar", "full", "a role crashes: its column is hatched until it restarts"],
  RESTART: ["up", "full", "a role restarts"],
  CATCHUP: ["ask", "open", "a learner requests missing slots from a peer"],
  FILL: ["ask", "open", "a learner asks proposers to fill a slot"],
  TIMEOUT: ["clock", "open", "a client gives up"],
  FAILOVER: ["loop", "open", "a client tries the next server"],
  FORWARD: ["ask", "full", "a command is forwarded to the leader"],
  LEAD: ["flag", "full", "a proposer becomes leader"],
  STEPDOWN: ["flag", "open", "a leader steps down"],
  VOTEREQ: ["diamond", "hollow", "two-phase commit: a coordinator asks for votes (phase 1)"],
  VOTE: ["circle", "full", "a participant votes (hollow: no)"],
  DECIDE: ["star", "full", "a coordinator decides (hollow: abort)"],
  ACK: ["square", "full", "a participant has committed and acknowledges"],
  ABORTED: ["square", "hollow", "a participant has aborted"],
  INQUIRE: ["ask", "open", "a participant in doubt asks the other servers"],
  ANSWER: ["dot", "full", "a participant answers an inquiry"],
  GIVEUP: ["no", "open", "a participant that has not voted will never vote yes"],
  BLOCKED: ["alarm", "full", "blocked: no participant that replies may decide"],
  WAIT: ["clock", "open", "a read waits for a locked key"],
  END: ["dot", "full", "all participants have acknowledged"],
  VIOLATION: ["alarm", "full", "a rule is broken"],
  FAULT: ["alarm", "open", "a disk, a socket or a file fails"],
};

function markOf(line) {
  if (line.name === "RESPONSE" && !/^(OK|NOTFOUND)$/.test(line.fields.status)) return ["left", "hollow"];
  if (line.name === "VOTE" && line.fields.vote === "NO") return ["circle", "hollow"];
  if (line.name === "DECIDE" && line.fields.decision === "ABORT") return ["star", "hollow"];
  return MARKS[line.name] || ["dot", "full"];
}

/** The color of a line: that of its ballot's owner or its transaction's coordinator; none for clients. */
function lineHue(line) {
  if (line.fields.ballot) return hueOf(ownerOf(line.fields.ballot));
  if (line.fields.tx) return hueOf(ownerOf(line.fields.tx));
  return 0;
}

/** A mark at a position, as SVG. */
function drawMark(line, x, y) {
  const [shape, paint] = markOf(line);
  const hue = line.level === "ERROR" ? "bad" : `s${lineHue(line)}`;
  return `<path class="${paint}" style="--hue:var(--${hue})" transform="translate(${x} ${y})" d="${SHAPES[shape](R)}"/>`;
}
