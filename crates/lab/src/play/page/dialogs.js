// Dialogs: the catalog of exercises, the comparison of two branches, and the help.

function openDialog(title, ...content) {
  $("dialog-title").textContent = title;
  $("dialog-body").replaceChildren(...content.flat().filter(Boolean));
  if (!$("dialog").open) $("dialog").showModal();
}

const closeDialog = () => $("dialog").close();

function openExercise(game, name) {
  closeDialog();
  return game.next(() => game.open(name, null, null));
}

function openCatalog(game) {
  const { stars } = store.read();
  const items = game.catalog.map((exercise) => {
    const got = stars[exercise.name] || 0,
      current = game.text === null && exercise.name === game.exercise.name;
    return element(
      "li",
      {},
      button(
        { "aria-current": String(current), click: () => openExercise(game, exercise.name) },
        element("span", { class: "dim" }, String(exercise.number)),
        element("span", {}, exercise.title),
        element(
          "span",
          { class: `tagged${/^(safe|quorums 4\+2)$/.test(exercise.mode) ? "" : " unsafe"}` },
          exercise.mode === "safe" ? protocolWords(exercise.protocol) : modeWords(exercise.mode),
        ),
        element("span", { class: "stars", role: "img", "aria-label": many(got, "star") }, got ? starWords(got) : ""),
      ),
    );
  });
  const own = game.own
    ? element(
        "li",
        {},
        button(
          {
            "aria-current": String(game.text === game.own.text),
            click: () => {
              closeDialog();
              game.next(() => game.open(null, game.own.text, null));
            },
          },
          element("span", { class: "dim" }, "\u2013"),
          element("span", {}, game.own.exercise.title),
          element("span", { class: "tagged" }, "your own"),
          element("span", {}),
        ),
      )
    : null;
  openDialog(
    "Exercises",
    element(
      "p",
      { class: "dim" },
      "You are the network: you decide which message arrives, and when. The roles are the real ones.",
    ),
    element("ul", { class: "catalog" }, own, items),
    element("div", { class: "row" }, button({ class: "plain", click: () => openOwn(game) }, "Own exercise \u2026")),
  );
  const current = $("dialog-body").querySelector("[aria-current=true]");
  if (current) current.focus();
}

const PROTOCOLS = {
  "basic-paxos": "Basic Paxos",
  "multi-paxos": "Multi-Paxos",
  "two-phase-commit": "two-phase commit",
  paxos: "Basic Paxos",
  basic: "Basic Paxos",
  multi: "Multi-Paxos",
};
const protocolWords = (name) => PROTOCOLS[name] || name;

async function openCompare(game) {
  const pair = compared(game);
  let views;
  try {
    views = await Promise.all(pair.map((branch) => game.service.view(game.address(branch), branch.codes)));
  } catch (error) {
    tellTrouble(error);
    return;
  }
  const [a, b] = views,
    shared = sharedSteps(a, b);
  const ends = endsOf(a, b);
  const column = (view, n) => element("div", {}, element("h3", {}, element("b", {}, pair[n].name), view.mode.sentence));
  const cells = ends.flatMap(([what, left, right]) => [
    element("p", {}, element("b", {}, ...dressed(what)), ": ", dressed(left)),
    element("p", {}, element("b", {}, ...dressed(what)), ": ", dressed(right)),
  ]);
  const steps = (view) =>
    element(
      "ol",
      { start: String(shared + 1) },
      view.steps
        .slice(shared)
        .map((step) =>
          element(
            "li",
            {},
            step.skipped
              ? [...dressed(step.text), element("span", { class: "dim" }, ` does not fit: ${step.skipped}`)]
              : dressed(step.sentence),
          ),
        ),
    );
  openDialog(
    `Compare ${pair[0].name} and ${pair[1].name}`,
    element(
      "p",
      { class: "dim" },
      shared ? `The first ${many(shared, "step")} are the same.` : "They differ from the first step.",
    ),
    element(
      "div",
      { class: "columns ends" },
      column(a, 0),
      column(b, 1),
      cells.length ? cells : [element("p", { class: "dim" }, "At the end all servers are alike.")],
    ),
    element("h3", {}, "The steps that differ"),
    element("div", { class: "columns" }, steps(a), steps(b)),
  );
}

/** Number of steps at the beginning that came out the same. */
function sharedSteps(a, b) {
  let n = 0;
  while (
    n < a.steps.length &&
    n < b.steps.length &&
    a.steps[n].code === b.steps[n].code &&
    a.steps[n].sentence === b.steps[n].sentence &&
    !a.steps[n].skipped === !b.steps[n].skipped
  )
    n++;
  return n;
}

/** What differs at the end: agreement, each slot, each role, each client. */
function endsOf(a, b) {
  const found = [];
  const add = (what, left, right) => {
    if (left !== right) found.push([what, left || "\u2013", right || "\u2013"]);
  };
  add("agreement", a.broken ? a.broken.sentence : "holds", b.broken ? b.broken.sentence : "holds");
  const slots = new Set([...a.votes, ...b.votes].map((vote) => vote.slot));
  const told = (view, slot) => {
    const vote = view.votes.find((known) => known.slot === slot);
    return vote
      ? vote.chosen.length
        ? `${vote.chosen.join(" and ")} is chosen`
        : "nothing is chosen"
      : "nothing is proposed";
  };
  for (const slot of [...slots].sort((x, y) => x - y)) add(`slot ${slot}`, told(a, slot), told(b, slot));
  for (const server of a.servers) {
    const other = b.servers.find((known) => known.id === server.id);
    for (const [, name] of rolesOf(server))
      if (other && other[name]) add(`s${server.id}'s ${name}`, server[name].text, other[name].text);
  }
  for (const client of a.clients) {
    const other = b.clients.find((known) => known.id === client.id);
    add(client.id, client.text, other ? other.text : "");
  }
  return found;
}

const KEYS = [
  ["\u2191 \u2193 or k j", "select"],
  ["\u21b5", "do it: deliver"],
  ["1 \u2013 9", "select the n-th choice"],
  ["B  X", "double, drop a message"],
  ["C  R", "select a crash, a restart"],
  ["L", "select a cut or a join"],
  ["\u2190 \u2192 or Z Y", "undo, redo"],
  ["[ ]", "other branch"],
  ["space", "let it run; any key stops it"],
  ["G", "goals"],
  ["V", "votes"],
  ["W", "why"],
  ["E", "all exercises"],
  ["D", "light or dark"],
  ["Esc", "select nothing"],
  ["?", "this help"],
];

function openHelp() {
  const rows = [];
  for (let n = 0; n < KEYS.length; n += 2)
    rows.push(
      element(
        "tr",
        {},
        KEYS.slice(n, n + 2).flatMap(([keys, words]) => [
          element("td", {}, element("kbd", {}, keys)),
          element("td", {}, words),
        ]),
      ),
    );
  openDialog(
    "You are the network",
    element(
      "p",
      {},
      "Five servers run the real program. Nothing moves by itself: you deliver, double or drop each message, let timers run out, crash roles and cut links. Undo takes back any number of steps.",
    ),
    element(
      "p",
      {},
      "Shape says what kind of message it is, color says whose ballot it belongs to. A solid line lies behind a message, a dotted line before it. P is the proposer, A the acceptor, L the learner of a server; a hatched role is down.",
    ),
    element(
      "p",
      {},
      "A choice made in the past begins a branch, so nothing is lost. The address of the page is a link to exactly these choices.",
    ),
    element("table", { class: "keylist" }, rows),
    element("p", { class: "dim" }, "No key needs Ctrl. Single letters work while no text field has the focus."),
  );
}
