// Parser for lines as src/trace/line.rs writes them: TIME LEVEL ID ROLE EVENT key=value ... re=ID -- why. Text in a
// line comes from outside: it is data here, and reaches the page as text nodes only.

/** A line, or null if the text is not one. */
function readLine(text) {
  const head = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) ([A-Z]+) +(\S+)\.(\d+) +([a-z]+) +([A-Z]+)(?: +|$)/.exec(text);
  if (!head) return null;
  const [whole, stamp, level, process, number, role, name] = head;
  const line = { stamp, time: readTime(stamp), level, process, n: Number(number), id: `${process}.${number}`, role, name,
    server: 0, life: 1, req: null, fields: {}, re: null, why: null, text };
  const member = /^s(\d+)(?:@(\d+))?$/.exec(process);
  if (member) {
    line.server = Number(member[1]);
    line.life = Number(member[2] || 1);
  }
  let at = whole.length;
  while (at < text.length) {
    if (text.startsWith("-- ", at)) {
      line.why = text.slice(at + 3);
      break;
    }
    const equals = text.indexOf("=", at);
    if (equals < 0) return null;
    const key = text.slice(at, equals);
    if (!/^[a-z_]+$/.test(key)) return null;
    const end = endOfValue(text, equals + 1);
    if (end < 0) return null;
    const value = text.slice(equals + 1, end);
    if (key === "req") line.req = readText(value);
    else if (key === "re") line.re = value;
    else line.fields[key] = value;
    at = end;
    while (text[at] === " ") at++;
  }
  return line;
}

/** Microseconds since 1970. */
function readTime(stamp) {
  return Date.parse(stamp.slice(0, 19) + "Z") * 1000 + Number(stamp.slice(20, 26));
}

/** The end of the value that begins here: after the closing quote of a quoted value, at the next space. */
function endOfValue(text, from) {
  let at = from;
  if (text[at] === '"') {
    for (at++; text[at] !== '"'; at++) {
      if (at >= text.length) return -1;
      if (text[at] === "\\") at++;
    }
  }
  const space = text.indexOf(" ", at);
  return space < 0 ? text.length : space;
}

/** A text without quotes and escapes; a byte outside any character stays as \xNN, a cut text keeps its "...". */
function readText(value) {
  if (value === undefined || value[0] !== '"') return value;
  const close = endOfQuote(value);
  const inside = value.slice(1, close).replace(/\\(?:u([0-9a-f]{4})|(["\\nrt]))/g, (_, code, short) =>
    code ? String.fromCharCode(parseInt(code, 16)) : { n: "\n", r: "\r", t: "\t" }[short] || short);
  const cut = /^\+(\d+)B#/.exec(value.slice(close + 1));
  return cut ? `${inside} (${cut[1]} bytes)` : inside;
}

function endOfQuote(value) {
  let at = 1;
  while (at < value.length && value[at] !== '"') at += value[at] === "\\" ? 2 : 1;
  return at;
}

/** The servers of `s1,s2,s5` as numbers. */
function readServers(value) {
  return value && value !== "none" ? value.split(",").map((name) => Number(name.slice(1))) : [];
}

/** The server of `s3`, or 0. */
function readServer(value) {
  return value && /^s\d+$/.test(value) ? Number(value.slice(1)) : 0;
}

/** The slot of `7` or `7+`, or 0. */
function readSlot(value) {
  return value ? parseInt(value, 10) || 0 : 0;
}

/** The owner of a ballot `3.1`, or 0. */
function ownerOf(ballot) {
  const dot = ballot ? ballot.indexOf(".") : -1;
  return dot < 0 ? 0 : Number(ballot.slice(dot + 1));
}

/** The refusals of `s4(4.2),s5(4.2)`, as servers. */
function readNacks(value) {
  return value && value !== "none" ? value.split(",").map((nack) => Number(nack.slice(1, nack.indexOf("(")))) : [];
}

/** Compares two ballots: positive if the first is higher. */
function compareBallots(a, b) {
  const [roundA, serverA] = a.split("."), [roundB, serverB] = b.split(".");
  return Number(roundA) - Number(roundB) || Number(serverA) - Number(serverB);
}
