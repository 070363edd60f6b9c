// Choices: the list of what can happen now. It is the whole interface for keys and for screen readers.

const GROUP_NAMES = {
  crashes: "crash \u2026",
  links: "cut a link \u2026",
  timers: "timers of learners",
  housekeeping: "housekeeping",
  off: "not possible now",
};
const ROLE_NAMES = {
  proposer: "proposer",
  acceptor: "acceptor",
  learner: "learner",
  coordinator: "coordinator",
  participant: "participant",
};
const isRepair = (choice) => /^(restart|start|join)$/.test(choice.kind);

/** A learner's timers only make it ask again for what it lacks. */
const isIdle = (choice) => choice.group === "timers" && choice.role === "learner";

/** What stands open in the list: messages, timers, clients, and what mends a fault. */
function mainChoices(view) {
  return view.enabled.filter(
    (choice) =>
      !choice.off && !isIdle(choice) && (/^(messages|timers|clients)$/.test(choice.group) || isRepair(choice)),
  );
}

/** What is folded, by the name of its fold. */
function foldedChoices(view, folds) {
  const rest = view.enabled.filter((choice) => !choice.off && !isRepair(choice));
  return {
    crashes: rest.filter((choice) => choice.group === "crashes" && choice.server === folds.server),
    links: rest.filter((choice) => choice.group === "links"),
    timers: rest.filter(isIdle),
    housekeeping: rest.filter((choice) => choice.group === "housekeeping"),
    off: view.enabled.filter((choice) => choice.off),
  };
}

/** Everything that the list shows, in its order. */
function listedChoices(game) {
  const folded = foldedChoices(game.view, game.folds);
  return [...mainChoices(game.view), ...(game.folds.open ? folded[game.folds.open] : [])];
}

function drawChoices(game) {
  const { view, folds } = game,
    main = mainChoices(view),
    folded = foldedChoices(view, folds);
  const counts = {
    ...Object.fromEntries(Object.entries(folded).map(([name, choices]) => [name, choices.length])),
    crashes: view.enabled.filter((choice) => choice.group === "crashes" && !choice.off && !isRepair(choice)).length,
  };
  $("next-title").textContent = `What can happen now \u00b7 ${main.length}`;
  $("tab-next").textContent = `Next \u00b7 ${main.length}`;
  const open = folds.open && counts[folds.open] ? folds.open : null;
  const rows = [...main, ...(open ? folded[open] : [])];
  const options = rows.map((choice, n) => option(game, choice, n));
  if (open)
    options.splice(
      main.length,
      0,
      element(
        "div",
        { class: "sub", role: "presentation" },
        FOLD_WORDS[open] + (open === "crashes" ? `s${folds.server}:` : ""),
      ),
    );
  $("list").replaceChildren(...options);
  if (!main.length && !open)
    $("list").append(
      element("p", { class: "sub" }, view.limit || "Nothing is under way. Crash something, cut a link, or undo."),
    );
  if (view.limit) $("list").prepend(element("p", { class: "limit" }, view.limit));
  const marked = $("list").querySelector("[aria-selected=true]");
  if (marked) {
    $("list").setAttribute("aria-activedescendant", marked.id);
    if (game.follow) marked.scrollIntoView({ block: "nearest" });
  } else $("list").removeAttribute("aria-activedescendant");
  refill(
    $("folds"),
    Object.entries(GROUP_NAMES).map(([name, words]) =>
      counts[name]
        ? button(
            {
              "data-key": name,
              "aria-expanded": String(open === name),
              click: () => unfold(game, open === name ? null : name),
            },
            /\u2026$/.test(words) ? words : `${counts[name]} ${words}`,
          )
        : null,
    ),
    open === "crashes" ? serverPicker(game) : null,
  );
}

const FOLD_WORDS = {
  crashes: "Crash a role or a process of ",
  links: "Cut a link: what is under way waits, and what is sent is lost.",
  timers: "A learner that lacks something asks again.",
  housekeeping: "Messages that keep a cluster going and teach little here.",
  off: "Not possible now, and why:",
};

function serverPicker(game) {
  return element(
    "span",
    { class: "servers", role: "group", "aria-label": "Crash which server" },
    game.view.servers.map(({ id }) =>
      button(
        {
          class: "who",
          hue: hueOf(id),
          "data-key": `of ${id}`,
          "aria-pressed": String(game.folds.server === id),
          click: () => unfoldServer(game, id),
        },
        `s${id}`,
      ),
    ),
  );
}

