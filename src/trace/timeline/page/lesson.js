// The lesson beside the picture: one point after the other. Before a point is shown, the reader may predict it; what
// comes later stays hidden until then. A key or a step beyond it skips the question.

class LessonCard {
  constructor(app) {
    this.app = app;
    this.lesson = app.data.lesson;
    this.at = 0;
    this.said = null;
    this.box = $("lesson");
    this.box.hidden = false;
    document.body.classList.add("lesson");
    const narrow = matchMedia("(max-width: 980px)");
    const move = () => {
      // On a narrow screen the lesson stands above the picture, and the panels are folded.
      if (narrow.matches) $("run").before(this.box);
      else $("stage").before(this.box);
    };
    narrow.addEventListener("change", move);
    move();
  }

  /** The line of a point. */
  line(at) {
    return this.app.run.byId.get(this.lesson.points[at].line) || null;
  }

  /** The question before the next point. */
  asks() {
    const next = this.lesson.points[this.at + 1];
    return next ? next.asks : null;
  }

  /** Shows a point: moves the picture to its line. */
  show(at, said) {
    if (at < 0 || at >= this.lesson.points.length) return;
    this.at = at;
    this.said = said === undefined ? null : { choice: said, asks: this.lesson.points[at].asks };
    this.draw();
    if (this.line(at)) this.app.go(this.line(at));
  }

  /** Goes on to the next point, with the answer that the reader has chosen, if any. */
  next(choice) {
    this.show(this.at + 1, choice);
  }

  /** The reader has stepped through the lines: the card shows the last point that the picture has passed. */
  follow() {
    const line = this.app.line();
    if (!line || line === this.line(this.at)) return;
    let at = 0;
    this.lesson.points.forEach((_, n) => {
      const point = this.line(n);
      if (point && point.row <= line.row) at = n;
    });
    if (at === this.at) return;
    this.at = at;
    this.said = null;
    this.draw();
  }

  draw() {
    const { title, says, points, moral, question, answer } = this.lesson;
    const asks = this.asks(), isLast = this.at === points.length - 1;
    const button = (text, act, className) => {
      const made = element("button", className || "", text);
      made.type = "button";
      made.addEventListener("click", act);
      return made;
    };
    const scene = element("details", "scene", element("summary", "", "The scene"), element("p", "", says));
    scene.open = this.at === 0;
    const parts = [element("h2", "", title), scene];
    if (this.said) {
      const right = this.said.choice === this.said.asks.right;
      parts.push(element("p", right ? "verdict right" : "verdict", right ? "\u2713 You saw it coming." : `Not so: \u201c${this.said.asks.choices[this.said.choice]}\u201d.`));
    }
    parts.push(element("p", "point", element("span", "count", `${this.at + 1}/${points.length}`), ` ${points[this.at].says}.`));
    if (asks) {
      const choices = asks.choices.map((choice, n) => {
        const made = button("", () => this.next(n), "choice");
        made.append(element("kbd", "", `${n + 1}`), ` ${choice}`);
        return made;
      });
      parts.push(element("p", "question", asks.question), element("div", "choices", ...choices));
    }
    if (isLast) {
      const more = element("details", "answer", element("summary", "", question), element("p", "", answer));
      parts.push(element("p", "moral", moral), more);
    }
    const back = button("\u2039 back", () => this.show(this.at - 1), "plain");
    back.disabled = this.at === 0;
    const on = button(asks ? "show it \u203a" : "next \u203a", () => this.next(), "plain");
    on.hidden = isLast;
    on.title = "Go on without an answer (Enter)";
    back.title = "To the point before (Backspace)";
    parts.push(element("div", "way", back, on));
    this.box.replaceChildren(...parts);
  }

  /** The acts of its keys. */
  keys() {
    const asks = this.asks(), acts = { Enter: () => this.next(), Backspace: () => this.show(this.at - 1) };
    if (asks) asks.choices.forEach((_, n) => { acts[`${n + 1}`] = () => this.next(n); });
    return acts;
  }
}
