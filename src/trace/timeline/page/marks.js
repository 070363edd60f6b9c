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
  REQUEST: ["right", "hollow", "a client asks"],
  PREPARE: ["diamond", "hollow", "a proposer asks for promises (phase 1)"],
  PROMISE: ["circle", "hollow", "an acceptor promises"],
  NACK: ["no", "open", "an acceptor refuses: it has promised more"],
  RETRY: ["loop", "open", "a proposer gives a ballot up and tries a higher one"],
  ACCEPT: ["diamond", "full", "a proposer proposes a value (phase 2)"],
  ACCEPTED: ["circle", "full", "an acceptor accepts it"],
  CHOSEN: ["star", "full", "a majority has accepted: chosen for ever"],
  LEARN: ["square", "full", "a learner applies the slot to its store"],
  RESPONSE: ["left", "full", "the answer (hollow: it was not done)"],
  DROP: ["cross", "open", "a message is lost: nobody was there"],
  CRASH: ["bar", "full", "a role dies: its column is hatched until it is back"],
  RESTART: ["up", "full", "it is back"],
  CATCHUP: ["ask", "open", "a learner asks a peer for what it missed"],
  FILL: ["ask", "open", "a learner asks for a slot to be filled"],
  TIMEOUT: ["clock", "open", "a client gives up"],
  FAILOVER: ["loop", "open", "a client asks another server"],
  FORWARD: ["ask", "full", "a command is handed to the leader"],
  LEAD: ["flag", "full", "a leader stands"],
  STEPDOWN: ["flag", "open", "a leader gives up"],
  VOTEREQ: ["diamond", "hollow", "two-phase commit: a coordinator asks for votes (phase 1)"],
  VOTE: ["circle", "full", "a participant votes (hollow: no)"],
  DECIDE: ["star", "full", "a coordinator decides (hollow: to abort)"],
  ACK: ["square", "full", "a participant has done it, and says so"],
  ABORTED: ["square", "hollow", "a participant has dropped it"],
  INQUIRE: ["ask", "open", "a participant in doubt asks the others"],
  ANSWER: ["dot", "full", "what one knows of another's doubt"],
  GIVEUP: ["no", "open", "a participant that has not voted never will"],
  BLOCKED: ["alarm", "full", "blocked: nobody who answers may decide"],
  WAIT: ["clock", "open", "a read waits for a locked key"],
  END: ["dot", "full", "all have acknowledged"],
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
