"use strict";

/* Maps at feature resolution: how they are read between cells, and coloured. */

function decodeBytes(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

/* How cells are read between their centres: weights of the cells around a place, by their distance
   from the one on its left. Cubic: Keys 1981, equation 15, a = -1/2. */
const READINGS = {
  cells: (part) => [[part < 0.5 ? 0 : 1, 1]],
  linear: (part) => [[0, 1 - part], [1, part]],
  cubic: (part) => {
    const rest = 1 - part, near = (x) => 1 - 2.5 * x * x + 1.5 * x * x * x;
    return [[-1, -part * rest * rest / 2], [0, near(part)], [1, near(rest)], [2, -rest * part * part / 2]];
  },
};

/* The cells and weights that make one value at a place between 0 and `cells`. */
function taps(cells, place, reading) {
  const at = Math.min(Math.max(place - 0.5, 0), cells - 1);
  const low = Math.min(Math.floor(at), Math.max(cells - 2, 0));
  return READINGS[reading](at - low)
    .map(([by, weight]) => [Math.min(Math.max(low + by, 0), cells - 1), weight]);
}

/* Taps of each pixel along one axis of `length`; null where its centre is off the map, which covers
   `from` to `to` of it. */
function samples(cells, pixels, reading = "linear", [from, to] = [0, 1], length = 1) {
  return Array.from({ length: pixels }, (_, i) => {
    const place = ((i + 0.5) * length / pixels - from) / (to - from);
    return place < 0 || place > 1 ? null : taps(cells, place * cells, reading);
  });
}

/* A map [height, width] read at taps of rows and columns; NaN where there are none. */
function resample({ width, height, values }, ys, xs) {
  const across = new Float32Array(height * xs.length), out = new Float32Array(ys.length * xs.length);
  xs.forEach((x, i) => {
    for (let row = 0; row < height; row++) {
      let sum = x ? 0 : NaN;
      if (x) for (const [cell, weight] of x) sum += weight * values[row * width + cell];
      across[row * xs.length + i] = sum;
    }
  });
  ys.forEach((y, j) => {
    const line = out.subarray(j * xs.length, (j + 1) * xs.length);
    if (!y) line.fill(NaN);
    else for (const [row, weight] of y) {
      for (let i = 0; i < line.length; i++) line[i] += weight * across[row * xs.length + i];
    }
  });
  return out;
}

/* 256 colours as pixels: [opaque for 0 to peak, see-through for 0 to peak, for -peak to peak]. */
function palettes([positive, signed]) {
  const half = (entry) => Math.abs(entry - 127.5) / 127.5;
  return {
    opaque: palette(positive, () => 1),
    positive: palette(positive, (entry) => rise(entry / 255)),
    signed: palette(signed, (entry) => rise(half(entry))),
  };
}

/* Opacity of evidence, full from half of the peak on: the same as in the written overlays. */
function rise(share) {
  const x = Math.min(2 * share, 1);
  return x * x * (3 - 2 * x);
}

function palette(table, opacity) {
  const bytes = new Uint8ClampedArray(4 * 256);
  for (let i = 0; i < 256; i++) {
    bytes.set(table.subarray(3 * i, 3 * i + 3), 4 * i);
    bytes[4 * i + 3] = 255 * opacity(i);
  }
  return new Uint32Array(bytes.buffer);
}

/* The upper end of a map's colours: its peak, of either side if signed. */
function peakOf(values, signed) {
  let peak = 0;
  values.forEach((value) => { peak = Math.max(peak, (signed ? Math.abs(value) : value) || 0); });
  return peak;
}

/* Colours values, signed: -top to top, or else 0 to top; NaN stays clear. */
function fill(canvas, values, columns, colors, top, signed) {
  canvas.width = columns;
  canvas.height = values.length / columns;
  const context = canvas.getContext("2d", { willReadFrequently: true }); // small, many: keep off the GPU
  const picture = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(picture.data.buffer);
  const step = (signed ? 127.5 : 255) / top, first = signed ? 127.5 : 0;
  values.forEach((value, i) => {
    pixels[i] = colors[Math.min(Math.max(0, Math.round(first + step * value)), 255)];
  });
  context.putImageData(picture, 0, 0);
}

/* Paints a map at `side` pixels or a little more. */
function paint(canvas, map, colors, side, signed = false) {
  const factor = Math.max(1, Math.ceil(side / Math.max(map.width, map.height)));
  const [ys, xs] = [map.height, map.width].map((cells) => samples(cells, cells * factor));
  fill(canvas, resample(map, ys, xs), xs.length, colors, peakOf(map.values, signed) || 1, signed);
}
