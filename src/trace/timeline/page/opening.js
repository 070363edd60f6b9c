// Where the page opens: what comes before the first request is set-up and is folded, and the first thing worth seeing is
// chosen.

/** A shorter set-up is not folded. */
const FOLD_FROM = 4;

/** The row at which the set-up ends: at the first line of the scene, or else at the first request that is not about a
 * session. */
function setUpEnd(run, scene) {
  const first = scene ? run.byId.get(scene) : run.lines.find((line) => line.name === "REQUEST" && line.fields.op !== "OPEN");
  return first ? first.row : 0;
}

/** The line to begin with: the first crash that overlaps a request, or else the first request. */
function firstWorthSeeing(run) {
  const from = setUpEnd(run, null), first = run.lines[from] || null;
  const { outages, exchanges } = run.derive();
  const overlaps = ({ from: crash, to }) => exchanges.some(({ request, reply }) => request.fields.op !== "OPEN"
    && (!reply || reply.at >= crash.at) && (!to || to.at >= request.at));
  const outage = [...outages].sort((a, b) => a.from.row - b.from.row).find((one) => one.told && one.from.name === "CRASH" && overlaps(one));
  return outage && outage.from.row >= from ? outage.from : first;
}

/** The button above the first row that folds the set-up, or shows it. */
class SetUp {
  constructor(app) {
    this.app = app;
    this.open = app.data.live;
    this.count = 0;
    this.button = $("set-up");
    this.button.addEventListener("click", () => this.show(!this.open));
  }

  /** The lines to draw: without those of the set-up while it is folded and no filter is set. */
  without(lines) {
    const { data, filter, run } = this.app;
    const end = data.live || filter.req || filter.slot || filter.server ? 0 : setUpEnd(run, data.lesson && data.lesson.scene);
    this.count = lines.filter((line) => line.row < end).length;
    if (this.count < FOLD_FROM) this.count = 0;
    this.button.hidden = !this.count;
    this.button.textContent = `${this.open ? "\u25be" : "\u25b8"} ${many(this.count, "line")} of set-up`;
    this.button.title = `${this.open ? "Hide" : "Show"} how the servers connected, and how the clients opened their sessions (U)`;
    this.button.setAttribute("aria-expanded", this.open);
    return this.count && !this.open ? lines.filter((line) => line.row >= end) : lines;
  }

  show(open) {
    if (!this.count || this.open === open) return;
    this.open = open;
    this.app.refresh();
  }

  /** Whether this line is folded away. */
  hides(line) {
    return this.count > 0 && !this.open && line.row < setUpEnd(this.app.run, this.app.data.lesson && this.app.data.lesson.scene);
  }
}
