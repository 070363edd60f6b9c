// The lab: buttons and a form that act on the running cluster. They show the cluster of now, whichever line is chosen.

function lab(app) {
  app.tabs.push("lab");
  $("tab-lab").hidden = false;
  const ring = element("div", "stage");
  ring.setAttribute("role", "img");
  const roles = element("div", "lab roles"), links = element("div", "lab links"), says = element("p", "lab-says");
  says.setAttribute("role", "status");
  const tell = (text, isBad) => {
    says.textContent = text;
    says.classList.toggle("bad", Boolean(isBad));
  };
  $("lab").replaceChildren(element("p", "acts", element("b", "", "Acts on the running cluster, now"), ", whichever line is chosen."),
    ring, element("h3", "", "roles: press to crash, again to restart"), roles,
    element("h3", "", "links: press to cut, again to join"), links, says,
    element("h3", "", "request"), requestForm(app));

  const newest = () => app.run.stateAt(app.run.lines.length - 1);
  app.drawLab = () => {
    const state = newest(), cut = labCuts(app.run), members = [...app.run.cluster].sort((a, b) => a - b);
    drawRing(ring, app.run, state, app.run.lines.length - 1, { silent: app.silent });
    patch(roles, ...members.map((server) => roleRow(server, members, state, cut, app.silent, tell)));
    const pairs = members.flatMap((a, n) => members.slice(n + 1).map((b) => [a, b]));
    patch(links, ...pairs.map(([a, b]) => {
      const isCut = cut.has(`${a} ${b}`);
      return toggle(`${a}-${b}`, isCut ? `s${a} \u2715 s${b}` : `s${a} \u2013 s${b}`, `Cut the link of s${a} and s${b}`, isCut, `Join s${a} and s${b}`,
        (wasCut) => changeLinks(a, [b], !wasCut, tell));
    }));
    offerServers($("lab-server"), members);
  };
  app.drawLab();
}

/** A button that is pressed or not. It does what it offered when the press began, even if a line changed it since. */
function toggle(key, text, label, isPressed, undo, act) {
  const button = element("button", isPressed ? "down" : "", text);
  button.type = "button";
  button.dataset.key = key;
  button.title = isPressed ? undo : label;
  button.setAttribute("aria-label", label);
  button.setAttribute("aria-pressed", isPressed);
  button.onpointerdown = ({ currentTarget }) => { currentTarget.offered = isPressed; };
  button.onclick = ({ currentTarget }) => {
    const was = currentTarget.offered === undefined ? isPressed : currentTarget.offered;
    currentTarget.offered = undefined;
    act(was);
  };
  return button;
}

function roleRow(server, members, state, cut, silent, tell) {
  const known = state.get(server) || blank(), peers = members.filter((peer) => peer !== server);
  const buttons = rolesOf(state).map((role) => toggle(`${server}.${role}`, ROLE_LETTERS[role], `Crash s${server}'s ${role}`, known.down.has(role),
    `Restart s${server}'s ${role}`, async (wasDown) => {
      try {
        await post(`${wasDown ? "restart" : "crash"}?role=${server}.${role}`);
        tell(`${wasDown ? "restarts" : "crashes"}: the ${role} of s${server}`);
      } catch (error) {
        tell(`s${server}'s ${role}: ${error.message}`, true);
      }
    }));
  const isAlone = peers.length > 0 && peers.every((peer) => cut.has(`${Math.min(server, peer)} ${Math.max(server, peer)}`));
  if (peers.length) {
    buttons.push(toggle(`${server} alone`, isAlone ? "isolated" : "isolate", `Isolate s${server}: cut its links with all others`, isAlone,
      `Join s${server} with all others`, (wasAlone) => changeLinks(server, peers, !wasAlone, tell)));
  }
  const off = silent.has(server) || !known.up;
  const row = element("div", off ? "row off" : "row", dressed([{ server }]), ...buttons, off ? element("span", "dim", silent.has(server) ? "no contact" : "stopped") : "");
  row.dataset.key = server;
  return row;
}

/** A request that changes something; returns the answer. */
async function post(path) {
  const answer = await fetch(path, { method: "POST", headers: { "X-Paxos-Lab": "yes" } });
  const text = (await answer.text()).trim();
  if (!answer.ok) throw new Error(text || `the server answers with status ${answer.status}`);
  return JSON.parse(text);
}

