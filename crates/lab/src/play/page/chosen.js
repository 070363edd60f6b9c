// The selected choice: what it says, what it would do, and the buttons that do it.

const ACT_WORDS = {
  deliver: "Deliver",
  timer: "Let it run out",
  timeout: "Give up",
  ask: "Let it ask",
  crash: "Crash",
  kill: "Kill",
  "power-cut": "Cut power",
  restart: "Restart",
  start: "Start",
  cut: "Cut",
  join: "Join",
};
const IF_WORDS = {
  deliver: "If it arrives:",
  timer: "If it runs out:",
  timeout: "If it gives up:",
  ask: "If it asks:",
  crash: "If it crashes:",
  kill: "If it dies:",
  "power-cut": "If power fails:",
  restart: "If it restarts:",
  start: "If it starts:",
  cut: "If it is cut:",
  join: "If it is joined:",
};
/** A short rest before a preview is asked for, so that a held key asks once. */
const PREVIEW_AFTER = 40;

let previewTimer = 0;
let question = null;

function drawChosen(game) {
  const { view, selected } = game,
    box = $("choice");
  const choice = selected ? choiceOf(view, selected) : null,
    message = selected ? messageOf(view, selected) : null;
  clearTimeout(previewTimer);
  question = null;
  if (!choice && !message) {
    box.className = "choice calm";
    refill(
      box,
      element(
        "div",
        { class: "text" },
        element("h3", {}, "Nothing is selected"),
        element("p", { class: "dim" }, "Select a message in the ring or a line of the list."),
      ),
      element("div", { class: "if" }, element("p", { class: "dim" }, "Here stands what the selected choice would do.")),
      acts(game, null, null),
    );
    return;
  }
  const hue = message ? ballotHue(message.ballot) : choice.server ? hueOf(choice.server) : 0;
  box.className = "choice";
  box.style.setProperty("--hue", `var(--s${hue})`);
  const off = (choice && choice.off) || (message && message.off);
  const words = message
    ? [
        serverOrClient(message.from),
        " \u2192 ",
        serverOrClient(message.to),
        ` ${message.name} `,
        message.ballot ? ballotChip(message.ballot) : null,
      ]
    : [
        choice.server
          ? [serverName(`s${choice.server}`), " "]
          : choice.from
            ? [element("b", {}, choice.to ? `${choice.from} \u2013 ${choice.to} ` : `${choice.from} `)]
            : null,
        labelOf(choice),
      ];
  const notes = message
    ? [
        message.says ? element("p", { class: "dim" }, "\u201c", dressed(message.says), "\u201d") : null,
        message.hollow ? element("p", {}, "It will be lost: ", dressed(message.hollow), ".") : null,
        message.doubled ? element("p", { class: "dim" }, "This is a copy.") : null,
      ]
    : [element("p", { class: "dim" }, dressed(MEANINGS[meaningOf(choice)] || ""))];
  const told = element("div", { class: "if", id: "if" });
  refill(
    box,
    element(
      "div",
      { class: "text" },
      element("h3", {}, glyph(choice ? glyphOf(choice, message) : message.kind, hue), element("span", {}, words)),
      notes,
    ),
    told,
    acts(game, choice, message),
  );
  if (off) return told.replaceChildren(element("p", {}, element("b", {}, "Not possible now: "), dressed(off), "."));
  if (game.askFirst && askable(game, message)) return ask(game, choice, message, told);
  return preview(game, choice, told);
}

const serverOrClient = (name) => (/^s/.test(name) ? serverName(name) : element("b", {}, name));

