// The contrast of every visible text with what is behind it, by the formula of WCAG 2.
(() => {
  /** Red, green, blue from 0 to 255, and alpha from 0 to 1. */
  const read = (text) => {
    const one = /rgba?\(([^)]+)\)|color\(srgb ([^)]+)\)/.exec(text);
    if (!one) return [0, 0, 0, 0];
    const parts = (one[1] || one[2]).split(/[\s,/]+/).filter(Boolean).map(Number);
    const scale = one[2] ? 255 : 1;
    return [parts[0] * scale, parts[1] * scale, parts[2] * scale, parts.length > 3 ? parts[3] : 1];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((value, n) => value * a + below[n] * (1 - a));
  const luminance = (color) => {
    const [r, g, b] = color.map((value) => value / 255).map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const opacityOf = (element) => {
    let opacity = 1;
    for (let at = element; at; at = at.parentElement) opacity *= Number(getComputedStyle(at).opacity);
    return opacity;
  };
  /** What an element paints behind its text: several colors if it has a pattern. */
  const paints = (element) => {
    const style = getComputedStyle(element);
    const isShape = element instanceof SVGGeometryElement;
    const [r, g, b, a] = read(isShape ? style.fill : element instanceof SVGElement ? "" : style.backgroundColor);
    const plain = [r, g, b, a * opacityOf(element) * (isShape ? Number(style.fillOpacity) : 1)];
    const pattern = element instanceof SVGElement ? [] : [...style.backgroundImage.matchAll(/rgba?\([^)]+\)|color\(srgb [^)]+\)/g)].map(([text]) => read(text));
    return pattern.length ? { plain, pattern } : { plain, pattern: [[0, 0, 0, 0]] };
  };
  /** The colors behind a text: those of every element there, from the page up. */
  const behind = (stack) => {
    let colors = [[255, 255, 255]];
    for (const element of stack.reverse()) {
      const { plain, pattern } = paints(element);
      colors = colors.flatMap((color) => pattern.map((stop) => over(stop, over(plain, color))));
      colors = [...new Map(colors.map((color) => [color.join(), color])).values()];
    }
    return colors;
  };

  const poor = [];
  let count = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.nodeValue.trim() || /^(SCRIPT|STYLE|NOSCRIPT|OPTION|TITLE|title)$/.test(element.tagName) || !element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    if (element.closest(".hush")) continue;
    element.scrollIntoView({ block: "center", inline: "nearest", behavior: "instant" });
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = [...range.getClientRects()].find((rect) => rect.width > 0 && rect.height > 0);
    if (!box) continue;
    // A point in the text that is visible: it may be cut off at its end.
    const points = [0.5, 0.1, 0.3, 0.7, 0.9].map((part) => [box.left + box.width * part, box.top + box.height / 2]);
    const found = points.map(([x, y]) => document.elementsFromPoint(x, y)).find((stack) => stack.some((one) => one === element || one.contains(element) && one !== document.body && one !== document.documentElement));
    if (!found) continue;
    // What lies above the text is not behind it.
    const from = found.findIndex((one) => one === element || one.contains(element));
    const style = getComputedStyle(element);
    const [r, g, b, a] = read(element instanceof SVGElement ? style.fill : style.color);
    const own = element instanceof SVGElement ? found.slice(from).filter((one) => one !== element) : found.slice(from);
    count++;
    const worst = Math.min(...behind(own).map((back) => contrast(over([r, g, b, a * opacityOf(element)], back), back)));
    if (worst < 4.5) poor.push(`${worst.toFixed(2)} ${element.tagName}.${element.getAttribute("class") || ""} in ${element.parentElement.tagName}.${element.parentElement.getAttribute("class") || element.parentElement.id}: ${node.nodeValue.trim().slice(0, 40)}`);
  }
  return { count, poor: [...new Set(poor)] };
})()
