// The panels next to the diagram: the state of every role at the chosen line, the line itself, the slots, the legend.

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function ballotChip(text) {
  return !text || text === "none" ? element("span", "dim", "none") : dressed([{ ballot: text }]);
}

/** The table of roles. */
function drawState(app) {
  const line = app.line(), state = app.state();
  const commits = [...state.values()].some((known) => known.commits);
  const names = commits ? ["", "coordinator", "in doubt", "committed"] : ["", "proposer", "promised", "accepted", "applied"];
  const head = element("tr", "", ...names.map((text) => element("th", "", text)));
  const rows = [...app.run.cluster].sort((a, b) => a - b).map((number) => {
    const known = state.get(number) || blank();
    const isDown = (role) => !known.up || known.down.has(role);
    const cell = (role, ...content) => {
      const made = element("td", isDown(role) ? "off" : "num", ...content);
      if (isDown(role)) made.title = `s${number}'s ${role} is down`;
      return made;
    };
    if (commits) {
      const row = element("tr", line && line.server === number ? "touched" : "",
        element("td", "", dressed([{ server: number }])),
        cell("coordinator", isDown("coordinator") ? "down" : proposing(app, number, known)),
        cell("participant", known.doubts.size ? withBallots([...known.doubts].slice(0, 3).join(" ")) : "\u00b7",
          known.doubts.size > 3 ? ` +${known.doubts.size - 3}` : ""),
        cell("participant", known.applied ? `${known.applied}` : "\u00b7"));
      row.dataset.key = number;
      row.lastChild.title = "number of transactions that its participant has committed";
      return row;
    }
    const accepted = known.accepted ? known.accepted.split("@") : null;
    const row = element("tr", line && line.server === number ? "touched" : "",
      element("td", "", dressed([{ server: number }])),
      cell("proposer", isDown("proposer") ? "down" : proposing(app, number, known)),
      cell("acceptor", known.forgot ? element("span", "forgot", "lost ") : "", ballotChip(known.promised)),
      cell("acceptor", accepted ? `${accepted[0]} at ` : known.count ? `${known.count} slots` : "\u00b7", accepted ? ballotChip(accepted[1]) : ""),
      cell("learner", known.applied ? `${known.applied}` : "\u00b7"));
    row.dataset.key = number;
    row.lastChild.title = "the last slot that its learner has applied";
    return row;
  });
  patch(document.getElementById("state"), element("table", "", head, ...rows));
}

/** What a proposer does. When the lines end in the middle of its work, it is unknown how the work went on. */
function proposing(app, number, known) {
  const isLast = app.line() === app.run.lines[app.run.lines.length - 1];
  if (known.work && isLast && (!app.data.live || app.silent.has(number))) {
    const unknown = element("span", "dim", "unknown");
    unknown.title = `its last line says \u201c${known.proposing}\u201d, and no line says how that ended`;
    return unknown;
  }
  return known.proposing ? withBallots(known.proposing) : "\u00b7";
}

/** `slot 7 at 3.1`, with its ballot formatted. */
function withBallots(text) {
  return dressed(text.split(/(\d+\.\d+)/).map((part) => (/^\d+\.\d+$/.test(part) ? { ballot: part } : part)));
}

/** The messages that caused a line. */
function flightsOf(line) {
  if (!line) return [];
  return line.causes.filter((edge) => edge.kind === MESSAGE).map((edge) => ({ from: edge.from.server, to: line.server, edge }));
}

/** A link to a line. */
function jump(app, line) {
  const button = element("button", "jump", dressed(sentence(line, app.run.cluster.size).filter((part) => !part.why)));
  button.type = "button";
  button.title = line.text;
  button.onclick = () => app.go(line);
  const item = element("li", "", button);
  item.dataset.key = line.id;
  return item;
}

