// The page as a whole: opens the first exercise, and draws everything after each change.

let ring = null;
let runner = null;
let noteTimer = 0;

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  store.change((kept) => {
    kept.dark = dark;
  });
}

/** A short word at the edge of the page; `long` ones stay longer. */
function tellNote(text, long) {
  clearTimeout(noteTimer);
  $("gone").textContent = text;
  $("gone").hidden = false;
  noteTimer = setTimeout(
    () => {
      $("gone").hidden = true;
    },
    long ? 9000 : 4500,
  );
}

function tellTrouble(error) {
  if (error instanceof Stopped) return;
  tellNote(whereWrong(error), true);
}

/** Says that an answer is late; nothing moves while it is awaited. */
function tellWaiting(late) {
  const old = document.querySelector(".wait");
  if (late && !old) $("ring").append(element("p", { class: "wait", role: "status" }, "The program is at work \u2026"));
  else if (!late && old) old.remove();
}

function drawHead(game) {
  const { exercise, view } = game,
    mode = view.mode,
    safety = $("safety");
  $("pick").firstElementChild.textContent =
    `${exercise.number && game.text === null ? `${exercise.number} \u00b7 ` : ""}${exercise.title}`;
  safety.hidden = false;
  safety.className = `pill ${view.broken ? "bad" : "good"}`;
  const stale = view.broken && !view.broken.sides.length;
  safety.replaceChildren(
    view.broken ? "\u2717 " : "\u2713 ",
    element("span", { class: "only-wide" }, stale ? "a rule is " : view.broken ? "agreement is " : "agreement "),
    view.broken ? "broken" : "holds",
  );
  $("mode").replaceChildren(
    element("span", { class: mode.unsafe ? "unsafe" : null, title: mode.sentence }, modeParts(mode)),
  );
  $("undo").setAttribute("aria-disabled", String(!game.cursor));
  $("redo").setAttribute("aria-disabled", String(game.cursor >= game.codes().length));
}

/** The sentence of a mode, what is special first: the end may be cut off. */
function modeParts(mode) {
  const parts = mode.sentence.split(", ");
  return [parts[parts.length - 1], ...parts.slice(1, -1), parts[0]].join(" \u00b7 ");
}

function drawAlarm(game) {
  const { broken } = game.view,
    box = $("alarm");
  box.hidden = !broken;
  if (!broken) return;
  const servers = (quorum) =>
    quorum.flatMap((id, n) => {
      const name = serverName(`s${id}`);
      if (broken.both && broken.both.includes(id)) name.classList.add("shared");
      return n ? [", ", name] : [name];
    });
  const sides = broken.sides.flatMap((side, n) => [
    n ? " and " : "",
    valueChip(side.value),
    " at ",
    ballotChip(side.ballot),
    " by ",
    ...servers(side.quorum),
  ]);
  const both =
    broken.sides.length > 1
      ? broken.both && broken.both.length
        ? ["Both quorums hold ", ...servers(broken.both), ". "]
        : ["The two quorums share no server. "]
      : [];
  refill(
    box,
    element("b", {}, broken.sides.length > 1 ? `${broken.sentence.split(":")[0]}. ` : `${broken.sentence} `),
    sides,
    sides.length ? ". " : "",
    both,
    broken.forgot ? [...dressed(broken.forgot.sentence), " "] : [],
    button(
      {
        class: "link",
        "data-key": "broken step",
        click: () => game.next(() => game.goTo(placeOfStep(game.view, broken.step))),
      },
      `step ${broken.step}`,
    ),
    " ",
    element("span", { class: "dim" }, ruleWords(broken)),
  );
}

/** Draws what a change has changed. `how` says what it was. */
function draw(game, how) {
  markValues(valuesOf(game.view));
  if (how.act) ring.fly(how.act);
  if (how.act || how.ran) game.fresh = false;
  if (how.picked) {
    drawChoices(game);
    ring.draw();
    drawChosen(game);
    return;
  }
  drawPast(game);
  if (how.strips) return;
  drawHead(game);
  drawAlarm(game);
  drawExercise(game);
  drawVotes(game);
  drawWhy(game);
  drawTools(game);
  drawChoices(game);
  ring.draw();
  drawChosen(game);
  speak(game, how);
  // The keys play the exercise at once, wherever it was opened.
  if (how.opened) $("list").focus({ preventScroll: true });
  addressOf(game).then((hash) => {
    if (!hash) return;
    game.written = hash;
    history.replaceState(null, "", hash);
  });
}

/** Says the step; goals and breaks at once. */
function speak(game, how) {
  const { view } = game,
    step = view.steps[game.cursor - 1],
    words = step
      ? step.skipped || [step.sentence, step.why ? step.why.sentence : ""].join(" ").trim()
      : "The beginning.";
  if (how.opened) say(`Exercise: ${game.exercise.title}. ${game.exercise.text}`);
  else say(how.moved ? `Step ${game.cursor}. ${words}` : words);
  if (!step || how.moved || how.opened) return;
  if (step.broken)
    say(view.broken ? view.broken.sentence : "What may never happen has happened. Undo takes it back.", true);
  else if (view.done && step.goals.length) say("All goals are met.", true);
  else if (step.goals.length) say(`Goal met: ${step.goals.map((n) => view.goals[n].text).join("; ")}`, true);
  else say("", true);
}

async function begin() {
  const kept = store.read();
  document.documentElement.dataset.theme = (
    kept.dark === undefined ? matchMedia("(prefers-color-scheme: dark)").matches : kept.dark
  )
    ? "dark"
    : "light";
  const game = new Game(new Service(), (how) => draw(game, how));
  ring = new Ring(game);
  runner = new Runner(game);
  runner.draw();
  listen(game);
  showTab("next");
  matchMedia("(max-width: 760px)").addEventListener(
    "change",
    () => game.view && draw(game, { strips: false, moved: true }),
  );
  window.paxosPlay = { game, ring, runner };
  await start(game);
}

/** What is open at the beginning: what the command line names, what was open last, or the first exercise. */
function firstOf(game, list) {
  const known = (name) => game.catalog.some((exercise) => exercise.name === name);
  const last = store.read().last || {};
  if (list.own) return [null, list.own.text, null];
  if (list.first && known(list.first)) return [list.first, null, null];
  if (last.text) return [null, last.text, null];
  return [known(last.name) ? last.name : game.catalog[0].name, null, null];
}

/** Asks for the exercises, and opens the one that the address asks for, or another. */
async function start(game) {
  try {
    const list = await game.service.exercises();
    game.catalog = list.exercises;
    game.own = list.own || null;
    let asked = null;
    try {
      asked = await readAddress();
    } catch {
      tellNote("The address is not readable as a link of this page, so the last exercise is opened.", true);
    }
    try {
      if (asked) await game.open(asked.name, asked.text, asked);
    } catch (error) {
      tellTrouble(error);
      asked = null;
    }
    if (!asked) await game.open(...firstOf(game, list));
    document.body.classList.remove("loading");
    $("list").focus({ preventScroll: true });
  } catch (error) {
    $("ring").replaceChildren(
      element(
        "div",
        { class: "offline" },
        element("p", {}, error.message),
        button({ class: "plain go", click: () => start(game) }, "Try again"),
      ),
    );
  }
}

begin();
