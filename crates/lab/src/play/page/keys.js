// Keys: no key needs Ctrl, and none is held. Keys select; the enter key does.

function listen(game) {
  const step = (way) =>
    game.next(() => {
      const open = listedChoices(game),
        at = open.findIndex((choice) => choice.code === game.selected);
      if (!open.length) return;
      game.follow = true;
      game.pick(open[at < 0 ? (way > 0 ? 0 : open.length - 1) : Math.min(Math.max(at + way, 0), open.length - 1)].code);
      game.follow = false;
    });
  const turn = (way) =>
    game.next(() =>
      game.branches.length > 1 ? game.switchTo((game.here + way + game.branches.length) % game.branches.length) : null,
    );
  const look = (id, tab) => {
    showTab(tab);
    const node = $(id);
    node.scrollIntoView({ block: "nearest" });
    node.tabIndex = -1;
    node.focus({ preventScroll: true });
  };
  const keys = {
    ArrowDown: () => step(1),
    j: () => step(1),
    ArrowUp: () => step(-1),
    k: () => step(-1),
    Enter: () => game.deliver(),
    b: () => game.change("double"),
    x: () => game.change("drop"),
    c: () =>
      game.next(() =>
        cycle(game, "crashes", (choice) => /^(crash|kill)$/.test(choice.kind) && !/^c\d[a-z]\d$/.test(choice.code)),
      ),
    r: () => game.next(() => cycle(game, null, (choice) => /^(restart|start)$/.test(choice.kind))),
    l: () => game.next(() => cycle(game, "links", (choice) => choice.group === "links")),
    ArrowLeft: () => game.undo(),
    z: () => game.undo(),
    ArrowRight: () => game.redo(),
    y: () => game.redo(),
    " ": () => runner.toggle(),
    "[": () => turn(-1),
    "]": () => turn(1),
    g: () => look("exercise", "next"),
    v: () => look("votes", "votes"),
    w: () => look(matchMedia("(max-width: 760px)").matches ? "why" : "past", "why"),
    e: () => openCatalog(game),
    d: () => $("theme").click(),
    "?": () => openHelp(),
    Escape: () =>
      game.next(() => {
        game.folds.open = null;
        game.pick(null);
      }),
  };
  for (let n = 1; n <= 9; n++)
    keys[n] = () =>
      game.next(() => {
        const choice = listedChoices(game)[n - 1];
        if (choice) game.pick(choice.code);
      });
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("dialog").open) return;
    const at = event.target;
    if (/^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName) && !(at.type === "checkbox" && event.key !== " ")) return;
    if (runner.going) {
      event.preventDefault();
      runner.stop();
      return;
    }
    if (at.tagName === "BUTTON" && (event.key === "Enter" || event.key === " ")) return;
    const known = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!known) return;
    event.preventDefault();
    known();
  });
  $("undo").onclick = () => game.undo();
  $("redo").onclick = () => game.redo();
  $("run").onclick = () => runner.toggle();
  $("pick").onclick = () => openCatalog(game);
  $("help").onclick = () => openHelp();
  $("theme").onclick = () => setTheme(document.documentElement.dataset.theme !== "dark");
  for (const tab of document.querySelectorAll(".tabs [role=tab]")) tab.onclick = () => showTab(tab.dataset.tab);
  document.querySelector(".tabs").addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key],
      tabs = [...event.currentTarget.children],
      at = tabs.indexOf(event.target);
    if (!way || at < 0) return;
    event.stopPropagation();
    event.preventDefault();
    const next = tabs[(at + way + tabs.length) % tabs.length];
    next.focus();
    showTab(next.dataset.tab);
  });
  addEventListener("hashchange", () =>
    game.next(async () => {
      const asked = await readAddress();
      if (asked && location.hash !== game.written) await game.open(asked.name, asked.text, asked);
    }),
  );
}

function showTab(name) {
  document.body.dataset.tab = name;
  for (const tab of document.querySelectorAll(".tabs [role=tab]")) {
    tab.setAttribute("aria-selected", String(tab.dataset.tab === name));
    tab.tabIndex = tab.dataset.tab === name ? 0 : -1;
  }
}
