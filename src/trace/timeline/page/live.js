// Live view of a running cluster: the server that served this page sends every line that it writes or receives.

/** Minimum interval between drawings, in milliseconds; beyond MANY_LINES lines on the page, DRAW_SELDOM. */
const DRAW_EVERY = 150, DRAW_SELDOM = 600, MANY_LINES = 15000;

function watch(app) {
  let waiting = [], timer = 0, follows = true;
  const pill = $("live");
  pill.hidden = false;
  pill.title = "Follow the newest line (End)";
  pill.style.cursor = "pointer";
  pill.addEventListener("click", () => app.goRow(app.shown.length - 1, true));
  app.data.lost = 0;
  const tell = (state, text) => {
    pill.className = `pill live ${state}`;
    pill.textContent = text;
  };
  tell("late", "connecting");

  const draw = () => {
    timer = 0;
    const texts = waiting;
    waiting = [];
    follows = app.cursor < 0 || app.cursor >= app.shown.length - 1;
    const known = app.run.cluster.size;
    app.run.add(texts);
    app.run.trim();
    if (app.run.cluster.size !== known || texts.some((text) => text.includes(" REQUEST "))) app.offer();
    app.grow(follows && !app.playing);
  };
  const soon = () => {
    if (!timer) timer = setTimeout(draw, app.run.lines.length > MANY_LINES ? DRAW_SELDOM : DRAW_EVERY);
  };

  const source = new EventSource("events");
  source.onopen = () => {
    $("gone").hidden = true;
    app.data.deaf = [];
    tell("up", "live");
    app.tellUndrawn(app.diagram.hidden);
  };
  source.onmessage = (event) => {
    waiting.push(...event.data.split("\n"));
    soon();
  };
  source.addEventListener("lost", (event) => {
    app.data.lost += Number(event.data) || 0;
    soon();
  });
  source.addEventListener("hearing", (event) => {
    const hearing = JSON.parse(event.data);
    const silent = (word) => Object.keys(hearing).filter((server) => hearing[server] === word).map((server) => `s${server}`);
    const gone = silent("gone"), nowhere = silent("nowhere");
    app.data.deaf = [gone.length ? `no lines from ${gone.join(", ")} at the moment` : "", nowhere.length ? `no live view at ${nowhere.join(", ")}` : ""].filter(Boolean);
    if (!app.data.steps) app.data.deaf.push("protocol steps are not recorded (--steps on)");
    if (gone.length) tell("late", `live, without ${gone.join(", ")}`);
    else tell("up", "live");
    app.tellUndrawn(app.diagram.hidden);
  });
  source.onerror = () => {
    // The browser reconnects by itself, and the server does not repeat lines that this page already has.
    tell("gone", "server not reachable");
    $("gone").replaceChildren("This server does not reply. The page reconnects automatically and keeps the lines that it has.",
      ...(app.data.others.length ? [" Or open the page of another server:"] : []),
      ...app.data.others.map((href) => Object.assign(element("a", "", href.replace(/^http:\/\/|\/$/g, "")), { href })));
    $("gone").hidden = false;
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 3000);
  };
  if (app.data.lab) lab(app);
}

/** Buttons that crash roles and restart them. */
function lab(app) {
  const box = element("div", "lab"), title = element("h3", "", "lab: crash or restart a role");
  $("state").after(title, box);
  const rolesNow = (state) => ([...state.values()].some((known) => known.commits) ? ["coordinator", "participant"]
    : ["proposer", "acceptor", "learner"]);
  const ask = async (server, role, down) => {
    const path = down ? `restart?role=${server}.${role}` : `crash?role=${server}.${role}`;
    try {
      const answer = await fetch(path, { method: "POST", headers: { "X-Paxos-Lab": "yes" } });
      if (!answer.ok) $("undrawn").textContent = (await answer.text()).trim();
    } catch (error) {
      $("undrawn").textContent = `request failed: ${error.message}`;
    }
  };
  app.drawLab = () => {
    // The buttons show the newest state, whichever line is chosen.
    const state = app.run.stateAt(app.run.lines.length - 1);
    const rows = [...app.run.cluster].sort((a, b) => a - b).map((server) => {
      const known = state.get(server) || blank();
      const buttons = rolesNow(state).map((role) => {
        const down = known.down.has(role);
        const button = element("button", down ? "down" : "", ROLE_LETTERS[role]);
        button.type = "button";
        button.disabled = !known.up;
        button.title = `${down ? "Restart" : "Crash"} s${server}'s ${role}`;
        button.setAttribute("aria-label", button.title);
        button.addEventListener("click", () => ask(server, role, down));
        return button;
      });
      return element("span", "", dressed([{ server }]), " ", ...buttons);
    });
    box.replaceChildren(...rows);
  };
  app.drawLab();
}
