// Ring: the servers with their roles, the links between them, and the messages under way.

const PILLS_MAX = 3;
const FLIGHT = 200;
/** Number of messages from which on a ring of middle size shows no values. */
const CROWD = 9;
/** Number of messages from which on a small ring shows one for each link. */
const PACK = 10;
const LEGEND = {
  prepare: "prepare",
  promise: "promise",
  accept: "accept",
  accepted: "accepted",
  refused: "refused",
  chosen: "chosen",
};

class Ring {
  constructor(game) {
    this.game = game;
    this.box = $("ring");
    this.lines = drawn("svg", { "aria-hidden": "true" });
    this.pills = new Map();
    this.parts = new Map();
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  draw() {
    const { view } = this.game;
    if (!view || !this.box.clientWidth) return;
    const room = { width: this.box.clientWidth, height: this.box.clientHeight },
      scale = scaleOf(room);
    this.box.className = `ring ${scale.name}`;
    const cards = view.servers.map((server) => this.card(server, scale));
    const clients = scale.name === "small" ? [] : view.clients.map((client) => this.client(client, scale));
    const cuts = view.links.filter((link) => link.cut).map((link) => this.cut(link));
    const groups = this.messages(scale.name === "small");
    // Where many messages meet, their ballots have to do.
    const crowded = scale.name === "mid" && groups.reduce((sum, group) => sum + group.items.length, 0) > CROWD;
    this.box.classList.toggle("crowded", crowded);
    const pills = groups.flatMap((group) => group.items);
    this.show([
      this.lines,
      ...cards,
      ...clients,
      ...cuts,
      ...pills.map((item) => item.node),
      ...(scale.name === "big" ? [this.legend()] : []),
    ]);
    // All sizes are read at once, and then all places written.
    const card = { width: cards[0].offsetWidth, height: Math.max(...cards.map((node) => node.offsetHeight)) };
    for (const item of pills) [item.width, item.height] = [item.node.offsetWidth, item.node.offsetHeight];
    const sizes = clients.map((node) => ({ width: node.offsetWidth, height: node.offsetHeight }));
    const at = placeCards(cards.length, room, card, scale);
    this.at = at;
    cards.forEach((node, n) => put(node, at[n], card));
    const taken = at.map((place) => boxAround(place, card, 4));
    taken.push(...this.placeClients(view.clients, clients, sizes, at, card, room));
    const corner = { left: room.width - 104, right: room.width, top: 0, bottom: 150 };
    const legend = this.box.querySelector(".shapes");
    if (legend) {
      // The legend gives way to clients.
      legend.hidden = taken.some((other) => overlap(other, corner));
      if (!legend.hidden) taken.push(corner);
    }
    view.links
      .filter((link) => link.cut)
      .forEach((link, n) => {
        const size = { width: cuts[n].offsetWidth, height: cuts[n].offsetHeight };
        const place = placeCut(at[link.a - 1], at[link.b - 1], size, taken);
        put(cuts[n], place, size);
        taken.push(boxAround(place, size, 2));
      });
    for (const { from, to, items } of groups) {
      const lane = laneOf(at[from - 1], at[to - 1], card, scale.beside, scale.name === "small" ? 2 : 7);
      items.forEach((item, n) =>
        Object.assign(item, {
          lane,
          wanted:
            item.old === undefined
              ? 0.36 + 0.28 * (1 - n / Math.max(1, items.length - 1) || 0) - 0.14 * (items.length === 1)
              : item.old,
        }),
      );
    }
    placeMessages(pills, taken, room, scale);
    for (const item of pills) {
      put(item.node, item.at, item);
      item.node.dataset.part = item.part;
    }
    this.drawLines(view, at, groups);
  }

  /** Shows these nodes; those that were there stay, so that they can move. */
  show(nodes) {
    const wanted = new Set(nodes);
    for (const old of [...this.box.children]) if (!wanted.has(old)) old.remove();
    for (const node of nodes) if (node.parentNode !== this.box) this.box.append(node);
  }

  /** The node of a key, made anew only if what it shows has changed. */
  part(key, content, make) {
    const text = JSON.stringify(content),
      known = this.parts.get(key);
    if (known && known.text === text) return known.node;
    const node = make();
    if (known && known.node.contains(document.activeElement)) {
      const held = document.activeElement.dataset.key;
      queueMicrotask(() => {
        const again = node.querySelector(`[data-key="${CSS.escape(held || "")}"]`);
        if (again) again.focus({ preventScroll: true });
      });
    }
    this.parts.set(key, { text, node });
    return node;
  }

  card(server, scale) {
    const { game } = this,
      before = game.before && game.before.servers.find((old) => old.id === server.id);
    const tags = scale.name === "small" ? game.view.clients.filter((client) => placeOf(client) === server.id) : [];
    // A small card has room for one client with one message; the list has the others.
    const mail =
      tags.length === 1
        ? game.view.messages.filter((message) => tags[0].id === message.from || tags[0].id === message.to)
        : [];
    const rows = rolesOf(server).map(([letter, name]) => ({
      letter,
      name,
      role: server[name],
      touched: Boolean(before && before[name] && before[name].text !== server[name].text),
      sel: isOfRole(game, server.id, name),
    }));
    return this.part(
      `card ${server.id}`,
      [server, scale.name, tags, mail, game.selected, rows.map((row) => [row.touched, row.sel])],
      () =>
        element(
          "article",
          { class: "server", hue: hueOf(server.id), "aria-label": `Server ${server.id}` },
          element(
            "header",
            {},
            element("b", {}, `s${server.id}`),
            scale.name === "small"
              ? tags.slice(0, 2).map((tag) => element("span", { class: "tag", title: tag.text }, tag.id))
              : element("span", { class: "note" }, server.up ? "" : server.note || "the process is down"),
            mail.slice(0, 1).map((message) => pill(game, message, true)),
            button(
              {
                class: "menu",
                "data-key": `menu ${server.id}`,
                title: `What can happen to s${server.id}`,
                "aria-label": `What can happen to s${server.id}`,
                click: () => unfoldServer(game, server.id),
              },
              "\u22ef",
            ),
          ),
          rows.map(({ letter, name, role, touched, sel }) =>
            button(
              {
                class: `role${role.up && server.up ? "" : " off"}${touched ? " touched" : ""}${sel ? " sel" : ""}`,
                "data-key": `${name} ${server.id}`,
                tabindex: "-1",
                title: `${name} of s${server.id}: ${role.text}${role.fuse ? `; ${role.fuse}` : ""}`,
                "aria-label": `${name} of s${server.id}: ${role.text}`,
                click: () => selectRole(game, server.id, name),
              },
              element("i", {}, letter),
              element("span", {}, roleWords(name, role, server, game.view, scale)),
            ),
          ),
        ),
    );
  }

  client(client, scale) {
    const { view } = this.game;
    const mail = view.messages.filter((message) => message.from === client.id || message.to === client.id);
    const last = client.results[client.results.length - 1];
    const state = client.state === "waits" ? "waits" : last ? resultWords(last) : "idle";
    const mood = client.state === "waits" || !last ? "dim" : /^(ok|value)$/.test(last.status) ? "ok" : "no";
    const words = client.request ? client.request.split(" ") : [];
    return this.part(`client ${client.id}`, [client, mail, this.game.selected, scale.name], () =>
      element(
        "div",
        { class: "client" },
        element(
          "span",
          { title: client.text },
          element("b", {}, client.id),
          ` ${words.slice(0, 2).join(" ")} `,
          words.length > 2 ? [valueChip(words.slice(2).join(" ")), " "] : [],
          element("span", { class: mood }, `\u00b7 ${state}`),
        ),
        mail.slice(0, PILLS_MAX).map((message) => pill(this.game, message, scale.name === "mid")),
        mail.length > PILLS_MAX ? element("span", { class: "dim" }, `+${mail.length - PILLS_MAX}`) : null,
      ),
    );
  }

  /** Clients stand outside of the ring, beside their server. */
  placeClients(clients, nodes, sizes, at, card, room) {
    const rank = new Map();
    return nodes.map((node, n) => {
      const server = placeOf(clients[n]),
        place = at[server - 1] || at[0],
        size = sizes[n],
        level = rank.get(server) || 0;
      rank.set(server, level + 1);
      const lower = place.y > room.height * 0.6,
        top = place.y < room.height * 0.3 && Math.abs(place.x - room.width / 2) < 20;
      let x, y;
      if (top) [x, y] = [place.x - card.width / 2 - size.width / 2 - 10, place.y - card.height / 2 + 14 + level * 30];
      else if (lower) [x, y] = [place.x, place.y + card.height / 2 + 17 + level * 27];
      else {
        const outer = place.x < room.width / 2 ? size.width / 2 - card.width / 2 : card.width / 2 - size.width / 2;
        [x, y] = [place.x + outer, place.y - card.height / 2 - 17 - level * 28];
      }
      const inside = {
        x: Math.min(Math.max(x, size.width / 2 + 6), room.width - size.width / 2 - 6),
        y: Math.min(y, room.height - size.height / 2 - 2),
      };
      put(node, inside, size);
      return boxAround(inside, size, 3);
    });
  }

  cut(link) {
    const code = joinCode(this.game.view, link);
    return this.part(`cut ${link.a}${link.b}`, [link, this.game.selected === code], () =>
      button(
        {
          class: `cut${code && this.game.selected === code ? " sel" : ""}`,
          tabindex: "-1",
          title: `The link s${link.a}-s${link.b} is cut. Select to join it again.`,
          "aria-label": `The link s${link.a}-s${link.b} is cut${link.lost ? `, ${many(link.lost, "message is lost", "messages are lost")}` : ""}`,
          click: () => code && pickByHand(this.game, code),
        },
        "\u2702 cut",
      ),
    );
  }

  /** Messages between servers by directed link; of many, two and a count. */
  messages(small) {
    const groups = new Map();
    for (const message of this.game.view.messages) {
      if (message.housekeeping || !/^s/.test(message.from) || !/^s/.test(message.to)) continue;
      const key = `${message.from}>${message.to}`;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(message);
    }
    const count = [...groups.values()].reduce((sum, all) => sum + all.length, 0);
    const packed = small && count > PACK;
    const kept = new Map();
    const made = [...groups].map(([key, all]) => {
      const most = small ? PILLS_MAX - 1 : PILLS_MAX;
      const ordered = all.length > most || packed ? front(all, this.game.selected) : all;
      const shown = packed ? ordered.slice(0, 1) : ordered.slice(0, all.length > most ? most - 1 : most);
      const items = shown.map((message) => {
        const old = this.pills.get(message.id),
          content = JSON.stringify([message, this.game.selected === message.id, packed && all.length]);
        const node = old && old.content === content ? old.node : pill(this.game, message);
        // In a small and crowded ring one message stands for all of its link.
        if (packed && all.length > 1) node.dataset.more = String(all.length);
        kept.set(message.id, { node, content });
        return { node, message, old: old && old.node.dataset.part ? Number(old.node.dataset.part) : undefined };
      });
      if (shown.length < all.length && !packed) {
        const rest = all.filter((message) => !shown.includes(message));
        items.push({
          message: rest[0],
          node: button(
            {
              class: "message more",
              tabindex: "-1",
              hue: ballotHue(rest[0].ballot),
              title: rest.map((message) => message.text).join("\n"),
              "aria-label": `${rest.length} more messages from ${rest[0].from} to ${rest[0].to}`,
              click: () => pickByHand(this.game, rest[0].id),
            },
            `+${rest.length}`,
          ),
        });
      }
      const [from, to] = key.split(">").map(numberOf);
      return { from, to, items };
    });
    this.pills = kept;
    return made;
  }

  drawLines(view, at, groups) {
    const parts = [];
    for (const link of pairs(view.servers.length)) {
      const cut = view.links.some((known) => known.cut && known.a === link.a && known.b === link.b);
      const [a, b] = [at[link.a - 1], at[link.b - 1]],
        ends = { x1: a.x, y1: a.y, x2: b.x, y2: b.y };
      parts.push(drawn("line", { class: cut ? "severed" : "idle", ...ends }), this.touchable(link, ends));
    }
    for (const { items } of groups) {
      const { start, end } = items[0].lane,
        foremost = [...items].sort((a, b) => b.part - a.part)[0];
      for (const item of items) {
        const { message } = item,
          selected = this.game.selected === message.id;
        const lane = drawn(
          "g",
          {
            class: `${selected ? "chosen" : ""}${message.off || message.hollow ? " stopped" : ""}`,
            style: `--hue:var(--s${ballotHue(message.ballot)})`,
          },
          drawn("line", { class: "done", x1: start.x, y1: start.y, x2: item.at.x, y2: item.at.y }),
        );
        if (item === foremost || selected) {
          const angle = Math.atan2(end.y - item.at.y, end.x - item.at.x),
            tip = (ahead, aside) =>
              `${end.x + ahead * Math.cos(angle) + aside * Math.sin(angle)},${end.y + ahead * Math.sin(angle) - aside * Math.cos(angle)}`;
          lane.append(
            drawn("line", { class: "todo", x1: item.at.x, y1: item.at.y, x2: end.x, y2: end.y }),
            drawn("polygon", { class: "arrow", points: `${tip(6, 0)} ${tip(-4, 5)} ${tip(-4, -5)}` }),
          );
        }
        parts.push(lane);
      }
    }
    this.lines.replaceChildren(...parts);
  }

  /** A broad line that cannot be seen, so that a link can be hit. */
  touchable(link, ends) {
    const { game } = this,
      choice = game.view.enabled.find(
        (known) => known.group === "links" && !known.off && known.from === `s${link.a}` && known.to === `s${link.b}`,
      );
    const line = drawn("line", { class: "hit", ...ends }, drawn("title", {}, choice ? choice.label : ""));
    if (choice)
      line.addEventListener("click", () => {
        if (choice.kind === "cut") game.folds.open = "links";
        pickByHand(game, choice.code);
      });
    return line;
  }

  legend() {
    return this.part("legend", 0, () =>
      element(
        "ul",
        { class: "shapes", "aria-hidden": "true" },
        Object.entries(LEGEND).map(([kind, text]) => element("li", {}, glyph(kind), text)),
        element("li", {}, element("span", { class: "hues" }), "whose ballot"),
      ),
    );
  }

  /** Lets a delivered message fly to its receiver, beside everything else: nothing waits for it. */
  fly(id) {
    const pilled = this.pills.get(id),
      message = this.game.view && this.game.view.messages.find((known) => known.id === id);
    if (!pilled || !message || this.still.matches || !this.at || !/^s/.test(message.to)) return;
    const goal = this.at[numberOf(message.to) - 1],
      ghost = pilled.node.cloneNode(true);
    ghost.setAttribute("aria-hidden", "true");
    ghost.inert = true;
    this.box.append(ghost);
    const [x, y] = [
      goal.x - ghost.offsetLeft - ghost.offsetWidth / 2,
      goal.y - ghost.offsetTop - ghost.offsetHeight / 2,
    ];
    ghost
      .animate([{ opacity: 1 }, { transform: `translate(${x}px, ${y}px) scale(.7)`, opacity: 0.1 }], {
        duration: FLIGHT,
        easing: "ease-in",
      })
      .finished.finally(() => ghost.remove());
  }
}

function put(node, at, size) {
  node.style.left = `${Math.round(at.x - size.width / 2)}px`;
  node.style.top = `${Math.round(at.y - size.height / 2)}px`;
}

const pairs = (count) =>
  Array.from({ length: count }, (_, a) =>
    Array.from({ length: count - a - 1 }, (__, b) => ({ a: a + 1, b: a + b + 2 })),
  ).flat();
const placeOf = (client) => client.server || numberOf(`c${client.id.charCodeAt(1) - 48}`);
/** The selected message first, then those that come first. */
const front = (messages, selected) => [...messages].sort((a, b) => (b.id === selected) - (a.id === selected));

/** The roles of a server, as `[letter, name]`. */
function rolesOf(server) {
  return [
    ["P", "proposer"],
    ["A", "acceptor"],
    ["L", "learner"],
    ["C", "coordinator"],
    ["T", "participant"],
  ].filter(([, name]) => server[name]);
}

/** One message as a button. */
function pill(game, message, bare) {
  const stuck = message.off || message.hollow,
    hue = ballotHue(message.ballot);
  const words = message.ballot || (message.value ? null : message.name.toLowerCase());
  return button(
    {
      class: `message${message.doubled ? " twice" : ""}${stuck ? " stuck" : ""}${game.selected === message.id ? " sel" : ""}`,
      hue,
      tabindex: "-1",
      "data-code": message.id,
      title: `${message.text}${stuck ? `\n${stuck}` : ""}`,
      "aria-label": `${message.text}${message.doubled ? ", a copy" : ""}${stuck ? `: ${stuck}` : ""}`,
      click: (event) => (event.detail === 2 ? game.deliver() : pickByHand(game, message.id)),
    },
    glyph(message.kind),
    bare || !words ? null : element("span", {}, words),
    !bare && message.value ? element("span", { class: "value" }, message.value) : null,
  );
}

const RESULT_WORDS = {
  ok: "OK",
  notfound: "not found",
  notapplied: "not applied",
  unknown: "outcome unknown",
  value: "",
};
const resultWords = (result) => (result.status === "value" ? result.text : RESULT_WORDS[result.status] || result.text);

/** What a role's row says, as short as the card needs it. */
function roleWords(name, role, server, view, scale) {
  const wide = scale.name === "big",
    small = scale.name === "small";
  // What an acceptor has on its disk counts while it is down, too.
  if ((!server.up || !role.up) && name !== "acceptor") return small || !server.up ? "down" : role.text;
  if (role.fuse) return element("span", { class: "lost" }, small ? "will crash" : role.fuse);
  if (name === "proposer") return proposerWords(role, wide, small);
  if (name === "acceptor") return acceptorWords(role, view, wide, small);
  if (name === "learner") return learnerWords(role, view, wide, small);
  if (name === "participant") return participantWords(role, small);
  return element("span", { class: role.text === "idle" ? "dim" : null }, dressed(role.text));
}

function proposerWords(role, wide, small) {
  if (!role.ballot) return element("span", { class: "dim" }, role.phase);
  // The votes are counted by learners, so only phase 1 has a meter.
  if (role.phase !== "preparing") {
    const words = { proposing: "proposes", leading: "leads", following: "follows" }[role.phase] || role.phase;
    return [ballotChip(role.ballot), small ? null : element("span", { class: wide ? null : "dim" }, ` ${words}`)];
  }
  const count = `${role.yes.length} of ${role.needed}`;
  const dots = Array.from({ length: Math.max(role.needed, role.yes.length + role.no.length) }, (_, n) =>
    element("u", { class: n < role.yes.length ? "y" : n < role.yes.length + role.no.length ? "n" : null }),
  );
  return [
    ballotChip(role.ballot),
    wide ? " asks " : " ",
    element(
      "span",
      { class: "meter", hue: ballotHue(role.ballot), role: "img", "aria-label": count },
      dots,
      wide ? element("em", {}, count) : null,
    ),
  ];
}

function acceptorWords(role, view, wide, small) {
  const kept = role.accepted.filter((one) => one.slot >= view.first);
  const disk = small ? null : element("i", { class: "disk", role: "img", "aria-label": "on disk" });
  if (role.disk === "lost" && !role.promised && !kept.length) return element("span", { class: "lost" }, "disk lost");
  const lost = role.disk === "lost" && !small ? element("span", { class: "lost" }, "lost ") : null;
  if (!role.promised) return [disk, lost, element("span", { class: "dim" }, wide ? "has promised nothing" : "nothing")];
  const promised = ballotChip(role.promised);
  if (!kept.length) return [disk, lost, promised, wide ? element("span", { class: "dim" }, " nothing accepted") : null];
  if (kept.length === 1) {
    const [one] = kept;
    const at = wide && one.ballot !== role.promised ? [" at ", ballotChip(one.ballot)] : null;
    return [disk, lost, promised, wide ? ` slot ${one.slot} ` : " ", valueChip(one.value), at];
  }
  const shown = kept.slice(0, small ? 1 : 2);
  const left = kept.length - shown.length;
  return [
    disk,
    lost,
    promised,
    shown.map((one) => [wide ? ` ${one.slot} ` : " ", valueChip(one.value)]),
    left ? ` +${left}` : null,
  ];
}

function participantWords(role, small) {
  if (!role.prepared.length) return element("span", { class: "dim" }, "idle");
  const locks = role.locked.length && !small ? ` \u00b7 locks ${role.locked.join(", ")}` : "";
  return [small ? "" : "in doubt ", role.prepared.slice(0, 2).map((name) => [ballotChip(name), " "]), locks];
}

function learnerWords(role, view, wide, small) {
  const known = role.known[role.known.length - 1];
  if (!known) return element("span", { class: "dim" }, wide ? "nothing chosen" : "nothing");
  const star = glyph("chosen");
  star.style.cssText = "display:inline-block;vertical-align:-1px;margin-right:4px;--hue:var(--good)";
  return [star, wide ? `slot ${known.slot} ` : small ? "" : `${known.slot} `, valueChip(known.value)];
}