const meaningOf = (choice) => (/^c\d[a-z]\d$/.test(choice.code) ? "fuse" : choice.kind);
const MEANINGS = {
  timer: "Time is yours: a timer runs out when you say so.",
  timeout: "A client waits as long as you let it.",
  ask: "The client sends its next request.",
  crash: "The role stops at once and loses what is not on disk. Messages to it are lost until it restarts.",
  fuse: "The role stops in the middle of its next turn.",
  kill: "The process ends. All its roles are down, and its disk stays.",
  "power-cut": "The process ends, and what was not synced is lost.",
  restart: "The role starts again, from its disk.",
  start: "The process starts again, from its disk.",
  cut: "Both directions. What is under way waits; what is sent from now on is lost.",
  join: "Messages between the two pass again.",
};

function acts(game, choice, message) {
  const can = choice && !choice.off;
  const act = (name, key, what, possible, extra) =>
    button(
      {
        "data-key": `act ${name}`,
        "aria-disabled": possible ? null : "true",
        ...extra,
        click: () => possible && what(),
      },
      name,
      " ",
      key ? element("kbd", { "aria-hidden": "true" }, key) : null,
    );
  const doit = choice ? ACT_WORDS[choice.kind] || "Do it" : "Deliver";
  const press = game.fresh && can;
  const points = choice && /^c\d[a-z]$/.test(choice.code) ? crashPoints(game, choice) : null;
  return element(
    "div",
    { class: `acts${message || !choice ? "" : " alone"}` },
    button(
      {
        class: "only-small",
        "data-key": "act undo",
        "aria-label": "Undo",
        "aria-disabled": game.cursor ? null : "true",
        click: () => game.undo(),
      },
      "\u21b6",
    ),
    button(
      {
        class: "go",
        "data-key": "act go",
        "aria-describedby": "if",
        "aria-disabled": can ? null : "true",
        click: () => can && game.deliver(),
      },
      press ? element("span", { class: "only-wide" }, "Press \u21b5") : null,
      element("span", { class: press ? "only-small" : null }, doit),
      element("span", { class: "only-small" }, choice ? ` ${shortOf(choice, message)}` : ""),
      press ? null : [" ", element("kbd", { "aria-hidden": "true" }, "\u21b5")],
    ),
    button(
      { class: "only-small", "data-key": "act run", "aria-label": "Let it run", click: () => runner.toggle() },
      "\u25b6",
    ),
    message || !choice
      ? [
          act("Double", "B", () => game.change("double"), message && message.double, { class: "aside" }),
          act("Drop", "X", () => game.change("drop"), message && message.drop, { class: "aside" }),
        ]
      : null,
    points,
  );
}

/** A crash in the middle of the next turn, at one of three points. */
function crashPoints(game, choice) {
  const found = ["step", "sync", "send"]
    .map((words, n) => [words, `${choice.code}${n + 1}`])
    .filter(([, code]) => choiceOf(game.view, code));
  return found.length
    ? element(
        "div",
        { class: "points" },
        "next turn, before its",
        found.map(([words, code]) =>
          button(
            {
              "data-key": `point ${code}`,
              title: `Select: crash in its next turn, before its ${words}`,
              click: () => {
                game.folds.open = "crashes";
                game.pick(code);
              },
            },
            words,
          ),
        ),
      )
    : null;
}

const shortOf = (choice, message) =>
  (message
    ? `${message.from} \u2192 ${message.to} ${message.name} ${message.ballot || ""}`
    : `${choice.server ? `s${choice.server} ` : choice.from || ""} ${choice.role || ""}`
  ).trim();

/** Shows what the choice would do, as the real roles do it. */
function preview(game, choice, told) {
  const played = game.played();
  told.replaceChildren(element("p", {}, element("b", {}, IF_WORDS[choice.kind] || "If it happens:"), " \u2026"));
  const show = async () => {
    try {
      const view = await game.service.view(game.address(game.branch()), [...played, choice.code]);
      if (told.isConnected) told.replaceChildren(...consequences(view, choice));
    } catch (error) {
      if (told.isConnected) told.replaceChildren(element("p", { class: "dim" }, error.message));
    }
  };
  previewTimer = setTimeout(show, PREVIEW_AFTER);
}

/** About three lines of the bar. */
const PREVIEW_LETTERS = 140;

