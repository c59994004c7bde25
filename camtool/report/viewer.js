/* The picture with its layers, small and large, and the large view. */

const SMALL_MAP = 72, LARGE_MAP = 360;

function decodeMap({ rows, columns, levels }) {
  return { width: columns, height: rows, values: new Int8Array(decodeBytes(levels).buffer) };
}

function paintEvidence(canvas, row, side, { colors, against }) {
  const signed = against || row.versus !== null; // a contrast has two sides
  paint(canvas, decodeMap(row), signed ? colors.signed : colors.positive, side, signed);
}

/* A map's value at shares of its width and height; null beside it. */
function valueAt({ width, height, values }, x, y) {
  if (Math.min(x, y) < 0 || Math.max(x, y) > 1) return null;
  const ys = taps(height, y * height, "linear"), xs = taps(width, x * width, "linear");
  return ys.reduce((sum, [row, high]) => (
    xs.reduce((part, [column, wide]) => part + high * wide * values[row * width + column], sum)), 0);
}

function area(className, edges, picture) {
  const node = element("div", className);
  setArea(node, edges, picture);
  return node;
}

function coversAll([x0, y0, x1, y1], { width, height }) {
  return x0 <= 0 && y0 <= 0 && x1 >= width && y1 >= height;
}

function image(url) {
  const node = element("img");
  node.alt = "";
  node.decoding = "async";
  node.draggable = false;
  node.src = url;
  return node;
}

/* Fills `frame` with thumbnail, map and box, as large as fits into the given space. */
function fillFrame(frame, picture, row, [width, height], side, settings) {
  const scale = Math.min(width / picture.width, height / picture.height);
  frame.style.width = `${Math.max(1, Math.round(picture.width * scale))}px`;
  frame.style.height = `${Math.max(1, Math.round(picture.height * scale))}px`;
  const map = element("canvas");
  paintEvidence(map, row, side, settings);
  setArea(map, row.region, picture);
  frame.replaceChildren(...(picture.thumb ? [image(picture.thumb)] : []), map);
  if (!coversAll(row.region, picture)) frame.append(area("seen", row.region, picture));
  if (row.box) frame.append(area("box", row.box, picture));
}

function logits(value) {
  return value === null ? "–" : `${value.toExponential(1).replaceAll("-", "−")} logits`;
}

class Viewer {
  constructor(settings, moved) {
    Object.assign(this, { settings, moved, list: [], at: 0, dialog: byId("viewer") });
    byId("previous").addEventListener("click", () => this.step(-1));
    byId("next").addEventListener("click", () => this.step(1));
    byId("close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    byId("viewer-frame").addEventListener("pointermove", (event) => this.read(event));
    new ResizeObserver(() => this.dialog.open && this.drawFrame()).observe(this.dialog);
  }

  /* list: pictures that previous and next walk through; at: place of the first one shown. */
  open(list, at) {
    Object.assign(this, { list, at });
    if (!this.dialog.open) this.dialog.showModal();
    this.draw();
    this.moved(list, at);
  }

  step(by) {
    const at = this.at + by;
    if (at < 0 || at >= this.list.length) return;
    this.at = at;
    this.draw();
    this.moved(this.list, at);
  }

  key(event) {
    if (event.target.type === "range" || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    this.step(by);
  }

  draw() {
    this.picture = this.list[this.at];
    byId("position").textContent = `${count(this.at + 1)} of ${count(this.list.length)}`;
    byId("viewer-path").textContent = this.picture.path;
    byId("previous").disabled = this.at === 0;
    byId("next").disabled = this.at === this.list.length - 1;
    this.drawLinks();
    this.choose(this.picture.top);
  }

  choose(row) {
    this.row = row;
    byId("here").textContent = "Point at a place to read it";
    byId("viewer-label").textContent = row.label;
    this.drawChips();
    this.drawNumbers();
    this.drawFrame();
  }

  drawFrame() {
    const stage = this.dialog.querySelector(".stage"), frame = byId("viewer-frame");
    const space = [stage.clientWidth - 48, stage.clientHeight - 48];
    fillFrame(frame, this.picture, this.row, space, LARGE_MAP, this.settings);
    frame.setAttribute("role", "img");
    frame.setAttribute("aria-label", `${this.picture.path}, evidence for ${this.row.label}`);
    if (!this.picture.original) return;
    const original = image(this.picture.original);
    original.addEventListener("error", () => original.remove());
    frame.querySelector("canvas").before(original);
  }

  /* What the place under the pointer gives to the class that is shown, as exact as the map's bytes. */
  read({ clientX, clientY }) {
    const map = decodeMap(this.row), top = peakOf(map.values, false), { peak } = this.row;
    const edges = byId("viewer-frame").querySelector("canvas").getBoundingClientRect();
    const value = valueAt(map, (clientX - edges.left) / edges.width, (clientY - edges.top) / edges.height);
    byId("here").textContent = value === null || !top ? "Nothing to read here"
      : `Here about ${decimal(value * peak / top, 1)} logits`;
  }

  drawChips() {
    const rows = this.picture.classes;
    byId("chips").replaceChildren(...rows.map((row) => {
      const chip = element("button");
      const truth = row === this.picture.actual ? " (truth)" : "";
      chip.append(element("span", "name", row.label + truth));
      if (row.versus === null) {
        chip.append(element("span", "value", percent(row.probability)), bar(row.probability));
      }
      chip.setAttribute("aria-pressed", row === this.row);
      chip.addEventListener("click", () => {
        this.choose(row);
        byId("chips").children[rows.indexOf(row)].focus();
      });
      return chip;
    }));
  }

  drawNumbers() {
    const { picture, row } = this, contrast = row.versus !== null;
    const box = row.box && row.box.map((edge) => Math.round(edge)).join(", ");
    const numbers = [
      [contrast ? "Difference of logits" : "Logit", decimal(row.logit)],
      ["Peak of the map", `${decimal(row.peak)} logits`],
      ["Missing of the sum", logits(row.residual)],
      ...contrast ? [] : [
        ["Evidence in the box", percent(row.share)], ["Entropy of the map", decimal(row.entropy)],
        ["Box", box || "none"], ["Class number", String(row.number)]],
      ["Size", `${picture.width} × ${picture.height}`],
    ];
    if (picture.target) numbers.unshift(["Listed as", picture.target]);
    if (picture.truth !== null) {
      numbers.unshift(["Truth", picture.truthLabel], ["Prediction", picture.predictedLabel]);
    }
    byId("numbers").replaceChildren(
      ...numbers.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
  }

  drawLinks() {
    const { original, overlay } = this.picture;
    const links = [["Picture", original], ["Overlay", overlay]].filter(([, url]) => url);
    byId("links").replaceChildren(...links.map(([name, url]) => {
      const link = element("a", "", name);
      link.href = url;
      link.target = "_blank";
      link.rel = "noopener noreferrer";
      return link;
    }));
  }
}
