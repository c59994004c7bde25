/* Regions of a map above a cut. */

const NEIGHBOURS = [[-1, -1], [0, -1], [1, -1], [-1, 0], [1, 0], [-1, 1], [0, 1], [1, 1]];

/* Connected regions (8 neighbours) of values above `cut`, the largest first: box (end-exclusive), number
   of pixels, and part of all positive evidence inside the box. */
function regionsOf(values, columns, cut) {
  const seen = Uint8Array.from(values, (value) => (value > cut ? 0 : 1)), found = [];
  for (let start = seen.indexOf(0); start >= 0; start = seen.indexOf(0, start + 1)) {
    found.push(flood(seen, columns, start));
  }
  const all = positiveIn(values, columns, [0, 0, columns, values.length / columns]) || 1;
  found.forEach((region) => { region.share = positiveIn(values, columns, region.box) / all; });
  return found.sort((a, b) => b.area - a.area || a.box[1] - b.box[1] || a.box[0] - b.box[0]);
}

/* The region around a pixel, which is marked as seen. */
function flood(seen, columns, start) {
  const rows = seen.length / columns, waiting = [start], box = [columns, rows, 0, 0];
  let area = 0;
  seen[start] = 1;
  while (waiting.length) {
    const at = waiting.pop(), x = at % columns, y = (at - x) / columns;
    area += 1;
    box[0] = Math.min(box[0], x);
    box[1] = Math.min(box[1], y);
    box[2] = Math.max(box[2], x + 1);
    box[3] = Math.max(box[3], y + 1);
    for (const [dx, dy] of NEIGHBOURS) {
      const i = x + dx, j = y + dy, next = j * columns + i;
      if (i < 0 || j < 0 || i >= columns || j >= rows || seen[next]) continue;
      seen[next] = 1;
      waiting.push(next);
    }
  }
  return { box, area };
}

function positiveIn(values, columns, [x0, y0, x1, y1]) {
  let sum = 0;
  for (let y = y0; y < y1; y++) {
    for (let x = x0; x < x1; x++) sum += Math.max(values[y * columns + x], 0) || 0;
  }
  return sum;
}
