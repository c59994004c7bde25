"use strict";

/* Maps arrive as signed bytes at feature resolution and are coloured here. */

function decodeBytes(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

function decodeMap({ rows, columns, levels }) {
  return { width: columns, height: rows, values: new Int8Array(decodeBytes(levels).buffer) };
}

/* Source cells and weights for bilinear sampling along one axis, pixel centres at one half. */
function samples(cells, pixels) {
  return Array.from({ length: pixels }, (_, i) => {
    const at = Math.min(Math.max(((i + 0.5) * cells) / pixels - 0.5, 0), cells - 1);
    const low = Math.floor(at);
    return { low, high: Math.min(low + 1, cells - 1), part: at - low };
  });
}

/* Bilinear upsampling of the values, so that colours follow the values and not each other. */
function upsample({ width, height, values }, columns, rows) {
  const xs = samples(width, columns), ys = samples(height, rows);
  const out = new Float32Array(columns * rows);
  ys.forEach((y, j) => xs.forEach((x, i) => {
    const top = y.low * width, bottom = y.high * width;
    const above = values[top + x.low] * (1 - x.part) + values[top + x.high] * x.part;
    const below = values[bottom + x.low] * (1 - x.part) + values[bottom + x.high] * x.part;
    out[j * columns + i] = above * (1 - y.part) + below * y.part;
  }));
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

/* Paints a map at `side` pixels or a little more; signed: -peak to peak, or else 0 to peak. */
function paint(canvas, map, colors, side, signed = false) {
  const factor = Math.max(1, Math.ceil(side / Math.max(map.width, map.height)));
  canvas.width = map.width * factor;
  canvas.height = map.height * factor;
  const context = canvas.getContext("2d", { willReadFrequently: true }); // small, many: keep off the GPU
  const image = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  const top = map.values.reduce((a, b) => Math.max(a, signed ? Math.abs(b) : b), 0) || 1;
  const step = (signed ? 127.5 : 255) / top, first = signed ? 127.5 : 0;
  upsample(map, canvas.width, canvas.height).forEach((value, i) => {
    pixels[i] = colors[Math.max(0, Math.round(first + step * value))];
  });
  context.putImageData(image, 0, 0);
}

function paintEvidence(canvas, row, side, { colors, against }) {
  const signed = against || row.versus !== null; // a contrast has two sides
  paint(canvas, decodeMap(row), signed ? colors.signed : colors.positive, side, signed);
}
