// Store: stars and last choices, kept by this browser and nowhere else; and the address, which is the link.

const SHELF = "paxos-lab-play";

const store = {
  read() {
    try {
      const kept = JSON.parse(localStorage.getItem(SHELF));
      return kept && typeof kept === "object" ? { games: {}, stars: {}, ...kept } : { games: {}, stars: {} };
    } catch {
      return { games: {}, stars: {} };
    }
  },
  /** Changes what is kept; a browser that keeps nothing is no reason to stop. */
  change(how) {
    const kept = store.read();
    how(kept);
    try {
      localStorage.setItem(SHELF, JSON.stringify(kept));
    } catch {
      /* The shelf is full or forbidden: the address still holds the choices. */
    }
  },
  forget() {
    try {
      localStorage.removeItem(SHELF);
    } catch {
      /* Nothing was kept. */
    }
  },
};

const OWN_IN_LINK = 4096;

async function squeezed(stream, bytes) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

/** A text, deflated, in letters that an address may have. */
async function packText(text) {
  const bytes = await squeezed(new CompressionStream("deflate-raw"), new TextEncoder().encode(text));
  return btoa(String.fromCharCode(...bytes))
    .replace(/\+/g, "-")
    .replace(/\//g, "_")
    .replace(/=+$/, "");
}

async function unpackText(packed) {
  const bytes = Uint8Array.from(atob(packed.replace(/-/g, "+").replace(/_/g, "/")), (letter) => letter.charCodeAt(0));
  return new TextDecoder("utf-8", { fatal: true }).decode(
    await squeezed(new DecompressionStream("deflate-raw"), bytes),
  );
}

/** What the address asks for; null if it asks for nothing. */
async function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  if (!words.has("x") && !words.has("t")) return null;
  const codes = (words.get("c") || "").split("-").filter((code) => /^[A-Za-z0-9.]+$/.test(code));
  const asked = { name: words.get("x"), text: null, codes, mode: words.get("m"), hash: words.get("h") };
  if (words.has("t")) asked.text = await unpackText(words.get("t"));
  return asked;
}

/** The address of a game: nothing in it is sent to a server. */
async function addressOf(game) {
  const words = [];
  if (game.text === null) words.push(`x=${encodeURIComponent(game.exercise.name)}`);
  else {
    const packed = await packText(game.text);
    if (packed.length > OWN_IN_LINK) return null;
    words.push(`t=${packed}`);
  }
  words.push(`c=${game.codes().join("-")}`);
  if (game.branch().mode) words.push(`m=${encodeURIComponent(game.branch().mode)}`);
  if (game.view) words.push(`h=${game.view.hash}`);
  return `#${words.join("&")}`;
}
