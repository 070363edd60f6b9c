// Layout: where cards and messages stand. Cards have fixed places on a ring; each message slides along its own link to
// a place where it covers no card and no other message.

/** Steps by which a message moves away from its link to find room. */
const ASIDE = 10;
/** Rounds of looking for room. */
const ROUNDS = 4;

/** Sizes of the ring by its room: gaps, and how far a message stands from the middle of its link. */
function scaleOf({ width, height }) {
  if (width < 520 || height < 400) return { name: "small", margin: 6, under: 4, over: 6, beside: 7, reach: 60 };
  if (width < 900 || height < 430) return { name: "mid", margin: 18, under: 36, over: 14, beside: 12, reach: 60 };
  return { name: "big", margin: 26, under: 38, over: 18, beside: 13, reach: 60 };
}

/** The middles of the cards: number 1 on top, then clockwise, as large as the room allows. */
function placeCards(count, room, card, scale) {
  const angles = Array.from({ length: count }, (_, n) => (2 * Math.PI * n) / count - Math.PI / 2);
  const xs = angles.map(Math.cos),
    ys = angles.map(Math.sin);
  const spread = (values) => Math.max(0.01, Math.max(...values) - Math.min(...values));
  const wide = Math.min((room.width - card.width - 2 * scale.margin) / spread(xs), 560);
  const high = (room.height - card.height - scale.over - scale.under) / spread(ys);
  const left = room.width / 2,
    top = scale.over + card.height / 2 - Math.min(...ys) * high;
  return angles.map((_, n) => ({ x: left + xs[n] * wide, y: top + ys[n] * high }));
}

const boxAround = (at, size, grow = 0) => ({
  left: at.x - size.width / 2 - grow,
  right: at.x + size.width / 2 + grow,
  top: at.y - size.height / 2 - grow,
  bottom: at.y + size.height / 2 + grow,
});

function overlap(a, b) {
  const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  return wide > 0 && high > 0 ? wide * high : 0;
}

/** Where a line from inside a box leaves it. */
function leaves(from, to, box) {
  let part = 1;
  const cut = (start, way, low, high) => {
    if (way > 0) part = Math.min(part, (high - start) / way);
    else if (way < 0) part = Math.min(part, (low - start) / way);
  };
  cut(from.x, to.x - from.x, box.left, box.right);
  cut(from.y, to.y - from.y, box.top, box.bottom);
  part = Math.max(0, part);
  return { x: from.x + (to.x - from.x) * part, y: from.y + (to.y - from.y) * part };
}

/** The line of a directed link: beside the middles, on the left of the direction of travel, from card to card. */
function laneOf(from, to, card, offset, gap) {
  const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
  const side = { x: ((to.y - from.y) / length) * offset, y: (-(to.x - from.x) / length) * offset };
  const a = { x: from.x + side.x, y: from.y + side.y },
    b = { x: to.x + side.x, y: to.y + side.y };
  return {
    start: leaves(a, b, boxAround(from, card)),
    end: leaves(b, a, boxAround(to, card, gap)),
    side: { x: side.x / offset, y: side.y / offset },
  };
}

/** Gives each item `{lane, width, height, wanted}` a place `at`: one after the other, and then each once more, since
 * the first ones could not know of the others. */
function placeMessages(items, taken, room, scale) {
  const boxes = new Map();
  for (let round = 0; round < ROUNDS; round++) {
    for (const item of items) {
      boxes.delete(item);
      const best = bestPlace(item, [...taken, ...boxes.values()], room, scale);
      item.at = best.at;
      item.part = best.part;
      boxes.set(item, best.box);
    }
  }
}

/** The place near the link that covers least, and else lies where it is wanted. */
function bestPlace(item, filled, room, scale) {
  const { start, end, side } = item.lane;
  let best = null;
  for (let part = 0.06; part <= 0.95; part += 0.0445) {
    for (let aside = -scale.reach / 2; aside <= scale.reach; aside += ASIDE) {
      const at = {
        x: start.x + (end.x - start.x) * part + side.x * aside,
        y: start.y + (end.y - start.y) * part + side.y * aside,
      };
      const box = boxAround(at, item, 2);
      let cost = Math.abs(part - item.wanted) * 60 + (aside < 0 ? -3.5 : 2.2) * aside;
      if (box.left < 2 || box.top < 2 || box.right > room.width - 2 || box.bottom > room.height - 2) cost += 4000;
      for (const other of filled) {
        if (best && cost >= best.cost) break;
        const shared = overlap(box, other);
        if (shared) cost += 300 + shared * 6;
      }
      if (!best || cost < best.cost) best = { cost, at, part, box };
    }
  }
  return best;
}

/** A place on the line between two cards that covers nothing, as near to the middle as there is one. */
function placeCut(a, b, size, taken) {
  const places = [0, 18, -18, 32, -32].flatMap((aside) =>
    [0.5, 0.4, 0.6, 0.3, 0.7, 0.22, 0.78].map((part) => ({
      x: a.x + (b.x - a.x) * part,
      y: a.y + (b.y - a.y) * part + aside,
    })),
  );
  return places.find((at) => taken.every((other) => !overlap(boxAround(at, size, 2), other))) || places[0];
}
