/* The grid of pictures: filter, sort, keyboard. */

/* name, value of a picture, and whether large values come first. */
const SORTS = {
  probability: ["Probability", (picture) => picture.top.probability, true],
  peak: ["Peak of the map", (picture) => picture.top.peak, true],
  share: ["Evidence in the box", (picture) => picture.top.share, true],
  entropy: ["Entropy of the map", (picture) => picture.top.entropy, true],
  path: ["File name", (picture) => picture.path, false],
};

/* Missing values come last whichever way the order runs; equal ones keep the folder's order. */
function sorted(list, value, descending) {
  const collator = new Intl.Collator(undefined, { numeric: true });
  const order = (a, b) => (typeof a === "string" ? collator.compare(a, b) : a - b);
  return list.map((item) => [value(item), item]).sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return descending ? order(b, a) : order(a, b);
  }).map(([, item]) => item);
}

/* A path on one line that is cut at its front, so that the file name stays in sight. */
function pathLine(path) {
  const line = element("div", "path");
  line.append(element("bdi", "", path));
  return line;
}

/* label: "p1" for those predicted as class 1, "t1" for those known to show it, "" for all. */
function labelled(picture, label) {
  const position = label.startsWith("t") ? picture.truth : picture.top.position;
  return label === "" || position === Number(label.slice(1));
}

/* show: "wrong", "right", "1>2" for class 1 taken for class 2, or "" for all. */
function shown(picture, show) {
  if (show === "wrong") return picture.wrong;
  if (show === "right") return picture.truth !== null && !picture.wrong;
  return show === "" || show === `${picture.truth}>${picture.predicted}`;
}

/* What is known to be in a picture, in words; "" where nothing is. */
function truthOf(picture) {
  if (picture.truth === null) return "";
  return picture.wrong ? `is ${picture.truthLabel}` : "right";
}

class Pictures {
  /* judged: whether the truth of some is known. */
  constructor(pictures, settings, viewer, judged) {
    Object.assign(this, { pictures, settings, viewer, list: pictures });
    this.scroller = byId("grid");
    this.grid = new VirtualGrid(this.scroller, {
      shape: () => (judged ? { minWidth: 252, height: 284 } : { minWidth: 216, height: 262 }),
      gap: 16, render: (index) => this.card(index),
      empty: "No picture matches. Press Esc in the search field to see all.",
    });
    this.scroller.addEventListener("keydown", (event) => this.key(event));
    this.scroller.addEventListener("click", (event) => this.click(event));
    this.scroller.addEventListener("focus", () => this.grid.active < 0 && this.activate(0));
  }

  /* query: {text, label ("p1", "t1" or "": predicted, or known to show), show (see `shown`), sort,
     reverse} */
  update({ text, label, show, sort, reverse }) {
    const [, value, descending] = SORTS[sort];
    const needle = text.trim().toLowerCase();
    const found = this.pictures.filter((picture) => picture.text.includes(needle)
      && labelled(picture, label) && shown(picture, show));
    this.list = sorted(found, value, descending !== reverse);
    this.sort = sort;
    this.grid.active = -1;
    this.scroller.removeAttribute("aria-activedescendant");
    this.scroller.scrollTop = 0;
    this.grid.show(this.list.length);
  }

  card(index) {
    const picture = this.list[index], row = picture.top;
    const card = element("div", "card"), mat = element("div", "mat"), text = element("div", "text");
    const line = element("div", "line"), truth = truthOf(picture);
    this.fillMat(mat, picture, this.grid.width - 2);
    line.append(element("span", "name", row.label), element("span", "value", this.figure(row)));
    text.append(line, ...truth ? [element("div", picture.wrong ? "truth wrong" : "truth", truth)] : [],
      pathLine(picture.path), bar(row.probability));
    card.append(mat, text);
    card.title = [row.label, truth, picture.path].filter(Boolean).join("\n");
    card.id = `picture-${index}`;
    card.setAttribute("role", "option");
    card.setAttribute("aria-selected", index === this.grid.active);
    card.setAttribute("aria-setsize", this.list.length);
    card.setAttribute("aria-posinset", index + 1);
    card.setAttribute("aria-label", [row.label, percent(row.probability), truth, picture.path]
      .filter(Boolean).join(", "));
    return card;
  }

  /* One map; of a wrong picture that of the prediction, that of the truth, and their difference. */
  fillMat(mat, picture, width) {
    const { top, actual, contrast } = picture;
    if (!picture.wrong || !actual || !contrast) {
      mat.append(this.frame(picture, top, [width, 190]));
      return;
    }
    const side = Math.floor((width - 4) * 0.36), parts = [
      ["prediction", top, [width - 4 - side, 190]], ["truth", actual, [side, 93]],
      ["difference", contrast, [side, 93]]];
    mat.classList.add("trio");
    mat.append(...parts.map(([name, row, space]) => {
      const part = element("figure");
      part.append(this.frame(picture, row, space), element("figcaption", "", name));
      return part;
    }));
    mat.lastChild.title = `${contrast.label}: blue speaks for the truth`;
  }

  frame(picture, row, space) {
    const frame = element("div", "frame");
    fillFrame(frame, picture, row, space, SMALL_MAP, this.settings);
    return frame;
  }

  /* The number on a card is the one that the grid is sorted by. */
  figure(row) {
    if (this.sort === "peak") return decimal(row.peak, 1);
    if (this.sort === "entropy") return decimal(row.entropy);
    if (this.sort === "share") return percent(row.share, 0);
    return percent(row.probability);
  }

  activate(index) {
    this.grid.activate(index);
    this.grid.cells.forEach((card, i) => card.setAttribute("aria-selected", i === this.grid.active));
    if (this.list.length) {
      this.scroller.setAttribute("aria-activedescendant", `picture-${this.grid.active}`);
    }
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = this.grid.target(event.key);
    if (target !== undefined) this.activate(target);
    else if (event.key === "Enter" || event.key === " ") this.open(this.grid.active);
    else return;
    event.preventDefault();
  }

  click(event) {
    const card = event.target.closest(".card");
    if (!card) return;
    this.activate(Number(card.dataset.index));
    this.open(this.grid.active);
  }

  open(index) {
    if (index >= 0 && index < this.list.length) this.viewer.open(this.list, index);
  }
}
