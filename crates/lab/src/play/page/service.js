// Service: asks the program that serves this page. It keeps no state, so each answer belongs to a list of choices.

const VIEWS_KEPT = 300;
const PATIENCE = 10000;
const BUSY_TRIES = 8;

const pause = (time) =>
  new Promise((done) => {
    setTimeout(done, time);
  });

class Service {
  constructor() {
    this.views = new Map();
  }

  async ask(path, options, patience) {
    const time = new AbortController(),
      given = options.signal;
    const timer = setTimeout(() => time.abort(), patience);
    if (given) given.addEventListener("abort", () => time.abort(), { once: true });
    let answer, told;
    try {
      answer = await fetch(path, { ...options, signal: time.signal, cache: "no-store" });
      told = await answer.json();
    } catch (error) {
      if (given && given.aborted) throw new Stopped();
      throw new Error(
        time.signal.aborted
          ? `The program has not answered for ${patience / 1000} seconds. Your choices are kept; try again.`
          : answer
            ? "The program's answer is not readable. Your choices are kept; try again."
            : "The program does not answer. Is paxos-lab play still running? Your choices are kept; start it again and try again.",
      );
    } finally {
      clearTimeout(timer);
    }
    if (!answer.ok)
      throw Object.assign(new Error(told.error || `The program refused with status ${answer.status}.`), {
        status: answer.status,
        line: told.line,
        column: told.column,
      });
    return told;
  }

  exercises() {
    return this.ask("/exercises", {}, PATIENCE);
  }

  /** Asks with a body. The program answers few questions at once, so a busy one is asked again. */
  async post(path, body, signal, patience) {
    const headers = { "Content-Type": "application/json", "X-Paxos-Lab": "yes" };
    for (let tries = 1; ; tries++) {
      try {
        return await this.ask(
          path,
          { method: "POST", headers, body: JSON.stringify(body), signal },
          patience || PATIENCE,
        );
      } catch (error) {
        if (error.status !== 503 || tries === BUSY_TRIES) throw error;
        await pause(60 * tries);
      }
    }
  }

  /** The view of these choices; an answer that is known is not asked for again. */
  view(address, codes) {
    const body = { ...address, c: codes.join("-") },
      key = JSON.stringify(body);
    const known = this.views.get(key);
    if (known) return known;
    const asked = this.post("/view", body);
    this.views.set(key, asked);
    asked.catch(() => this.views.delete(key));
    if (this.views.size > VIEWS_KEPT) this.views.delete(this.views.keys().next().value);
    return asked;
  }
}

/** The question was taken back; there is nothing to say about it. */
class Stopped extends Error {}