/** The chosen line: its sentence, the lines that it rests on, the lines that it caused, and its text. */
function drawDetail(app) {
  const box = document.getElementById("detail"), line = app.line();
  if (!line) {
    patch(box, element("p", "dim", "No line is selected. Press \u2192 or click a line."));
    return;
  }
  const parts = [];
  for (const finding of app.wrong.get(line.id) || []) parts.push(element("p", finding.verdict === "violated" ? "alarm" : "dim", element("b", "", `${finding.rule}: `), finding.says));
  const says = element("p", "says");
  says.append(dressed(sentence(line, app.run.cluster.size)));
  parts.push(says);
  const section = (title, lines) => {
    if (!lines.length) return;
    parts.push(element("h3", "", title), element("ul", "links", ...lines.slice(0, 12).map((other) => jump(app, other))));
    if (lines.length > 12) parts.push(element("p", "dim", `and ${lines.length - 12} more`));
  };
  const count = line.fields.quorum ? readServers(line.fields.quorum).length : 0;
  const rest = line.name === "CHOSEN" ? `chosen by these ${count} of ${app.run.cluster.size}`
    : line.name === "ACCEPT" ? `based on these ${count} promises` : "caused by";
  section(rest, line.causes.map((edge) => edge.from).sort((a, b) => a.row - b.row));
  const met = sharedAcceptors(app.run, line);
  if (met) parts.push(element("p", "met", dressed(sharedWords(met, line))));
  section("caused", line.effects.map((edge) => edge.to).filter((other) => app.isRevealed(other)).sort((a, b) => a.row - b.row));
  const silent = unheard(line);
  const cut = cutPairsAt(app.run, line.row), isCut = (number) => cut.has([line.server, number].sort((a, b) => a - b).join(" "));
  const unknown = silent.filter((number) => !isCut(number)), apart = silent.filter(isCut);
  if (apart.length) parts.push(element("p", "dim", "There was no connection to ", dressed(serverList(apart)), "."));
  if (unknown.length) parts.push(element("p", "dim", "No line shows that it arrived at ", dressed(serverList(unknown)), "."));
  if (line.re && !app.run.byId.has(line.re)) parts.push(element("p", "dim", `It was caused by ${line.re}, a line that is not on this page.`));
  parts.push(element("div", "raw", line.text));
  const actions = element("div", "actions");
  const action = (text, act, className) => {
    const button = element("button", className || "", text);
    button.type = "button";
    button.dataset.key = text;
    button.onclick = act;
    actions.append(button);
  };
  if (line.req) action(`only ${line.req}`, () => app.setFilter({ req: line.req }));
  const slot = readSlot(line.fields.slot);
  if (slot && !line.fields.slot.endsWith("+")) action(`only slot ${slot}`, () => app.setFilter({ slot }));
  if (line.server) action(`only s${line.server}`, () => app.setFilter({ server: line.server }));
  action("copy link", () => app.copyLink());
  parts.push(actions);
  patch(box, ...parts);
}

/** The servers to which a message was sent, and of which no line shows that it arrived. */
function unheard(line) {
  if (!/^(PREPARE|ACCEPT|CHOSEN)$/.test(line.name)) return [];
  const heard = new Set([...line.effects.map((edge) => edge.to.server), ...lostTo(line)]);
  return readServers(line.fields.to).filter((number) => !heard.has(number));
}

/** The table of slots by servers at the chosen line. Maximum number of slots, around the one of interest. */
const MATRIX_MAX = 200;

function drawSlots(app) {
  const box = document.getElementById("slots"), line = app.line();
  const slots = slotsAt(app.run, line ? line.row : -1);
  const members = [...app.run.cluster].sort((a, b) => a - b);
  const numbers = [...slots.keys()].sort((a, b) => a - b);
  const here = line ? readSlot(line.fields.slot) : 0;
  const from = Math.max(0, numbers.length - MATRIX_MAX);
  const head = element("tr", "", element("th", "", "slot"), ...members.map((number) => {
    const cell = element("th", "", `s${number}`);
    cell.style.setProperty("--hue", `var(--s${hueOf(number)})`);
    return cell;
  }), element("th", "", "value"));
  const rows = numbers.slice(from).reverse().map((slot) => {
    const known = slots.get(slot);
    const open = element("button", "", `${slot}${known.chosen ? "\u2605" : ""}`);
    open.type = "button";
    open.title = `Only slot ${slot}`;
    open.onclick = () => app.setFilter({ slot });
    const value = element("td", "");
    value.style.cssText = "text-align:left;max-width:96px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;color:var(--dim)";
    if (known.what) {
      value.textContent = plain(command(known.what.fields));
      value.title = value.textContent;
    }
    const row = element("tr", slot === here ? "now" : "", element("td", "slot", open), ...members.map((number) => {
      const cell = element("td", ""), accepted = known.accepted[number], applied = known.applied[number];
      if (accepted || applied) {
        const mark = element("span", applied ? "cell applied" : "cell", accepted || "\u2713");
        cell.style.setProperty("--hue", `var(--s${hueOf(ownerOf(accepted || applied))})`);
        mark.title = `${accepted ? `s${number} has accepted slot ${slot} at ${accepted}` : `s${number} has not accepted slot ${slot}`}; ${applied ? "applied" : "not applied"}`;
        cell.append(mark);
      }
      return cell;
    }), value);
    row.dataset.key = slot;
    return row;
  });
  const note = element("p", "dim", "State at the selected line. A cell shows the ballot at which this server accepted last. Solid: its learner has applied the slot. \u2605: announced as chosen.");
  const less = from ? element("p", "undrawn", `${from} older slots are not drawn.`) : "";
  patch(box, note, less, element("table", "matrix", head, ...rows));
}