function option(game, choice, n) {
  const selected = game.selected === choice.code,
    message = messageOf(game.view, choice.code);
  const off = choice.off ? element("span", {}, `: ${choice.off}`) : null;
  const row = element(
    "div",
    {
      class: `option${choice.off ? " off" : ""}`,
      role: "option",
      id: `choice-${n}`,
      "data-code": choice.code,
      "aria-selected": String(selected),
      "aria-disabled": choice.off ? "true" : null,
      "aria-label": spoken(choice, message),
      title: spoken(choice, message),
    },
    glyph(glyphOf(choice, message), message ? ballotHue(message.ballot) : hueOf(choice.server)),
    element("em", {}, whereOf(choice)),
    element("span", { class: "what" }, labelOf(choice), off),
    choice.off ? null : selected ? element("kbd", {}, "\u21b5") : n < 9 ? element("kbd", {}, String(n + 1)) : null,
  );
  row.addEventListener("click", (event) => (event.detail === 2 ? game.deliver() : pickByHand(game, choice.code)));
  return row;
}

const messageOf = (view, code) => view.messages.find((message) => message.id === code) || null;
const choiceOf = (view, code) => view.enabled.find((choice) => choice.code === code) || null;

function glyphOf(choice, message) {
  if (message) return message.kind;
  return (
    {
      timer: "timer",
      timeout: "client",
      ask: "request",
      crash: "crash",
      kill: "crash",
      "power-cut": "crash",
      restart: "restart",
      start: "restart",
      cut: "cut",
      join: "join",
    }[choice.kind] || "other"
  );
}

function whereOf(choice) {
  if (choice.from && choice.to) return `${choice.from} ${choice.group === "links" ? "\u2013" : "\u2192"} ${choice.to}`;
  return choice.server ? `s${choice.server}` : choice.from || "";
}

/** The words of a choice; a role's name leads where the program names the role beside it. */
function labelOf(choice) {
  const role = choice.group === "crashes" && choice.role ? `${ROLE_NAMES[choice.role]}: ` : "";
  return dressed(role + choice.label, true);
}

function spoken(choice, message) {
  const words = message
    ? message.text
    : `${choice.server ? `s${choice.server}` : ""} ${choice.role || ""}: ${choice.label}`
        .replace(/^\s*:\s*/, "")
        .trim();
  return choice.off ? `${words}. Not possible now: ${choice.off}` : words;
}

/** Selects what was clicked. The keys go on from there, so the enter key does it. */
function pickByHand(game, code) {
  game.pick(code);
  $("list").focus({ preventScroll: true });
}

/** Opens a fold, or closes it, and selects its first choice. */
function unfold(game, name) {
  game.folds.open = name;
  const shown = name
    ? foldedChoices(game.view, game.folds)[name].filter((choice) => !choice.off)
    : mainChoices(game.view);
  game.pick(shown.length ? shown[0].code : game.selected);
  $("list").focus({ preventScroll: true });
}

function unfoldServer(game, id) {
  game.folds.server = id;
  unfold(game, "crashes");
}

/** What a click on a role means: its restart if it is down, else its crash. */
function selectRole(game, server, role) {
  const of = game.view.enabled.filter(
    (choice) => choice.server === server && choice.role === role && choice.group === "crashes" && !choice.off,
  );
  const choice = of.find(isRepair) || of.find((known) => /^c\d[a-z]$/.test(known.code)) || of[0];
  if (!choice) return;
  game.folds.server = server;
  if (!isRepair(choice)) game.folds.open = "crashes";
  pickByHand(game, choice.code);
}

function isOfRole(game, server, role) {
  const choice = game.selected ? choiceOf(game.view, game.selected) : null;
  return Boolean(choice && choice.group === "crashes" && choice.server === server && choice.role === role);
}

const joinCode = (view, link) =>
  (
    view.enabled.find(
      (choice) => choice.kind === "join" && choice.from === `s${link.a}` && choice.to === `s${link.b}`,
    ) || {}
  ).code || null;

/** Selects the next choice of these kinds; used by the keys for crash, restart, cut and join. */
function cycle(game, fold, fits) {
  const all = game.view.enabled.filter((choice) => !choice.off && fits(choice));
  if (!all.length) return;
  const next = all[(all.findIndex((choice) => choice.code === game.selected) + 1) % all.length];
  if (fold === "crashes" && next.server) game.folds.server = next.server;
  if (fold) game.folds.open = fold;
  game.pick(next.code);
}