/** Cuts or joins links, at both ends. */
async function changeLinks(server, peers, isCut, tell) {
  const verb = isCut ? "cut" : "join";
  const ends = [post(`${verb}?server=${server}&peers=${peers.join(",")}`), ...peers.map((peer) => post(`${verb}?server=${peer}&peers=${server}`))];
  const failed = (await Promise.allSettled(ends)).filter((end) => end.status === "rejected").map((end) => end.reason.message);
  const what = `s${server} with ${peers.map((peer) => `s${peer}`).join(", ")}`;
  if (failed.length) tell(`${verb} ${what}: not done at ${failed.length} of ${ends.length} ends: ${failed[0]}`, true);
  else tell(isCut ? `cut: ${what}. No message passes` : `joined: ${what}. They may connect again`);
}

/** The form for a PUT, GET or DELETE, and its result in words. */
function requestForm(app) {
  const field = (tag, id, label, properties) => {
    const made = Object.assign(element(tag), { id, ...properties });
    return [made, element("label", "", label, made)];
  };
  const [what, whatLabel] = field("select", "lab-op", "do ");
  what.append(...["put", "get", "delete"].map((word) => element("option", "", word)));
  const [key, keyLabel] = field("input", "lab-key", "key ", { maxLength: 200, value: "color", spellcheck: false, required: true });
  const [value, valueLabel] = field("input", "lab-value", "value ", { maxLength: 1000, value: "blue", spellcheck: false });
  const [server, serverLabel] = field("select", "lab-server", "at ");
  const send = element("button", "send", "send"), result = element("p", "lab-result");
  send.type = "submit";
  result.setAttribute("role", "status");
  what.onchange = () => { valueLabel.hidden = what.value !== "put"; };
  const form = element("form", "lab request", whatLabel, serverLabel, keyLabel, valueLabel, send, result);
  form.autocomplete = "off";
  let isBusy = false;
  form.onsubmit = async (event) => {
    event.preventDefault();
    if (isBusy) return;
    isBusy = true;
    result.className = "lab-result";
    result.textContent = "sent, waiting for the reply";
    const query = [`key=${base64(key.value)}`, ...(what.value === "put" ? [`value=${base64(value.value)}`] : []), ...(server.value ? [`server=${server.value}`] : [])];
    try {
      const reply = await post(`${what.value}?${query.join("&")}`);
      result.classList.toggle("bad", /^(NOTAPPLIED|UNKNOWN)$/.test(reply.status));
      result.replaceChildren(resultWords(reply), " ", ...linesLink(app, reply.label));
    } catch (error) {
      result.classList.add("bad");
      result.textContent = error.message;
    }
    isBusy = false;
  };
  return form;
}

function linesLink(app, label) {
  if (!app.data.steps || !label) return [];
  const button = element("button", "", `lines of ${label}`);
  button.type = "button";
  button.onclick = () => app.setFilter({ req: label });
  return [button];
}

/** The result of a request, as a sentence. */
function resultWords({ op, key, value, status, version, slot, server, took_ms: took, error }) {
  const where = `version ${version}, slot ${slot}; s${server} answered after ${took} ms`;
  if (status === "UNKNOWN") return `${op} ${key}: outcome unknown, it may or may not be applied: ${error}`;
  if (status === "NOTAPPLIED") return `${op} ${key}: ${op === "get" ? "not read" : "not applied"}: ${error}`;
  if (status === "NOTFOUND") return `${op} ${key}: there is no such key (${where})`;
  if (op === "get") return `get ${key}: the value is \u201c${value === undefined ? "bytes that are no text" : value}\u201d (${where})`;
  return `${op} ${key}: done (${where})`;
}

/** Text in base64url, without padding. */
function base64(text) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function offerServers(select, members) {
  const wanted = ["any", ...members.map((number) => `s${number}`)];
  if ([...select.options].map((option) => option.textContent).join() === wanted.join()) return;
  const chosen = select.value;
  select.replaceChildren(...wanted.map((text, n) => Object.assign(element("option", "", text), { value: n ? members[n - 1] : "" })));
  select.value = chosen;
}
