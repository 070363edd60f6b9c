// Updates in place: a panel is described anew for each line, and its elements are changed into that description. An
// element that stays keeps its focus, and a click on it that began before an update ends on the same element.

/** Gives a box these children. Elements with data-key are matched by it, all other nodes by their place. An element
 * that a reader can press needs a key, so that it never turns into another one under the finger. */
function patch(box, ...wanted) {
  const holder = document.createElement("div");
  holder.append(...wanted);
  patchChildren(box, holder);
}

function patchChildren(box, holder) {
  const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE && node.dataset.key) || null;
  const wanted = [...holder.childNodes], keys = new Set(wanted.map(keyOf));
  const known = new Map([...box.childNodes].filter(keyOf).map((node) => [keyOf(node), node]));
  let at = box.firstChild;
  const remove = () => {
    const stale = at;
    at = at.nextSibling;
    stale.remove();
  };
  for (const want of wanted) {
    // Stale elements go first: an element that is moved loses the focus.
    while (at && keyOf(at) && !keys.has(keyOf(at))) remove();
    const key = keyOf(want), same = key ? known.get(key) : at && !keyOf(at) ? at : null;
    known.delete(key);
    if (!same || same.nodeName !== want.nodeName) {
      box.insertBefore(want, at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    else box.insertBefore(same, at);
    patchNode(same, want);
  }
  while (at) remove();
}

function patchNode(node, want) {
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.nodeValue !== want.nodeValue) node.nodeValue = want.nodeValue;
    return;
  }
  for (const { name } of [...node.attributes]) if (!want.hasAttribute(name)) node.removeAttribute(name);
  for (const { name, value } of want.attributes) if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  node.onclick = want.onclick;
  node.onpointerdown = want.onpointerdown;
  patchChildren(node, want);
}
