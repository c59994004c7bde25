/* What the page holds of each class, and what the maps say of places. Coordinates are pixels of the
   original picture. */

class Evidence {
  constructor(data) {
    const { rows, columns, titles, extent } = data, cells = rows * columns;
    const floats = (text) => new Float32Array(decodeBytes(text).buffer);
    const [logits, bias, residual, steps] = ["logits", "bias", "residual", "steps"]
      .map((name) => floats(data[name]));
    Object.assign(this, { data, rows, columns, cells, across: [extent[0], extent[2]], down: [extent[1], extent[3]] });
    this.maps = this.decode(steps);
    this.entries = titles.map((title, k) => ({
      k, title, contrast: data.contrasts[k], index: data.indices[k], rank: data.ranks[k],
      probability: data.probabilities[k], logit: logits[k], bias: bias[k], residual: residual[k],
      within: steps[k] / 2, values: this.maps.subarray(k * cells, (k + 1) * cells),
    }));
    this.classes = this.entries.filter((entry) => !entry.contrast);
  }

  decode(steps) {
    const { fine, coarse } = this.data, { cells } = this;
    const first = new Int16Array(decodeBytes(fine).buffer);
    const others = new Int8Array(decodeBytes(coarse).buffer);
    const maps = new Float32Array(steps.length * cells);
    maps.set(first);
    maps.set(others, first.length);
    return maps.map((level, i) => level * steps[Math.floor(i / cells)]);
  }

  /* The difference of two classes' maps, and of their logits. */
  between(one, other) {
    const less = (name) => one[name] - other[name], more = one.within + other.within;
    return {
      title: `${one.title} rather than ${other.title}`, contrast: true, index: null, rank: null,
      probability: null, logit: less("logit"), bias: less("bias"), residual: less("residual"),
      within: more, values: one.values.map((value, i) => value - other.values[i]),
    };
  }

  mapOf(entry) {
    return { width: this.columns, height: this.rows, values: entry.values };
  }

  /* Cells and weights that make the value at the middle of a pixel; none where nothing was seen. */
  place({ x, y }, reading) {
    const along = (cells, at, [from, to]) => {
      const share = (at + 0.5 - from) / (to - from);
      return share < 0 || share > 1 ? [] : taps(cells, share * cells, reading);
    };
    return this.cross(along(this.rows, y, this.down), along(this.columns, x, this.across), 1);
  }

  /* Cells and weights that make what a rectangle gives to the mean of a map: as much of each cell as
     lies in it. */
  rectangle([x0, y0, x1, y1]) {
    const along = (cells, from, to, [start, end]) => Array.from({ length: cells }, (_, i) => {
      const size = (end - start) / cells, left = start + i * size;
      return [i, Math.max(0, Math.min(to, left + size) - Math.max(from, left)) / size];
    }).filter(([, part]) => part > 0);
    return this.cross(along(this.rows, y0, y1, this.down), along(this.columns, x0, x1, this.across), this.cells);
  }

  cross(ys, xs, by) {
    return ys.flatMap(([row, wide]) => xs.map(
      ([column, weight]) => [row * this.columns + column, wide * weight / by]));
  }

  /* Classes with what they get from some cells, the most first. */
  ranked(weights, value = (sum) => sum) {
    return this.classes.map((entry) => ({ entry, value: value(weigh(entry, weights), entry) }))
      .sort((a, b) => b.value - a.value);
  }
}

function weigh({ values }, weights) {
  let sum = 0;
  for (const [cell, weight] of weights) sum += weight * values[cell];
  return sum;
}
