// Game: the exercise, the lists of choices, and the place in them. Each change asks for the view of its list first,
// and only an answer changes anything: an error leaves all as it was.

const BRANCHES_MAX = 4;
const BRANCH_NAMES = "ABCD";
const WAITING_MAX = 8;

class Game {
  constructor(service, shown) {
    this.service = service;
    /** Called after each change: (how) => draws. */
    this.shown = shown;
    this.catalog = [];
    /** The exercise that the command line names, with its text. */
    this.own = null;
    this.exercise = null;
    /** Text of an exercise that is not built in. */
    this.text = null;
    this.branches = [];
    this.here = 0;
    this.cursor = 0;
    this.view = null;
    this.before = null;
    this.selected = null;
    this.hints = 0;
    /** The mode in which a whole search found nothing, as `exercise mode`. */
    this.searched = "";
    this.guessed = { right: 0, all: 0 };
    this.askFirst = store.read().askFirst === true;
    this.fresh = Object.keys(store.read().games).length === 0;
    /** What is unfolded in the list, and whose crashes it shows. */
    this.folds = { open: null, server: 1 };
    this.turn = Promise.resolve();
    this.waiting = 0;
  }

  branch() {
    return this.branches[this.here];
  }

  /** The choices that led to this view. */
  played() {
    return this.branch().codes.slice(0, this.cursor);
  }

  codes() {
    return this.branch().codes;
  }

  key() {
    return this.text === null ? this.exercise.name : `own ${this.exercise.title}`;
  }

  address(branch) {
    const where = this.text === null ? { x: this.exercise.name } : { text: this.text };
    if (branch.mode) where.mode = branch.mode;
    if (this.hints > 2) where.hinted = true;
    return where;
  }

  /** Does one thing after the other; more than a few keys ahead are not remembered. */
  next(work) {
    if (this.waiting >= WAITING_MAX) return this.turn;
    this.waiting++;
    this.turn = this.turn
      .then(work)
      .catch((error) => tellTrouble(error))
      .finally(() => {
        this.waiting--;
      });
    return this.turn;
  }

  /** Asks for the view of a changed state, and then changes to it. */
  async settle(change, how) {
    const state = { branches: this.branches, here: this.here, cursor: this.cursor, ...change };
    const branch = state.branches[state.here],
      codes = branch.codes.slice(0, state.cursor);
    const late = setTimeout(() => tellWaiting(true), 400);
    let view;
    try {
      view = await this.service.view(this.address(branch), codes);
    } finally {
      clearTimeout(late);
      tellWaiting(false);
    }
    const before = this.view;
    Object.assign(this, state, { view, before });
    if (codes.length === branch.codes.length) branch.steps = view.steps;
    if (view.done) this.keepStars(view.stars.now);
    this.selected = this.choose(how, before);
    this.save();
    this.shown(how);
  }

  /** What is selected next: near the last choice, but never a crash or a cut that was not asked for. */
  choose(how, before) {
    const open = mainChoices(this.view);
    const has = (code) => code && this.view.enabled.some((choice) => choice.code === code);
    if (how.select !== undefined) return has(how.select) ? how.select : open.length ? open[0].code : null;
    if (how.act && before) {
      const was = mainChoices(before).findIndex((choice) => choice.code === how.act);
      if (was >= 0 && open[was]) return open[was].code;
    }
    return open.length ? open[0].code : null;
  }

  /** Opens an exercise: of the catalog, or a text. `link` is what an address asks for. */
  async open(name, text, link) {
    const exercise = text === null ? this.catalog.find((known) => known.name === name) : null;
    if (text === null && !exercise) throw new Error(`There is no exercise "${name}" here. Choose one of the list.`);
    const place = { text, exercise: exercise || { name: "own", title: "own exercise" } };
    if (text !== null) {
      const seen = await this.service.view({ text }, []);
      place.exercise = seen.exercise;
    }
    const old = { text: this.text, exercise: this.exercise, hints: this.hints };
    Object.assign(this, place);
    const kept = store.read().games[this.key()] || { branches: [], here: 0, cursor: 0, hints: 0 };
    this.hints = kept.hints || 0;
    let branches = kept.branches.map((branch) => ({
      name: branch.name,
      codes: branch.codes,
      from: branch.from,
      mode: branch.mode || null,
      steps: [],
    }));
    let here = Math.min(kept.here, Math.max(0, branches.length - 1)),
      cursor = kept.cursor;
    if (link) [branches, here, cursor] = besides(branches, here, cursor, link);
    if (!branches.length) branches = [{ name: "A", codes: [], from: 0, mode: null, steps: [] }];
    cursor = Math.min(cursor, branches[here].codes.length);
    try {
      this.before = this.view = null;
      this.guessed = { right: 0, all: 0 };
      await this.settle({ branches, here, cursor }, { opened: true });
    } catch (error) {
      Object.assign(this, old);
      throw error;
    }
    if (link && link.hash && link.hash !== this.view.hash) {
      tellNote("This link was made by another version: the same choices may come out differently here.");
    }
    await this.fillStrips();
  }

  /** Asks for the steps of what is not shown, so that its strip has shapes. */
  async fillStrips() {
    for (const branch of this.branches) {
      if (branch.steps.length !== branch.codes.length)
        branch.steps = (await this.service.view(this.address(branch), branch.codes)).steps;
    }
    this.shown({ strips: true });
  }

