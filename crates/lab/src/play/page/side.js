// The side: the exercise with its goals, the table of votes, why the last step came out like this, and the rest.

const VOTE_ROWS = 5;
const GIVE_UP_AFTER = 10;
const starWords = (stars) => "\u2605".repeat(stars) + "\u2606".repeat(3 - stars);

function drawExercise(game) {
  const { exercise, view } = game,
    total = game.catalog.length;
  const goals = view.goals.map((goal) =>
    element(
      "li",
      { class: goal.met !== null ? "met" : null },
      element("span", { class: "hush" }, goal.met !== null ? "Met: " : "Open: "),
      dressed(goal.text, true),
    ),
  );
  const nevers = view.nevers.map((never) =>
    element("li", { class: `never${never.broken !== null ? " hit" : ""}` }, `Never: `, dressed(never.text, true)),
  );
  const broken = view.nevers.some((never) => never.broken !== null);
  refill(
    $("exercise"),
    element(
      "h2",
      {},
      exercise.number && game.text === null ? `Exercise ${exercise.number} of ${total}` : "Own exercise",
      button({ class: "link", "data-key": "all", click: () => openCatalog(game) }, "all"),
    ),
    element("h3", {}, exercise.title),
    element("p", { class: "task" }, dressed(exercise.text, true)),
    element("ul", { class: "goals" }, goals, nevers),
    broken
      ? element(
          "p",
          { class: "undo-me" },
          "This exercise is lost here: a \u201cnever\u201d has happened. ",
          button({ class: "link", "data-key": "undo it", click: () => game.undo() }, "Undo it"),
        )
      : null,
    element("div", { class: "score", id: "score" }),
    hintShown(game),
    view.done ? praise(game) : null,
    giveUp(game),
  );
  drawScore(game);
}

function drawScore(game) {
  const { view, guessed } = game,
    best = store.read().stars[game.key()] || 0,
    stars = view.done ? view.stars.now : 0;
  refill(
    $("score"),
    element(
      "span",
      {
        class: "stars",
        role: "img",
        "aria-label": view.done ? many(stars, "star") : `no stars yet${best ? `, best so far ${best}` : ""}`,
      },
      starWords(stars),
    ),
    element(
      "span",
      {},
      view.done ? view.stars.sentence : `${many(view.count, "step")}; 3 stars for ${view.par} in all`,
      guessed.all ? `; ${guessed.right} of ${guessed.all} foretold` : "",
    ),
    game.hints < 3 && !view.done
      ? button(
          {
            class: "link",
            "data-key": "hint",
            click: () => nextHint(game),
            title: game.hints === 2 ? "The third hint costs the third star" : null,
          },
          `Hint ${game.hints + 1} of 3`,
        )
      : null,
  );
}

function nextHint(game) {
  game.hints = Math.min(3, game.hints + 1);
  say(hintText(game) || "");
  if (game.hints === 3) game.next(() => game.settle({}, { select: game.selected }));
  else {
    game.save();
    drawExercise(game);
  }
}

function hintText(game) {
  if (game.hints === 0) return null;
  if (game.hints < 3) return game.exercise.hints[game.hints - 1];
  return game.view.hint || "From here no next step is known. Undo some steps, or begin again.";
}

function hintShown(game) {
  const text = hintText(game);
  return text && !game.view.done
    ? element("p", { class: "hint" }, element("b", {}, `Hint ${game.hints}: `), dressed(text, true))
    : null;
}

function praise(game) {
  const { exercise, view } = game,
    at = game.catalog.findIndex((known) => known.name === exercise.name),
    next = game.text === null ? game.catalog[at + 1] : null;
  const other = view.mode.unsafe ? exercise.modes.find((mode) => mode === "safe") : null;
  return element(
    "div",
    { class: "praise" },
    element(
      "p",
      {},
      element("b", {}, "All goals are met. "),
      exercise.why
        ? [...dressed(exercise.why.sentence, true), " ", element("span", { class: "rule" }, ruleWords(exercise.why))]
        : null,
    ),
    element(
      "div",
      { class: "row" },
      other
        ? button(
            { class: "link", "data-key": "kept", click: () => game.next(() => game.inMode(other)) },
            `Same choices in ${modeWords(other)}`,
          )
        : null,
      next
        ? button(
            { class: "link", "data-key": "onward", click: () => openExercise(game, next.name) },
            `Next: ${next.title} \u2192`,
          )
        : null,
    ),
  );
}

/** A goal that cannot be reached is an exercise too: after an effort, the page says why. */
function giveUp(game) {
  const { exercise, view } = game;
  if (!(exercise.needs_give_up || exercise.impossible) || view.mode.unsafe || view.done) return null;
  const tried = view.count >= GIVE_UP_AFTER || game.searched === `${game.key()} ${game.modeName()}`;
  if (!tried) return null;
  if (!game.gaveUp)
    return element(
      "p",
      { style: "margin:8px 0 0" },
      button(
        {
          class: "link",
          "data-key": "give up",
          click: () => {
            game.gaveUp = true;
            showTab("votes");
            drawExercise(game);
          },
        },
        "I give up: why can I not?",
      ),
    );
  const vote = view.votes[view.votes.length - 1];
  return element(
    "div",
    { class: "hint" },
    element(
      "p",
      {},
      element("b", {}, "Why not: "),
      exercise.why ? dressed(exercise.why.sentence, true) : "the rules of Paxos exclude it.",
      " ",
      element("span", { class: "rule" }, exercise.why ? ruleWords(exercise.why) : ""),
    ),
    vote ? element("p", {}, "Here, ", dressed(`slot ${vote.slot}: ${vote.sentence}`, true)) : null,
  );
}

