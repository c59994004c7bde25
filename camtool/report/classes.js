/* The page for the whole folder: where the network looks for each class. */

const EVERY_CLASS = -1, GRID = 16, UNIT = { width: 1, height: 1 };

const CLASS_SORTS = {
  pictures: ["Pictures", (row) => row.pictures, true],
  agreement: ["Same place", (row) => row.agreement, true],
  border: ["Peak at the border", (row) => row.border - row.chance, true],
  area: ["Smallest area", (row) => row.area, false],
  apart: ["Apart from the others", (row) => row.apart, true],
  label: ["Label", (row) => row.label, false],
};

function stat(name, hint, value, share, chance) {
  const node = element("div", "stat"), meter = bar(share);
  node.title = hint;
  node.append(element("span", "", name), element("span", "value", value), meter);
  if (chance === undefined) return node;
  const mark = element("span", "chance");
  mark.style.left = `${100 * chance}%`;
  meter.append(mark);
  return node;
}

class Classes {
  constructor(classes, pictures, settings, viewer, filter) {
    Object.assign(this, { pictures, settings, viewer, filter, list: [] });
    this.every = classes.filter((row) => row.position === EVERY_CLASS);
    this.single = classes.filter((row) => row.position !== EVERY_CLASS);
    byId("flagged").textContent = this.warning();
    this.grid = new VirtualGrid(byId("class-list"), {
      shape: (width) => (width > 900 ? { minWidth: 860, height: 202 } : { minWidth: 292, height: 544 }),
      gap: 14, render: (index) => this.row(this.list[index]),
      empty: "No class matches.",
    });
  }

  /* The flagged classes, in words. */
  warning() {
    const flagged = this.single.filter((row) => row.flags.length);
    const told = flagged.slice(0, 5).map((row) => {
      const { where, share, others, by_chance: chance } = row.flags[0];
      return `${row.label} (${where}: ${percent(share, 0)} of its evidence, `
        + `${percent(others, 0)} of the others'; p ${chance < 0.01 ? "< 0.01" : `= ${decimal(chance)}`})`;
    });
    if (!told.length) return "";
    const more = flagged.length > told.length ? ", …" : "";
    return `⚑ Look at ${told.join(", ")}${more}: a mark in the pictures?`;
  }

  update({ text, sort, reverse }) {
    const [, value, descending] = CLASS_SORTS[sort];
    const needle = text.trim().toLowerCase();
    const found = this.single.filter((row) => row.label.toLowerCase().includes(needle));
    this.list = [...(needle ? [] : this.every), ...sorted(found, value, descending !== reverse)];
    this.grid.scroller.scrollTop = 0;
    this.grid.show(this.list.length);
  }

  row(row) {
    const node = element("article", "class"), mean = element("div", "mean");
    const canvas = element("canvas"), values = decodeBytes(row.mean);
    paint(canvas, { width: GRID, height: GRID, values }, this.settings.colors.opaque, 160);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Mean map of ${row.label}`);
    mean.append(canvas, ...row.flags.map(({ area: place }) => area("mark", place, UNIT)));
    node.classList.toggle("flagged", row.flags.length > 0);
    node.append(mean, this.about(row), this.strip("Most typical", row.typical),
      this.strip("Furthest from this mean", row.odd));
    return node;
  }

  about(row) {
    const node = element("div", "about"), title = element("h3");
    const button = element("button", "", row.label);
    button.title = "Show these pictures";
    button.addEventListener("click", () => this.filter(row.position));
    title.append(button);
    const silent = row.silent ? `, ${count(row.silent)} without evidence` : "";
    node.append(title, element("p", "n", plural(row.pictures, "picture") + silent),
      row.flags.length ? this.flag(row.flags[0]) : stat("Evidence area",
        "Part of the picture over which the mean evidence spreads: exp(entropy) of the mean map",
        percent(row.area, 0), row.area),
      stat("Same place", "Mean cosine similarity of two pictures' maps: 100% means that the "
        + "evidence is always in the same place", percent(row.agreement, 0), row.agreement),
      stat("Peak at border", "Pictures whose peak touches the edge of the map; the mark shows "
        + `what chance alone gives (${percent(row.chance, 0)})`,
      percent(row.border, 0), row.border, row.chance));
    return node;
  }

  flag({ where, share, others }) {
    const node = stat(`⚑ Evidence: ${where}`, "Part of this class's evidence that lies there; the "
      + `mark shows that of the other classes (${percent(others, 0)})`,
    percent(share, 0), share, others);
    node.classList.add("suspicious");
    return node;
  }

  strip(title, deviators) {
    const node = element("div", "odd"), strip = element("div", "strip");
    const list = deviators.map(({ place }) => this.pictures[place]);
    node.append(element("p", "", list.length ? title : ""));
    deviators.forEach(({ deviation }, at) => strip.append(this.thumb(list, at, deviation)));
    node.append(strip);
    return node;
  }

  thumb(list, at, deviation) {
    const picture = list[at], button = element("button"), frame = element("div", "frame");
    fillFrame(frame, picture, picture.top, [170, 112], SMALL_MAP, this.settings);
    button.append(frame);
    button.title = `${picture.path}\ndeviation ${decimal(deviation)}`;
    button.setAttribute("aria-label", `${picture.path}, deviation ${decimal(deviation)}`);
    button.addEventListener("click", () => this.viewer.open(list, at));
    const figure = element("figure");
    figure.append(button, element("figcaption", "", decimal(deviation)));
    return figure;
  }
}
