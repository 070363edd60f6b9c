// Run: lets the choices come by themselves, and searches for choices that break agreement.

const AHEAD = 40;
const SEARCH_SECONDS = 5;

class Runner {
  constructor(game) {
    this.game = game;
    this.seed = 1;
    this.going = null;
    this.searching = null;
  }

  toggle() {
    if (this.going) this.stop();
    else this.start();
  }

  stop() {
    if (!this.going) return;
    this.going.abort();
    this.going = null;
    this.draw();
  }

  async start() {
    const { game } = this,
      going = new AbortController(),
      pace = Number($("pace").value),
      policy = $("policy").value;
    this.going = going;
    this.draw();
    try {
      await game.turn;
      const seed = policy === "random" ? this.seed++ : 1;
      const body = {
        ...game.address(game.branch()),
        c: game.played().join("-"),
        policy,
        seed,
        most: pace ? AHEAD : 100,
      };
      const found = await game.service.post("/run", body, going.signal, 20000);
      const codes = found.c ? found.c.split("-") : [];
      if (policy === "random") $("policy").querySelector("[value=random]").textContent = `random, seed ${this.seed}`;
      if (pace) await this.walk(codes, pace, going);
      else if (!going.signal.aborted && codes.length > game.cursor)
        await game.next(() => game.extend(codes, { ran: true }));
      const done = found.added ? many(found.added, "choice") : "Nothing was done";
      if (!going.signal.aborted) tellNote(`${done}${policy === "random" ? `, seed ${seed}` : ""}. ${found.why}`);
    } catch (error) {
      tellTrouble(error);
    }
    if (this.going === going) {
      this.going = null;
      this.draw();
    }
  }

  /** Plays a found list step by step. */
  async walk(codes, pace, going) {
    for (let at = this.game.cursor + 1; at <= codes.length && !going.signal.aborted; at++) {
      await this.game.next(() => (going.signal.aborted ? null : this.game.extend(codes.slice(0, at), { ran: true })));
      if (at < codes.length) await rest(1000 / pace, going.signal);
    }
  }

  /** Searches from here; what it finds is a branch. */
  async search() {
    const { game } = this;
    if (this.searching) return this.searching.abort();
    const searching = new AbortController();
    this.searching = searching;
    drawTools(game);
    tellNote(`Searching for at most ${SEARCH_SECONDS} seconds \u2026`);
    try {
      const body = { ...game.address(game.branch()), c: game.played().join("-"), seconds: SEARCH_SECONDS };
      const found = await game.service.post("/break", body, searching.signal, 30000);
      if (found.found) {
        const branch = { codes: found.c.split("-"), from: game.cursor, mode: game.branch().mode };
        await game.next(() => game.fork(branch, { moved: true }));
      } else game.searched = `${game.key()} ${game.modeName()}`;
      tellNote(found.sentence, true);
      drawExercise(game);
    } catch (error) {
      if (error instanceof Stopped) tellNote("The search is stopped.");
      else tellTrouble(error);
    }
    this.searching = null;
    drawTools(game);
    return undefined;
  }

  draw() {
    const node = $("run"),
      going = Boolean(this.going);
    node.replaceChildren(
      element("span", { "aria-hidden": "true" }, going ? "\u25a0" : "\u25b6"),
      going ? " stop" : " let it run",
    );
    node.setAttribute("aria-pressed", String(going));
    node.setAttribute("aria-label", going ? "Stop" : "Let it run");
  }
}

/** Waits, or less if it is stopped. */
const rest = (time, signal) =>
  new Promise((done) => {
    const timer = setTimeout(done, time);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        done();
      },
      { once: true },
    );
  });