function consequences(view, choice) {
  const step = view.steps[view.steps.length - 1];
  if (!step) return [];
  if (step.skipped) return [element("p", {}, "Nothing would happen: ", dressed(step.skipped), ".")];
  const all = [step.sentence, step.why ? step.why.sentence : null, ...step.more].filter(Boolean);
  const shown = [];
  let letters = 0;
  for (const text of all) {
    letters += text.length;
    if (shown.length && letters > PREVIEW_LETTERS) break;
    shown.push(text);
  }
  const left = all.length - shown.length;
  return [
    element(
      "p",
      { title: left ? all.join(" ") : null },
      element("b", {}, IF_WORDS[choice.kind] || "If it happens:"),
      shown.map((text) => [" ", dressed(text)]),
      left ? element("span", { class: "dim" }, ` And ${left} more.`) : null,
    ),
  ];
}

// Ask first: the reader says what a role will do, and then the real role answers.

/** Answers that make sense for a kind of message. */
function answersFor(game, message) {
  const values = [...valuesOf(game.view)].slice(0, 3);
  switch (message.kind) {
    case "prepare":
      return ["promise", "refuse", "nothing"];
    case "promise":
      return [...values.map((value) => `propose ${value}`), "nothing"];
    case "accept":
      return ["accept", "refuse", "nothing"];
    case "accepted":
      return ["answer its client or say what is chosen", "nothing"];
    default:
      return null;
  }
}

const askable = (game, message) =>
  Boolean(message && !message.hollow && /^s/.test(message.to) && answersFor(game, message));
const openQuestion = (game) => question !== null && !question.answered && question.code === game.selected;

function focusQuestion() {
  const first = document.querySelector("#if .answers button");
  if (first) first.focus();
}

function ask(game, choice, message, told) {
  question = { code: choice.code, answered: false };
  const asked = question;
  const answer = async (guess) => {
    if (asked.answered) return;
    asked.answered = true;
    try {
      const view = await game.service.view(game.address(game.branch()), [...game.played(), choice.code]);
      const real = reaction(game.view, view, message),
        right = real.includes(guess);
      game.guessed.all++;
      if (right) game.guessed.right++;
      if (!told.isConnected) return;
      told.replaceChildren(
        element(
          "p",
          { class: right ? "right" : "wrong" },
          element("b", {}, right ? "\u2713 Right. " : "\u2717 Not quite. "),
          `It will ${real.join(" and ")}.`,
        ),
        ...consequences(view, choice),
      );
      say(`${right ? "Right" : "Not quite"}. It will ${real.join(" and ")}.`);
      drawScore(game);
      const go = $("choice").querySelector(".acts .go");
      if (go) go.focus({ preventScroll: true });
    } catch (error) {
      asked.answered = false;
      tellTrouble(error);
    }
  };
  told.replaceChildren(
    element("p", {}, element("b", {}, "What will "), serverName(message.to), element("b", {}, " do?")),
    element(
      "div",
      { class: "answers", role: "group", "aria-label": `What will ${message.to} do?` },
      answersFor(game, message).map((words) => button({ click: () => answer(words) }, words)),
    ),
  );
}

/** What the receiver does, told from the messages that it sends. */
function reaction(before, after, message) {
  const count = (view) => {
    const found = new Map();
    for (const sent of view.messages)
      if (sent.from === message.to) {
        const key =
          sent.kind === "accept"
            ? `propose ${sent.value}`
            : { promise: "promise", refused: "refuse", accepted: "accept" }[sent.kind] ||
              (/^(chosen|reply)$/.test(sent.kind) ? "answer its client or say what is chosen" : null);
        if (key) found.set(key, (found.get(key) || 0) + 1);
      }
    return found;
  };
  const was = count(before),
    is = count(after);
  const done = [...is.keys()].filter((key) => is.get(key) > (was.get(key) || 0));
  return done.length ? done : ["nothing"];
}