function drawLegend() {
  const box = document.getElementById("legend");
  const list = element("div", "legend-list");
  const item = (svg, text) => {
    const holder = element("div");
    holder.innerHTML = `<svg viewBox="-14 -9 28 18" class="marks">${svg}</svg>`;
    list.append(holder.firstChild, element("span", "", text));
  };
  for (const [name, [shape, paint, says]] of Object.entries(MARKS)) {
    const hue = /REQUEST|RESPONSE|DROP|CRASH|RESTART|CATCHUP|FILL|TIMEOUT|FAILOVER|FAULT|VIOLATION/.test(name) ? 0 : 1;
    item(`<path class="${paint}" style="--hue:var(--${/FAULT|VIOLATION/.test(name) ? "bad" : `s${hue}`})" d="${SHAPES[shape](R)}"/>`, says);
  }
  item('<path class="full" style="--hue:var(--s0)" d="' + SHAPES.dot(R) + '"/>', "another event: point at it");
  const arrows = element("div", "legend-list");
  const arrow = (dash, width, head, text) => {
    const holder = element("div");
    holder.innerHTML = `<svg viewBox="0 0 28 18" class="arrows hot" style="--hue:var(--s1)"><path d="M1 9H20" style="stroke-width:${width}" ${dash}/><path class="head" d="${head}"/></svg>`;
    arrows.append(holder.firstChild, element("span", "", text));
  };
  const tip = "M27 9L20 12.5L20 5.5Z";
  arrow("", 1.1, tip, "a message of phase 1, or of a client");
  arrow("", 2.4, tip, "a message of phase 2");
  arrow('stroke-dasharray="1 2.5"', 1.2, tip, "a notification that a slot is chosen");
  arrow('stroke-dasharray="4 3"', 1.1, "M22 4H24V14H22Z", "a refusal");
  arrow('stroke-dasharray="4 3"', 1.1, "", "a dropped message");
  item('<path class="stray" style="--hue:var(--s1)" d="M-13 -3L6 3"/><path class="cross" transform="translate(6 3)" d="' + SHAPES.cross(3.6) + '"/>', "a message that the network lost");
  item('<path class="wall" d="M0 -9V9"/>', "a wall: no message can pass between the servers on its two sides");
  item('<path class="kept" style="--hue:var(--s1)" d="M-8 -9V9"/><circle class="shared" style="--hue:var(--s1)" cx="5" cy="0" r="6"/>', "an acceptor that two quorums share, at the chosen proposal");
  const hues = element("p", "", "Color shows the owner of the ballot: ");
  hues.append(dressed([1, 2, 3, 4, 5].flatMap((number) => [{ ballot: `3.${number}` }, ` s${number}${number < 5 ? ", " : "."}`])));
  box.replaceChildren(element("h3", "", "marks"), list, element("h3", "", "arrows"), arrows, element("h3", "", "color"), hues,
    element("p", "dim", "A hatched column: the role was down. Paler: the process was killed, and the exact time is unknown. In the overview above, each bar is a request: the higher, the longer it took (each grid line is ten times the one below). A hollow bar: the request was not done."));
}