  /** Plays a choice here. In the past another choice than the one that follows makes a branch. */
  async play(code) {
    const branch = this.branch();
    if (branch.codes[this.cursor] === code) return this.settle({ cursor: this.cursor + 1 }, { act: code });
    return this.extend([...this.played(), code], { act: code });
  }

  /** Goes on with a longer list; a branch if there is a future that differs. */
  async extend(codes, how) {
    const branch = this.branch();
    const from = codes.findIndex((code, n) => code !== branch.codes[n]);
    if (from < 0) return this.settle({ cursor: codes.length }, how);
    if (from >= branch.codes.length) return this.replaceHere({ ...branch, codes, steps: [] }, codes.length, how);
    return this.fork({ codes, from, mode: branch.mode }, how);
  }

  replaceHere(branch, cursor, how) {
    const branches = this.branches.map((old, n) => (n === this.here ? branch : old));
    return this.settle({ branches, cursor }, how);
  }

  async fork({ codes, from, mode }, how) {
    if (this.branches.length >= BRANCHES_MAX) {
      await this.replaceHere(
        { ...this.branch(), codes, mode, from: Math.min(from, this.branch().from || from), steps: [] },
        codes.length,
        how,
      );
      tellNote(`There are ${BRANCHES_MAX} branches already, so the rest of ${this.branch().name} was replaced.`);
      return;
    }
    const name = [...BRANCH_NAMES].find((letter) => !this.branches.some((branch) => branch.name === letter));
    const branches = [...this.branches, { name, codes, from, mode: mode || null, steps: [] }];
    await this.settle({ branches, here: branches.length - 1, cursor: codes.length }, how);
    if (this.branches.some((branch) => branch.steps.length !== branch.codes.length)) await this.fillStrips();
  }

  /** Selects a choice; nothing happens yet. */
  pick(code) {
    this.selected = code;
    this.shown({ picked: true });
  }

  /** Does what is selected. With "ask first" on, the reader answers before. */
  deliver() {
    return this.next(() => {
      const choice = this.selected && choiceOf(this.view, this.selected);
      if (!choice || choice.off) return null;
      if (openQuestion(this)) return focusQuestion();
      return this.play(choice.code);
    });
  }

  /** Drops or doubles the selected message. */
  change(what) {
    return this.next(() => {
      const message = this.selected && messageOf(this.view, this.selected);
      return message && message[what] ? this.play(message[what]) : null;
    });
  }

  undo() {
    return this.next(() => (this.cursor > 0 ? this.goTo(this.cursor - 1) : null));
  }

  redo() {
    return this.next(() => (this.cursor < this.codes().length ? this.goTo(this.cursor + 1) : null));
  }

  goTo(step) {
    const cursor = Math.max(0, Math.min(step, this.codes().length));
    return this.settle(
      { cursor },
      { moved: true, select: cursor < this.codes().length ? this.codes()[cursor] : undefined },
    );
  }

  switchTo(here, cursor) {
    return this.settle(
      { here, cursor: cursor === undefined ? this.branches[here].codes.length : cursor },
      { moved: true },
    );
  }

  /** Takes a branch away; the last one is emptied. */
  async remove(at) {
    const branches = this.branches.filter((_, n) => n !== at);
    if (!branches.length)
      return this.replaceHere({ name: "A", codes: [], from: 0, mode: null, steps: [] }, 0, { moved: true });
    const here = at === this.here ? 0 : this.here - (at < this.here ? 1 : 0);
    return this.settle(
      { branches, here, cursor: at === this.here ? branches[here].codes.length : this.cursor },
      { moved: true },
    );
  }

  /** The same choices in another mode, as a branch. */
  inMode(mode) {
    return this.fork(
      { codes: this.played(), from: 0, mode: mode === this.exercise.mode ? null : mode },
      { moved: true },
    );
  }

  modeName() {
    return this.branch().mode || this.exercise.mode;
  }

  keepStars(stars) {
    store.change((kept) => {
      kept.stars[this.key()] = Math.max(stars, kept.stars[this.key()] || 0);
    });
  }

  save() {
    const branches = this.branches.map(({ name, codes, from, mode }) => ({ name, codes, from, mode }));
    store.change((kept) => {
      kept.last = { name: this.exercise.name, text: this.text };
      kept.askFirst = this.askFirst;
      kept.games[this.key()] = { branches, here: this.here, cursor: this.cursor, hints: this.hints };
    });
  }
}

/** The kept branches with what a link brings: its own place if it is one of them, else a branch that stands first. */
function besides(branches, here, cursor, link) {
  const mode = link.mode || null;
  const same = branches.findIndex(
    (branch) => (branch.mode || null) === mode && link.codes.every((code, n) => branch.codes[n] === code),
  );
  if (same >= 0)
    return [
      branches,
      same,
      same === here && link.codes.length === branches[same].codes.length ? cursor : link.codes.length,
    ];
  // A list that the link only makes longer is part of it.
  const isPart = (branch) => (branch.mode || null) === mode && apart(branch.codes, link.codes) === branch.codes.length;
  const kept = branches.filter((branch) => !isPart(branch)).slice(0, BRANCHES_MAX - 1);
  const brought = { codes: link.codes, from: 0, mode, steps: [] };
  return [
    [brought, ...kept].map((branch, n) => ({
      ...branch,
      name: BRANCH_NAMES[n],
      from: n ? apart(branch.codes, link.codes) : 0,
    })),
    0,
    link.codes.length,
  ];
}

/** The number of choices at the beginning that two lists share. */
function apart(codes, others) {
  const first = codes.findIndex((code, n) => code !== others[n]);
  return first < 0 ? codes.length : first;
}
