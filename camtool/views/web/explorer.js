/* Ties the tools to what they show. */

const BEST_SHOWN = 5, BOXES_SHOWN = 5;

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

class Explorer {
  constructor(data) {
    this.evidence = new Evidence(data);
    const [one] = this.evidence.entries, { size } = this.stage = new Stage(
      this.evidence, palettes(data.colors.map(decodeBytes)), {
        place: (place) => this.setPlace(place), rectangle: (edges) => this.setRectangle(edges),
      });
    this.cell = [size.width / data.columns, size.height / data.rows].map((side) => Math.max(1, side));
    this.labels = new Labels(this.evidence, {
      choose: (entry) => this.pick(entry, entry === this.other ? null : this.other),
      versus: (entry) => this.pick(this.one, entry === this.other ? null : entry),
    });
    this.fillHeader();
    this.wire();
    this.choose(one, null);
    this.setPlace(this.peakPlace());
    this.setRectangle(null);
    this.labels.draw(AT_ONCE);
    requestAnimationFrame(() => this.stage.fit());
  }

  fillHeader() {
    const { data, entries } = this.evidence, held = this.evidence.classes.length;
    document.title = `${entries[0].title} in ${data.name} – camtool explorer`;
    byId("summary").textContent = [data.name, data.model, `method ${data.method}`].join(" · ");
    byId("held").textContent = held === data.classes ? classes(held)
      : `${count(held)} of ${classes(data.classes)} are in this file`;
    byId("picture").alt = data.name;
    byId("linear").textContent = data.linear
      ? "The sum is exact: one linear layer follows the mean of the feature maps."
      : "What follows the feature maps is not linear: these terms add up to the logit, but without "
        + "some of them the others would not stay what they are.";
    byId("rectangle-part").hidden = !data.adds;
    byId("no-sum").hidden = data.adds;
  }

  wire() {
    const redraw = () => this.draw(), boxes = () => this.drawBoxes();
    byId("against").addEventListener("change", redraw);
    byId("reading").addEventListener("change", () => { redraw(); this.setPlace(this.place); });
    byId("fade").addEventListener("input", () => this.setFade(Number(byId("fade").value)));
    byId("threshold").addEventListener("input", boxes);
    byId("boxes").addEventListener("change", boxes);
    byId("draw").addEventListener("click", () => this.setDrawing(!this.stage.drawing));
    byId("clear").addEventListener("click", () => this.setRectangle(null));
    byId("alone").addEventListener("click", () => this.choose(this.one, null));
    byId("theme").addEventListener("click", () => {
      const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
      document.documentElement.dataset.theme = theme;
      storeTheme(theme);
    });
    document.documentElement.dataset.theme = storedTheme();
    byId("frame").addEventListener("keydown", (event) => this.moveKey(event));
    document.addEventListener("keydown", (event) => this.key(event));
  }

  /* Where the list lies below the picture, the picture comes back into sight. */
  pick(one, other) {
    this.choose(one, other);
    byId("frame").scrollIntoView({ block: "nearest" });
  }

  /* Shows a class, or the contrast of two. */
  choose(one, other) {
    Object.assign(this, { one, other, entry: other ? this.evidence.between(one, other) : one });
    byId("title").textContent = this.entry.title;
    byId("alone").hidden = !other;
    this.labels.mark(one, other);
    this.draw();
    this.drawNumbers();
    if (this.place) this.setPlace(this.place);
    if (this.place) this.setRectangle(this.edges);
  }

  draw() {
    const signed = byId("against").checked || this.entry.contrast;
    this.stage.show(this.entry, { reading: byId("reading").value, signed });
    byId("frame").setAttribute("aria-label", `${this.evidence.data.name}, evidence for ${this.entry.title}. `
      + "Arrow keys move the place that is read, with Shift they draw a rectangle.");
    this.drawLegend(signed);
    this.drawBoxes();
  }

  drawLegend(signed) {
    const { colors, top } = this.stage, values = Float32Array.from({ length: 256 }, (_, i) => (
      signed ? (i - 127.5) / 127.5 : i / 255));
    fill(byId("legend"), values, 256, signed ? colors.signed : colors.positive, 1, signed);
    const empty = top <= NO_EVIDENCE;
    byId("low").textContent = signed ? decimal(-top, 1) : "0";
    byId("high").textContent = empty ? "no evidence" : `${decimal(top, 1)} logits`;
  }

  drawBoxes() {
    const share = Number(byId("threshold").value) / 100, { found, area } = this.stage.regions(share);
    byId("threshold-value").textContent = `${byId("threshold").value}%`;
    this.stage.showBoxes(byId("boxes").checked ? found.slice(0, BOXES_SHOWN).map(({ box }) => box) : []);
    byId("area").textContent = found.length
      ? `${plural(found.length, "region")} above ${percent(share, 0)} of the maximum, ${percent(area)} of the picture`
      : "No region: the map holds no evidence above it";
    byId("regions").replaceChildren(...found.slice(0, BOXES_SHOWN).flatMap(({ box, share: part }) => [
      element("dt", "", box.join(", ")), element("dd", "", `${percent(part)} of the evidence`)]));
  }

  drawNumbers() {
    const { entry, evidence: { data, cells } } = this, score = entry.contrast ? "Difference of logits" : "Logit";
    const mean = entry.logit - entry.bias - entry.residual;
    const sum = data.adds ? [["Mean of the map", decimal(mean)], ["Bias", decimal(entry.bias)],
      ["Missing of the sum", small(entry.residual)]] : [["Mean of the map", decimal(meanOf(entry.values, cells))]];
    fillList("numbers", [
      [score, decimal(entry.logit)], ...sum,
      ...entry.probability === null ? [] : [["Probability", percent(entry.probability)]],
      ...entry.rank === null || entry.contrast ? [] : [["Place", `${count(entry.rank)} of ${count(data.classes)}`]],
      ["Peak of the map", decimal(this.stage.peak)],
      ["Maps in this file are within", small(entry.within)],
    ]);
  }

