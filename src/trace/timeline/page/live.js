// Live view of a running cluster: the server that served this page sends every line that it writes or receives.

/** Minimum interval between drawings, in milliseconds; beyond MANY_LINES lines on the page, DRAW_SELDOM. */
const DRAW_EVERY = 150, DRAW_SELDOM = 600, MANY_LINES = 15000;

function watch(app) {
  let waiting = [], timer = 0, follows = true;
  const pill = $("live");
  pill.hidden = false;
  pill.title = "Follow the newest line (End)";
  pill.style.cursor = "pointer";
  pill.addEventListener("click", () => toLive());
  app.data.lost = 0;
  app.silent = new Set();
  $("moment").hidden = false;
  app.tellMoment = () => {
    const line = app.line(), isPast = line !== null && app.cursor < app.shown.length - 1;
    document.body.classList.toggle("past", isPast);
    $("past").hidden = !isPast;
    const when = isPast ? `${line.stamp.slice(11, 19)} UTC, ${age(Date.now() * 1000 - line.time)} ago` : "";
    $("past-says").textContent = `looking at ${when}`;
    $("moment").textContent = isPast ? `the state then, at ${when}` : "the state now";
  };
  const toLive = () => {
    if (app.playing) app.play(false);
    app.goRow(app.shown.length - 1, true);
  };
  $("to-live").onclick = () => {
    toLive();
    $("run").focus();
  };
  setInterval(app.tellMoment, 1000);
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
    app.silent = new Set(gone.map(readServer));
    app.data.deaf = [gone.length ? `no lines from ${gone.join(", ")} at the moment` : "", nowhere.length ? `no live view at ${nowhere.join(", ")}` : ""].filter(Boolean);
    if (!app.data.steps) app.data.deaf.push("protocol steps are not recorded (--steps on)");
    if (gone.length) tell("late", `live, without ${gone.join(", ")}`);
    else tell("up", "live");
    app.tellUndrawn(app.diagram.hidden);
    app.drawPanels(false);
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

/** `12 s`, `3 min`. */
function age(micros) {
  const seconds = Math.max(0, Math.round(micros / 1e6));
  return seconds < 120 ? `${seconds} s` : seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}
