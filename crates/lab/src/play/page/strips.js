// Strips: the choices so far, one glyph each, a strip for each branch; and the sentence of the last step.

/** The rule by which an acceptor refuses. */
const REFUSAL_RULE = 3;

/** The place of a numbered step in the list of choices: those that did not fit have no number. */
function placeOfStep(view, number) {
  return view.steps.findIndex((step) => !step.skipped && step.n === number) + 1;
}

/** The sentence of the step at the cursor, with what else happened and why. */
function stepWords(game, whole) {
  const step = game.view.steps[game.cursor - 1];
  if (!step) return [element("p", { class: "dim" }, "Every choice is a step. What it did is told here.")];
  if (step.skipped) return [element("p", {}, dressed(step.text), " does not fit here: ", dressed(step.skipped), ".")];
  return [
    element("p", {}, dressed(step.sentence)),
    ...(whole ? step.more.map((text) => element("p", { class: "dim" }, dressed(text))) : []),
    step.why ? element("p", {}, ...whyWords(game, step.why)) : null,
  ];
}

function whyWords(game, why) {
  return [stepLinks(game, why), " ", element("span", { class: "rule", title: why.file || null }, ruleWords(why))];
}

/** The reason of a step; the step that it names is a link. */
function stepLinks(game, why) {
  const link = (words) =>
    button(
      {
        class: "link",
        "data-key": "why step",
        title: "Go to that step",
        click: () => game.next(() => game.goTo(placeOfStep(game.view, why.step))),
      },
      words,
    );
  const named = why.step ? new RegExp(`\\bstep ${why.step}\\b`).exec(why.sentence) : null;
  if (!named) return [dressed(why.sentence), why.step ? [" ", link(`step ${why.step}`)] : null];
  return [
    dressed(why.sentence.slice(0, named.index)),
    link(named[0]),
    dressed(why.sentence.slice(named.index + named[0].length)),
  ];
}

function drawPast(game) {
  const { view } = game,
    step = view.steps[game.cursor - 1];
  // A refusal is what a reader must not miss.
  const odd = step && (step.skipped || (step.why && step.why.rule === REFUSAL_RULE));
  const more = step && !step.skipped ? step.more.length : 0;
  const told = step
    ? [
        element("span", { class: "number" }, String(game.cursor)),
        element(
          "span",
          { title: step.sentence },
          step.skipped
            ? [...dressed(step.text), " does not fit here: ", ...dressed(step.skipped)]
            : dressed(step.sentence),
          step.why ? [" ", stepLinks(game, step.why)] : null,
        ),
      ]
    : [element("span", { class: "dim" }, "No step yet. Select a message and deliver it: you are the network.")];
  const others = game.branches.length > 1;
  refill(
    $("past"),
    element(
      "div",
      { class: "told" },
      element(
        "div",
        { class: `says${odd ? " odd" : ""}` },
        told,
        step && step.why && ruleWords(step.why)
          ? element("span", { class: "rule", title: step.why.file || null }, ruleWords(step.why))
          : null,
        more
          ? button(
              {
                class: "link",
                "data-key": "more",
                "aria-expanded": String(Boolean(game.wide)),
                click: () => {
                  game.wide = !game.wide;
                  drawPast(game);
                },
              },
              game.wide ? "less" : `and ${more} more`,
            )
          : null,
      ),
      view.skipped
        ? element("span", { class: "dim" }, `${many(view.skipped, "choice does", "choices do")} not fit here`)
        : null,
      element(
        "div",
        { class: "end" },
        others
          ? button(
              { class: "link", "data-key": "compare", click: () => openCompare(game) },
              `Compare ${compared(game)
                .map((branch) => branch.name)
                .join(" and ")}`,
            )
          : null,
        button({ class: "link", "data-key": "share", click: () => openShare(game) }, "Share \u00b7 export"),
      ),
    ),
    game.wide && more
      ? element(
          "ul",
          { class: "others" },
          step.more.map((text) => element("li", {}, dressed(text))),
        )
      : null,
    game.branches.map((branch, n) => strip(game, branch, n)),
  );
  $("tab-steps").textContent = `Steps \u00b7 ${game.cursor}`;
  const here = $("past").querySelector(".here");
  if (here) {
    const row = here.parentNode;
    if (here.offsetLeft < row.scrollLeft + 40 || here.offsetLeft > row.scrollLeft + row.clientWidth - 70)
      row.scrollLeft = here.offsetLeft - row.clientWidth / 2;
  }
}

function strip(game, branch, n) {
  const current = n === game.here,
    from = Math.min(branch.from, branch.codes.length),
    shared = n > 0 && from > 0 && !branch.mode;
  const about = branch.mode ? modeWords(branch.mode) : shared ? `from ${from}` : many(branch.codes.length, "step");
  const buttons = branch.codes.map((code, at) => {
    const step = branch.steps[at] || { glyph: "other", ballot: null, sentence: code, skipped: null },
      number = at + 1;
    const here = current && game.cursor === number;
    return button(
      {
        class:
          `${here ? "here" : ""}${!current || number > game.cursor ? " ahead" : ""}${step.skipped ? " misfit" : ""}`.trim() ||
          null,
        "data-key": `step ${n} ${number}`,
        tabindex:
          here || (current && game.cursor === 0 && at === 0) || (!current && number === branch.codes.length)
            ? "0"
            : "-1",
        title: `${number}. ${step.skipped ? `does not fit: ${step.skipped}` : step.sentence}`,
        "aria-current": here ? "step" : null,
        "aria-label": `Branch ${branch.name}, step ${number}: ${step.skipped ? `does not fit: ${step.skipped}` : step.sentence}`,
        click: () => game.next(() => (n === game.here ? game.goTo(number) : game.switchTo(n, number))),
      },
      glyph(step.glyph, ballotHue(step.ballot)),
    );
  });
  const pads = shared
    ? [
        ...Array(Math.max(0, from - 1))
          .fill(0)
          .map(() => element("span", { class: "pad" })),
        element("span", { class: "fork", "aria-hidden": "true" }, "\u2570"),
      ]
    : [];
  return element(
    "div",
    { class: "strip", "data-here": String(current) },
    button(
      {
        "data-key": `branch ${n}`,
        title: current ? `Branch ${branch.name}: to its beginning` : `To branch ${branch.name}`,
        "aria-label": `Branch ${branch.name}, ${about}`,
        "aria-pressed": String(current),
        click: () => game.next(() => (current ? game.goTo(0) : game.switchTo(n))),
      },
      element("b", {}, branch.name),
      element("span", { class: "dim" }, about),
    ),
    element(
      "div",
      { class: "steps", role: "group", "aria-label": `Steps of branch ${branch.name}` },
      pads,
      shared ? buttons.slice(from) : buttons,
      game.branches.length > 1
        ? button(
            {
              class: "away",
              "data-key": `away ${n}`,
              title: `Remove branch ${branch.name}`,
              "aria-label": `Remove branch ${branch.name}`,
              click: () => game.next(() => game.remove(n)),
            },
            "\u00d7",
          )
        : null,
    ),
  );
}

/** The two branches that are compared: this one and the one before it. */
function compared(game) {
  const other = game.here === 0 ? 1 : game.here - 1;
  return [game.branches[Math.min(game.here, other)], game.branches[Math.max(game.here, other)]];
}