  peakPlace() {
    const { linear, columns, size, lines } = this.stage;
    const best = linear.reduce((at, value, i) => (value > linear[at] || Number.isNaN(linear[at]) ? i : at), 0);
    return this.stage.inside({
      x: Math.floor((best % columns + 0.5) * size.width / columns),
      y: Math.floor((Math.floor(best / columns) + 0.5) * size.height / lines),
    });
  }

  /* Reads a place: what it gives to the class that is shown, and to which others most and least. */
  setPlace(place) {
    this.place = place;
    const reading = byId("reading").value === "cells" ? "cells" : "linear";
    const weights = this.evidence.place(place, reading), seen = weights.length > 0;
    this.stage.showPlace(place);
    const value = weigh(this.entry, weights);
    byId("place").textContent = `x ${place.x}, y ${place.y}`;
    byId("here").textContent = seen ? `${signedDecimal(value)} logits` : "not seen by the network";
    const ranked = seen ? this.evidence.ranked(weights) : [];
    fillRanked("for", ranked.filter((row) => row.value > 0).slice(0, BEST_SHOWN));
    fillRanked("against-list", ranked.filter((row) => row.value < 0).reverse().slice(0, BEST_SHOWN));
    this.tell(`${byId("place").textContent}: ${byId("here").textContent} for ${this.entry.title}`);
  }

  /* Said aloud when the pointer rests. */
  tell(text) {
    clearTimeout(this.telling);
    this.telling = setTimeout(() => { byId("told").textContent = text; }, 500);
  }

  setRectangle(edges) {
    this.edges = edges;
    this.stage.showRectangle(edges);
    byId("rectangle-numbers").hidden = !edges;
    byId("no-rectangle").hidden = Boolean(edges);
    byId("clear").hidden = !edges;
    if (!edges || !this.evidence.data.adds) return;
    const weights = this.evidence.rectangle(edges), part = weigh(this.entry, weights), { logit } = this.entry;
    const [x0, y0, x1, y1] = edges, { width, height } = this.stage.size;
    const ofLogit = logit > 0 ? ` (${percent(part / logit)})` : "";
    const without = this.evidence.ranked(weights, (sum, entry) => entry.logit - sum).slice(0, 3);
    fillList("rectangle-list", [
      ["Rectangle", edges.join(", ")],
      ["Part of the picture", percent((x1 - x0) * (y1 - y0) / (width * height))],
      [`Its part of ${decimal(logit)}`, `${signedDecimal(part)}${ofLogit}`],
      ["Without it", decimal(logit - part)]]);
    fillRanked("without", without, decimal);
    this.tell(`The rectangle gives ${decimal(part)} of ${decimal(logit)}; without it ${without[0]?.entry.title} is first`);
  }

  setDrawing(drawing) {
    this.stage.drawing = drawing;
    byId("draw").setAttribute("aria-pressed", drawing);
    byId("frame").classList.toggle("drawing", drawing);
  }

  setFade(value) {
    const fade = Math.min(Math.max(value, 0), 100);
    if (!fade) this.faded = this.fade || 60;
    this.fade = fade;
    byId("fade").value = fade;
    byId("fade-value").textContent = `${fade}%`;
    document.documentElement.style.setProperty("--map", fade / 100);
  }

  /* Arrow keys on the picture go from cell to cell, and with Shift span a rectangle. */
  moveKey(event) {
    const by = STEPS[event.key];
    if (!by || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const { x, y } = this.place, [wide, high] = this.cell;
    if (event.shiftKey) this.anchor ??= this.place;
    else this.anchor = null;
    this.setPlace(this.stage.inside({ x: Math.round(x + by[0] * wide), y: Math.round(y + by[1] * high) }));
    if (event.shiftKey) this.setRectangle(spanned(this.anchor, this.place));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const fade = Number(byId("fade").value), search = byId("search"), toggle = (id) => byId(id).click();
    if (event.target === search) {
      if (event.key === "Escape") search.value = "";
      if (event.key === "Escape") this.labels.draw(AT_ONCE);
      if (event.key === "Enter" || event.key === "ArrowDown") byId("labels").querySelector("button")?.focus();
      return;
    }
    const actions = {
      "/": () => search.focus(), Escape: () => this.escape(), a: () => toggle("against"), b: () => toggle("boxes"),
      "[": () => this.setFade(fade - 10), "]": () => this.setFade(fade + 10),
      m: () => this.setFade(fade ? 0 : this.faded),
    };
    if (event.target.matches("select") || !Object.hasOwn(actions, event.key)) return;
    event.preventDefault();
    actions[event.key]();
  }

  escape() {
    if (this.edges) this.setRectangle(null);
    else this.choose(this.one, null);
    this.anchor = null;
  }
}

function classes(number) {
  return number === 1 ? "1 class" : `${count(number)} classes`;
}

function meanOf(values, cells) {
  return values.reduce((a, b) => a + b, 0) / cells;
}

function signedDecimal(value) {
  return `${value >= 0 ? "+" : ""}${decimal(value)}`;
}

/* A small number of logits, with as many digits as tell its size. */
function small(value) {
  return value === 0 ? "0" : value.toPrecision(1).replaceAll("-", "−");
}

function fillList(id, rows) {
  byId(id).replaceChildren(...rows.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
}

function fillRanked(id, rows, text = signedDecimal) {
  fillList(id, rows.map(({ entry, value }) => [entry.title, text(value)]));
}

new Explorer(JSON.parse(byId("data").textContent));
