// Nodes: makes the elements of the page. Text from outside becomes a text node, never markup.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

/** An element; attributes that are null or false are left out, and functions become listeners. */
function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name, value);
    else if (name === "hue") made.style.setProperty("--hue", `var(--s${value})`);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

const button = (attributes, ...children) => element("button", { type: "button", ...attributes }, ...children);

function drawn(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Replaces the children of a node. The focus stays on the child with the same `data-key`. */
function refill(node, ...children) {
  const held = document.activeElement,
    key = node.contains(held) ? held.dataset.key : null;
  node.replaceChildren(...children.flat(Infinity).filter(Boolean));
  if (!key) return;
  const again = [...node.querySelectorAll("[data-key]")].find((child) => child.dataset.key === key);
  if (again) again.focus({ preventScroll: true });
  else if (node.isConnected) $("list").focus({ preventScroll: true });
}

/** `s3` or `c1` -> its number. */
const numberOf = (name) => Number(name.slice(1));
/** The color of a ballot is that of the server that owns it. */
const ownerOf = (ballot) => Number(ballot.split(".")[1]);
const hueOf = (number) => (number >= 1 && number <= 6 ? number : 0);
const ballotHue = (ballot) => (ballot ? hueOf(ownerOf(ballot)) : 0);
const many = (count, one, more) => `${count} ${count === 1 ? one : more || `${one}s`}`;

const ballotChip = (text) => element("span", { class: "ballot", hue: ballotHue(text) }, text);
const valueChip = (text) => element("span", { class: "value" }, text);
const serverName = (text) => element("span", { class: "who", hue: hueOf(numberOf(text)) }, text);

/** Values that sentences of this view may name. */
function valuesOf(view) {
  const found = new Set();
  const add = (value) => {
    if (typeof value === "string" && value.length > 2) found.add(value);
  };
  for (const message of view.messages) add(message.value);
  for (const step of view.steps) add(step.value);
  for (const vote of view.votes) for (const row of vote.rows) add(row.value);
  for (const server of view.servers)
    for (const kept of server.acceptor ? server.acceptor.accepted : []) add(kept.value);
  for (const client of view.clients) for (const word of (client.request || "").split(" ").slice(2)) add(word);
  return found;
}

let marked = /\b\d+\.\d+\b|\bs[1-9]\b/g;
let markedFor = "";

/** Tells `dressed` which words are values. */
function markValues(values) {
  const words = [...values].sort((a, b) => b.length - a.length);
  if (words.join(" ") === markedFor) return;
  markedFor = words.join(" ");
  const quoted = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  marked = new RegExp(
    [
      "(?<![\\w.])\\d+\\.\\d+(?![\\w])",
      "(?<![-\\w])s[1-9]\\b(?!-)",
      ...quoted.map((word) => `(?<!\\w)${word}(?!\\w)`),
    ].join("|"),
    "g",
  );
}

/** A sentence as nodes: its ballots, values and servers are marked; the servers only if they act. */
function dressed(text, calm) {
  const nodes = [];
  let at = 0;
  for (const hit of (text || "").matchAll(marked)) {
    if (hit.index > at) nodes.push(text.slice(at, hit.index));
    nodes.push(
      /^\d/.test(hit[0])
        ? ballotChip(hit[0])
        : /^s[1-9]$/.test(hit[0])
          ? calm
            ? hit[0]
            : serverName(hit[0])
          : valueChip(hit[0]),
    );
    at = hit.index + hit[0].length;
  }
  if (text && at < text.length) nodes.push(text.slice(at));
  return nodes;
}

/** What the program calls a glyph -> the mark of the time line that has this shape. */
const GLYPHS = {
  request: "REQUEST",
  reply: "RESPONSE",
  prepare: "PREPARE",
  promise: "PROMISE",
  accept: "ACCEPT",
  accepted: "ACCEPTED",
  refused: "NACK",
  chosen: "CHOSEN",
  timer: "TIMEOUT",
  crash: "CRASH",
  restart: "RESTART",
  drop: "DROP",
  client: "FAILOVER",
};
/** Shapes of what only a player does. */
const OWN_GLYPHS = {
  cut: ["M-7 0H-2.5M2.5 0H7M-1.5 4.5L1.5 -4.5", "open"],
  join: ["M-7 0H7", "open"],
  double: ["M-6.5 0A4 4 0 1 1 1.5 0A4 4 0 1 1 -6.5 0ZM-1.5 0A4 4 0 1 1 6.5 0A4 4 0 1 1 -1.5 0Z", "open"],
  other: [SHAPES.dot(6), "full"],
};

/** A shape of 16 by 16; its color is the text color of the hue it is given. */
function glyph(kind, hue) {
  const known = GLYPHS[kind] && MARKS[GLYPHS[kind]];
  const [path, paint] = known
    ? [SHAPES[known[0]](kind === "crash" || kind === "chosen" ? 4.4 : 5.2), known[1]]
    : OWN_GLYPHS[kind] || OWN_GLYPHS.other;
  const made = drawn(
    "svg",
    { viewBox: "-8 -8 16 16", class: "glyph", "aria-hidden": "true" },
    drawn("path", { d: path, class: paint }),
  );
  if (hue !== undefined) made.style.setProperty("--hue", `var(--s${hue})`);
  return made;
}

/** Puts a sentence where a screen reader says it: politely, or at once. */
function say(text, urgent) {
  $(urgent ? "called" : "said").textContent = text;
}