const ruleWords = (why) =>
  [why.rule ? `rule ${why.rule}` : null, why.file ? why.file.replace(/^.*\/(?=[^/]+\/[^/]+$)/, "") : null]
    .filter(Boolean)
    .join(" \u00b7 ");

function drawVotes(game) {
  const { view } = game,
    votes = view.votes,
    hidden = votes.slice(0, Math.max(0, votes.length - 2)),
    shown = votes.slice(-2).reverse();
  $("votes").hidden = !votes.length && !matchMedia("(max-width: 760px)").matches;
  refill(
    $("votes"),
    votes.length
      ? shown.flatMap((vote, n) => voteTable(game, vote, n === 0))
      : [
          element("h2", {}, "Votes"),
          element(
            "p",
            { class: "dim" },
            view.servers.some((server) => server.participant)
              ? "Two-phase commit has no quorums: every participant must vote yes."
              : "Nothing is proposed yet.",
          ),
        ],
    hidden.map((vote) =>
      element(
        "p",
        { class: "older" },
        `Slot ${vote.slot}: `,
        vote.chosen.length ? [...vote.chosen.map(valueChip), " is chosen."] : dressed(vote.sentence, true),
      ),
    ),
  );
}

function voteTable(game, vote, first) {
  const useful = vote.rows.filter((row, n) => n < VOTE_ROWS || /^(chosen|may)$/.test(row.state)),
    left = vote.rows.length - useful.length;
  const cell = (kind, n, row) =>
    element(
      "td",
      { hue: ballotHue(row.ballot) },
      element("span", {
        class: `cell ${{ accepted: "y", may: "m", never: "x" }[kind]}`,
        role: "img",
        "aria-label": `s${n + 1} ${{ accepted: "has accepted", may: "still may", never: "never will" }[kind]}`,
      }),
    );
  const won = vote.chosen.length === 1,
    broken = vote.chosen.length > 1;
  return [
    element(
      "h2",
      {},
      `Slot ${vote.slot}: who may still vote`,
      first
        ? button(
            {
              class: "link",
              "data-key": "explain",
              "aria-expanded": String(Boolean(game.explains)),
              click: () => {
                game.explains = !game.explains;
                drawVotes(game);
              },
            },
            "explain",
          )
        : null,
    ),
    first && game.explains
      ? element(
          "p",
          { class: "dim" },
          "One row for each ballot. A filled dot: the acceptor has accepted, and its disk has it. A dotted ring: it still may. A cross: never, it has promised a higher ballot. ",
          `If dots and rings together are fewer than ${vote.needed}, the row can never be chosen. Learners know nothing of this table; it is read from the disks.`,
        )
      : null,
    vote.rows.length
      ? element(
          "table",
          { class: "grid" },
          element(
            "tr",
            {},
            element("td", { style: "border:0" }),
            game.view.servers.map(({ id }) => element("th", { scope: "col", hue: hueOf(id) }, `s${id}`)),
            element("th", { scope: "col" }, element("span", { class: "hush" }, "together")),
          ),
          useful.map((row) =>
            element(
              "tr",
              {},
              element(
                "td",
                { title: row.sentence },
                ballotChip(row.ballot),
                " ",
                row.value !== null ? valueChip(row.value) : element("span", { class: "dim" }, "no value yet"),
              ),
              row.cells.map((kind, n) => cell(kind, n, row)),
              element(
                "td",
                {
                  class: row.accepted + row.may >= vote.needed ? "enough" : "dim",
                  title: `${row.accepted} have accepted, ${row.may} still may; ${vote.needed} are needed`,
                },
                String(row.accepted + row.may),
              ),
            ),
          ),
        )
      : null,
    left > 0 ? element("p", { class: "older" }, `${many(left, "lower ballot")} that can never be chosen`) : null,
    element(
      "p",
      {
        class: `sentence${broken ? " bad" : won ? " won" : vote.rows.some((row) => row.state === "may") ? "" : " lost-all"}`,
      },
      dressed(vote.sentence, true),
    ),
  ];
}

/** Why the last step came out like this; on a phone it has a tab of its own. */
function drawWhy(game) {
  refill($("why"), element("h2", {}, game.cursor ? `Step ${game.cursor}` : "No step yet"), stepWords(game, true));
}

function drawTools(game) {
  const others = game.exercise.modes.filter((mode) => mode !== game.modeName());
  const act = (key, words, what) => button({ "data-key": key, click: what }, words);
  refill(
    $("tools"),
    element("h2", {}, "More"),
    element(
      "label",
      { class: "switch", title: "Before a delivery the page asks what the role will do" },
      element("input", {
        type: "checkbox",
        "data-key": "ask",
        checked: game.askFirst,
        change: (event) => {
          game.askFirst = event.target.checked;
          game.save();
          drawChosen(game);
        },
      }),
      "Ask first: what will the role do?",
    ),
    element(
      "div",
      { class: "tools" },
      act("break", runner.searching ? "stop the search" : "show me a way to break it", () => runner.search()),
      act("share", "share or export", () => openShare(game)),
      act("own", "own exercise", () => openOwn(game)),
      act("forget", "forget my progress", () => openForget(game)),
    ),
    others.length
      ? [
          element("p", { class: "dim", style: "margin:8px 0 2px" }, "Same choices, other mode:"),
          element(
            "div",
            { class: "tools" },
            others.map((mode) => act(`mode ${mode}`, modeWords(mode), () => game.next(() => game.inMode(mode)))),
          ),
        ]
      : null,
  );
}

const MODE_WORDS = { safe: "the safe mode", lost: "disks lost", "local-read": "local reads" };
function modeWords(mode) {
  const sizes = /^quorums (\d)\+(\d)$/.exec(mode);
  return sizes ? `quorums of ${sizes[1]} and ${sizes[2]}` : MODE_WORDS[mode] || mode;
}
