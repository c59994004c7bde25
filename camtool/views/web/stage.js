/* The picture with its map, boxes, the place that is read and the rectangle. */

/* Pixels of the longer side on which maps are drawn and boxes found, at the most. */
const GRID_SIDE = 640;

/* A map without evidence has no colours: what rounding leaves stays unseen. */
const NO_EVIDENCE = 1e-6;

class Stage {
  /* told: {place, rectangle} that are called when the pointer moves or draws. */
  constructor(evidence, colors, told) {
    const { width, height, picture } = evidence.data;
    Object.assign(this, { evidence, colors, told, size: { width, height }, drawing: false });
    this.frame = byId("frame");
    this.canvas = byId("map");
    const share = Math.min(1, GRID_SIDE / Math.max(width, height));
    this.columns = Math.max(1, Math.round(width * share));
    this.lines = Math.max(1, Math.round(height * share));
    byId("picture").src = `data:image/jpeg;base64,${picture}`;
    this.frame.parentNode.style.setProperty("--ratio", width / height);
    const { across: [x0, x1], down: [y0, y1] } = evidence;
    byId("seen").hidden = x0 <= 0 && y0 <= 0 && x1 >= width && y1 >= height;
    setArea(byId("seen"), [x0, y0, x1, y1], this.size);
    new ResizeObserver(() => this.fit()).observe(this.frame.parentNode);
    ["pointerdown", "pointermove", "pointerup", "pointercancel"].forEach((name) => {
      this.frame.addEventListener(name, (event) => this.pointer(event));
    });
    this.fit();
  }

  fit() {
    const { clientWidth, clientHeight } = this.frame.parentNode, { width, height } = this.size;
    const scale = Math.min(clientWidth / width, clientHeight / height);
    this.frame.style.width = `${Math.max(1, Math.round(width * scale))}px`;
    this.frame.style.height = `${Math.max(1, Math.round(height * scale))}px`;
  }

  /* Evidence on the grid, read in one of the `READINGS`. */
  heat(entry, reading) {
    const { evidence, size, lines, columns } = this;
    const ys = samples(evidence.rows, lines, reading, evidence.down, size.height);
    const xs = samples(evidence.columns, columns, reading, evidence.across, size.width);
    return resample(evidence.mapOf(entry), ys, xs);
  }

  /* Shows a map; the end of its colours, as everything that is measured, is that of the linear one. */
  show(entry, { reading, signed }) {
    if (entry !== this.entry) this.linear = this.heat(entry, "linear");
    this.entry = entry;
    this.peak = peakOf(this.linear, false);
    this.top = peakOf(this.linear, signed);
    const values = reading === "linear" ? this.linear : this.heat(entry, reading);
    const top = this.top > NO_EVIDENCE ? this.top : 1;
    fill(this.canvas, values, this.columns, signed ? this.colors.signed : this.colors.positive, top, signed);
  }

  /* Regions above a share of the peak, in pixels of the picture, and the part of it that they cover. */
  regions(threshold) {
    const cut = Math.fround(threshold * this.peak), across = this.size.width / this.columns;
    const down = this.size.height / this.lines;
    const found = this.peak > 0 ? regionsOf(this.linear, this.columns, cut) : [];
    const area = found.reduce((sum, region) => sum + region.area, 0) / this.linear.length;
    found.forEach((region) => {
      const [x0, y0, x1, y1] = region.box;
      region.box = [Math.floor(x0 * across), Math.floor(y0 * down), Math.ceil(x1 * across), Math.ceil(y1 * down)];
    });
    return { found, area };
  }

  showBoxes(boxes) {
    byId("boxes-drawn").replaceChildren(...boxes.map((edges) => {
      const node = element("div", "box");
      setArea(node, edges, this.size);
      return node;
    }));
  }

  showPlace({ x, y }) {
    setArea(byId("cross"), [x + 0.5, y + 0.5, x + 0.5, y + 0.5], this.size);
  }

  showRectangle(edges) {
    byId("rectangle").hidden = !edges;
    if (edges) setArea(byId("rectangle"), edges, this.size);
  }

  /* The pixel under the pointer. */
  pixel(event) {
    const { left, top, width, height } = this.frame.getBoundingClientRect();
    return this.inside({
      x: Math.floor((event.clientX - left) / width * this.size.width),
      y: Math.floor((event.clientY - top) / height * this.size.height),
    });
  }

  inside({ x, y }) {
    const within = (value, end) => Math.min(Math.max(value, 0), end - 1);
    return { x: within(x, this.size.width), y: within(y, this.size.height) };
  }

  /* A mouse reads where it is and draws when it drags; a finger draws only when asked to. */
  pointer(event) {
    const place = this.pixel(event);
    if (event.type === "pointerdown" && event.button === 0) {
      this.anchor = event.pointerType === "mouse" || this.drawing ? place : null;
      if (this.anchor) this.frame.setPointerCapture(event.pointerId);
      if (this.anchor) this.told.rectangle(null);
    } else if (event.type !== "pointermove") this.anchor = null;
    this.told.place(place);
    if (this.anchor && event.type === "pointermove") this.told.rectangle(spanned(this.anchor, place));
  }
}

/* The rectangle of two of its pixels; null where they are one. */
function spanned(one, other) {
  if (one.x === other.x && one.y === other.y) return null;
  return [Math.min(one.x, other.x), Math.min(one.y, other.y),
    Math.max(one.x, other.x) + 1, Math.max(one.y, other.y) + 1];
}
