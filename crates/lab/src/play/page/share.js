// Share: the link, the choices as text, files for other tools, and exercises of one's own.

const OWN_MAX = 16384;
const EXPORTS = [
  ["lines", "Log lines"],
  ["timeline", "Time line (a page)"],
  ["audit", "Audit"],
  ["text", "Choices as text"],
  ["test", "Golden script"],
];

async function copy(text, node) {
  const words = node.textContent;
  try {
    await navigator.clipboard.writeText(text);
    node.textContent = "Copied";
  } catch {
    node.textContent = "Select the text and copy it";
  }
  setTimeout(() => {
    node.textContent = words;
  }, 1500);
}

async function openShare(game) {
  const hash = await addressOf(game),
    link = hash ? location.href.replace(/#.*$/, "") + hash : null;
  const field = element("textarea", { readonly: true, rows: "2", style: "min-height:54px", "aria-label": "Link" });
  field.value = link || "This exercise is too long for a link. Send its text and the choices as text.";
  const wrong = element("p", { class: "wrong", role: "alert" });
  const pasted = element("textarea", {
    "aria-label": "Choices as text",
    placeholder: "deliver s1>s2 PREPARE\ndeliver s2>s1 PROMISE",
    style: "min-height:84px",
    spellcheck: "false",
  });
  const save = async (as) => {
    wrong.textContent = "";
    try {
      const file = await game.service.post(
        "/export",
        { ...game.address(game.branch()), c: game.played().join("-"), as },
        undefined,
        20000,
      );
      const place = URL.createObjectURL(new Blob([file.text], { type: file.kind }));
      element("a", { href: place, download: file.name }).click();
      setTimeout(() => URL.revokeObjectURL(place), 1000);
    } catch (error) {
      wrong.textContent = error.message;
    }
  };
  const play = async () => {
    wrong.textContent = "";
    try {
      const read = await game.service.post("/export", {
        ...game.address(game.branch()),
        as: "codes",
        lines: pasted.value,
      });
      closeDialog();
      game.next(() => game.extend(read.c ? read.c.split("-") : [], { moved: true }));
    } catch (error) {
      wrong.textContent = whereWrong(error);
    }
  };
  const copier = button(
    { class: "plain go", click: (event) => copy(field.value, event.currentTarget) },
    "Copy the link",
  );
  openDialog(
    "Share and export",
    element("h3", {}, "Link to these choices"),
    field,
    element(
      "div",
      { class: "row" },
      link ? copier : null,
      element("span", { class: "dim" }, "The part after # stays in the browser."),
    ),
    element("h3", {}, `Files of these ${many(game.cursor, "step")}`),
    element(
      "div",
      { class: "row" },
      EXPORTS.map(([as, words]) => button({ class: "plain", click: () => save(as) }, words)),
    ),
    element("h3", {}, "Play choices from a text"),
    pasted,
    element("div", { class: "row" }, button({ class: "plain", click: play }, "Play them")),
    wrong,
  );
}

/** The sentence of a refusal, with the place in the text if there is one. */
function whereWrong(error) {
  const place = error.line ? `Line ${error.line}${error.column ? `, column ${error.column}` : ""}: ` : "";
  const told = place + error.message;
  return told.charAt(0).toUpperCase() + told.slice(1);
}

function openOwn(game) {
  const field = element("textarea", {
      "aria-label": "Text of the exercise",
      spellcheck: "false",
      style: "min-height:220px",
    }),
    wrong = element("p", { class: "wrong", role: "alert" });
  field.value = game.text || "";
  const open = async () => {
    wrong.textContent = "";
    const size = new TextEncoder().encode(field.value).length;
    if (size > OWN_MAX) {
      wrong.textContent = `The text has ${size} bytes, and at most ${OWN_MAX} are read. Shorten it.`;
      return;
    }
    try {
      await game.service.view({ text: field.value }, []);
    } catch (error) {
      wrong.textContent = whereWrong(error);
      return;
    }
    closeDialog();
    game.next(() => game.open(null, field.value, null));
  };
  openDialog(
    "Own exercise",
    element("p", { class: "dim" }, "Paste the text of an exercise, at most 16 KiB. It stays in this browser."),
    field,
    wrong,
    element("div", { class: "row" }, button({ class: "plain go", click: open }, "Open it")),
  );
}

function openForget(game) {
  openDialog(
    "Forget my progress",
    element("p", {}, "Stars and last choices of all exercises are kept in this browser only. Forget them?"),
    element(
      "div",
      { class: "row" },
      button(
        {
          class: "plain go",
          click: () => {
            store.forget();
            closeDialog();
            game.next(() => game.open(game.catalog[0].name, null, null));
          },
        },
        "Forget them",
      ),
      button({ class: "plain", click: closeDialog }, "Keep them"),
    ),
  );
}
