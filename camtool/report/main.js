/* Reads the data, and ties the tools to the views. */

/* A function from the values of one record to an object; schema.py says which fields there are. */
function reader(records, kind) {
  const fields = Object.entries(records[kind]).map(([name, listed]) => {
    const read = listed && reader(records, listed);
    return [name, read ? (list) => list.map(read) : (value) => value];
  });
  return (values) => Object.fromEntries(fields.map(([name, read], i) => [name, read(values[i])]));
}

/* Adds to a picture its classes' names, the class that it counts under, that of the truth, their
   contrast, whether it is wrong, and the text to search. */
function namePicture(picture, labels) {
  picture.classes.forEach((row) => {
    Object.assign(row, labels[row.position]);
    if (row.versus !== null) row.label += ` rather than ${labels[row.versus].label}`;
  });
  const { classes, truth, predicted } = picture;
  picture.top = classes.find((row) => row.rank === 0) || classes[0];
  picture.actual = classes.find((row) => row.position === truth && row.versus === null);
  picture.contrast = classes.find((row) => row.versus !== null);
  picture.wrong = truth !== null && truth !== predicted;
  picture.predictedLabel = labels[predicted].label;
  picture.truthLabel = truth === null ? "" : labels[truth].label;
  picture.text = [picture.path, ...picture.classes.map((row) => row.label)].join("\n").toLowerCase();
}

function nameClass(row, labels) {
  row.label = row.position === EVERY_CLASS ? "All pictures" : labels[row.position].label;
}

const TABS = ["pictures", "classes", "failed", "run"];

/* What the address keeps, besides the tab: values of fields, and boxes that are ticked. */
const FIELDS = ["search", "label", "show", "sort", "sort-classes", "fade"], TICKS = ["against", "boxes"];

class Report {
  constructor(data) {
    const { colors, pictures, classes, labels } = data;
    Object.assign(this, { data, pictures });
    this.settings = { colors: palettes(colors.map(decodeBytes)), against: false };
    pictures.forEach((picture) => namePicture(picture, labels));
    classes.forEach((row) => nameClass(row, labels));
    this.judged = pictures.some((picture) => picture.truth !== null);
    document.body.classList.toggle("judged", this.judged);
    this.viewer = new Viewer(this.settings, (list, at) => {
      if (list === this.grid.list) this.grid.activate(at);
      this.remember();
    });
    this.viewer.dialog.addEventListener("close", () => this.remember());
    this.grid = new Pictures(pictures, this.settings, this.viewer, this.judged);
    this.classes = new Classes(
      classes, pictures, this.settings, this.viewer, (position) => this.showClass(position));
    this.reversed = { pictures: false, classes: false };
    this.fillHeader();
    this.fillSelects(classes);
    this.fillFailed();
    this.wireTools();
    this.wireKeys();
    this.setTheme(storedTheme());
    this.first = new Map(FIELDS.map((id) => [id, byId(id).value]));
    window.addEventListener("hashchange", () => this.recall());
    this.recall();
  }

  /* Keeps the view in the address, so that it can be sent; what is as in the beginning is left out.
     A little later, for browsers refuse an address that changes all the time. */
  remember() {
    clearTimeout(this.remembering);
    this.remembering = setTimeout(() => {
      const view = new URLSearchParams();
      if (this.tab !== "pictures") view.set("tab", this.tab);
      FIELDS.filter((id) => byId(id).value !== this.first.get(id))
        .forEach((id) => view.set(id, byId(id).value));
      TICKS.filter((id) => byId(id).checked !== byId(id).defaultChecked)
        .forEach((id) => view.set(id, byId(id).checked ? "on" : "off"));
      if (this.reversed[this.tab]) view.set("reverse", "on");
      if (this.viewer.dialog.open) view.set("open", this.pictures.indexOf(this.viewer.picture));
      history.replaceState(null, "", `#${view}`);
    }, 200);
  }

  /* Shows the view that the address tells. */
  recall() {
    const view = new URLSearchParams(location.hash.slice(1));
    FIELDS.forEach((id) => {
      const field = byId(id), value = view.get(id) ?? this.first.get(id);
      if (!field.options || [...field.options].some((option) => option.value === value)) {
        field.value = value;
      }
    });
    TICKS.forEach((id) => {
      byId(id).checked = view.has(id) ? view.get(id) === "on" : byId(id).defaultChecked;
      byId(id).dispatchEvent(new Event("change"));
    });
    this.setFade(Number(byId("fade").value));
    const tab = TABS.includes(view.get("tab")) ? view.get("tab") : "pictures";
    this.reversed[tab] = view.get("reverse") === "on";
    this.show(tab);
    this.openAgain(this.pictures[view.get("open") ?? -1]);
  }

  openAgain(picture) {
    if (!picture) {
      this.viewer.dialog.close();
      return;
    }
    const at = this.grid.list.indexOf(picture);
    this.viewer.open(at < 0 ? [picture] : this.grid.list, Math.max(at, 0));
  }

  fillHeader() {
    const { total, meta, failed, classes } = this.data;
    const folder = Object.entries(meta).find(([name]) => name.toLowerCase() === "source");
    const failures = failed.length ? ` · ${count(failed.length)} failed` : "";
    byId("summary").textContent = `${folder ? `${folder[1]} · ` : ""}`
      + `${plural(total, "picture")}${failures}`;
    byId("verdict").textContent = meta.Right ? `Right: ${meta.Right}` : "";
    const counts = { pictures: total, classes: Math.max(0, classes.length - 1), failed: failed.length };
    Object.entries(counts).forEach(([tab, n]) => {
      byId(`tab-${tab}`).append(element("span", "n", count(n)));
    });
    byId("meta").replaceChildren(
      ...Object.entries(meta).flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
    this.drawLegend();
  }

  drawLegend() {
    const { against, colors } = this.settings, first = against ? -127 : 0;
    const values = Int8Array.from({ length: 128 - first }, (_, i) => first + i);
    const map = { width: values.length, height: 1, values };
    paint(byId("legend"), map, against ? colors.signed : colors.positive, 128, against);
    byId("legend-low").textContent = against ? "−peak" : "0";
  }

  fillSelects(classes) {
    const single = classes.filter((row) => row.position !== EVERY_CLASS);
    const seen = new Map();
    single.forEach((row) => seen.set(row.label, (seen.get(row.label) || 0) + 1));
    const name = (row) => (seen.get(row.label) > 1
      ? `${row.label} #${this.data.labels[row.position].number}` : row.label);
    const labels = sorted(single, (row) => row.pictures, true);
    const predicted = labels.map((row) => [`p${row.position}`, `${name(row)} (${count(row.pictures)})`]);
    fillSelect("label", [["", "All labels"], ...this.judged
      ? [["Predicted", predicted], ["Truth", this.truths()]] : predicted]);
    fillSelect("show", [["", "Right and wrong"], ["wrong", "Wrong only"], ["right", "Right only"],
      ["Taken for another", this.data.confusions.map(({ truth, predicted: other, number }) => [
        `${truth}>${other}`, `${this.labelAt(truth)} → ${this.labelAt(other)} (${count(number)})`])]]);
    fillSelect("sort", Object.entries(SORTS).map(([key, [text]]) => [key, text]));
    fillSelect("sort-classes", Object.entries(CLASS_SORTS).map(([key, [text]]) => [key, text]));
  }

  labelAt(position) {
    return this.data.labels[position].label;
  }

  /* The classes that listed pictures are known to show, the most frequent first. */
  truths() {
    const found = new Map();
    this.pictures.filter(({ truth }) => truth !== null)
      .forEach(({ truth }) => found.set(truth, (found.get(truth) || 0) + 1));
    return sorted([...found], ([, number]) => number, true)
      .map(([position, number]) => [`t${position}`, `${this.labelAt(position)} (${count(number)})`]);
  }

  fillFailed() {
    const { failed } = this.data;
    this.failed = new VirtualGrid(byId("failed-list"), {
      shape: (width) => ({ minWidth: width, height: width > 732 ? 40 : 76 }), gap: 0, empty: "Every picture was explained.",
      render: (index) => {
        const node = element("div", "failure"), { path, reason } = failed[index];
        node.append(element("span", "path", path), element("span", "reason", reason));
        node.title = `${path}\n${reason}`;
        node.setAttribute("role", "listitem");
        return node;
      },
    });
    byId("failed-count").textContent = failed.length
      ? `${plural(failed.length, "picture")} could not be explained.` : "";
    this.failed.show(failed.length);
  }

  wireTools() {
    byId("search").addEventListener("input", () => this.update());
    ["label", "show", "sort", "sort-classes"].forEach((id) => {
      byId(id).addEventListener("change", () => this.update());
    });
    byId("more").addEventListener("click", (event) => {
      const open = document.querySelector(".tools").classList.toggle("open");
      event.currentTarget.setAttribute("aria-expanded", open);
    });
    byId("direction").addEventListener("click", () => {
      this.reversed[this.tab] = !this.reversed[this.tab];
      this.update();
    });
    ["fade", "viewer-fade"].forEach((id) => {
      byId(id).addEventListener("input", (event) => this.setFade(Number(event.target.value)));
    });
    byId("against").addEventListener("change", (event) => {
      this.settings.against = event.target.checked;
      this.drawLegend();
      this.grid.grid.refresh();
      this.classes.grid.refresh();
      this.remember();
    });
    byId("boxes").addEventListener("change", (event) => {
      document.documentElement.dataset.boxes = event.target.checked ? "on" : "off";
      this.remember();
    });
    byId("theme").addEventListener("click", () => {
      this.setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark", true);
    });
    TABS.forEach((tab) => byId(`tab-${tab}`).addEventListener("click", () => this.show(tab)));
  }

  wireKeys() {
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.target.id === "search") this.searchKey(event);
      else if (event.target.role === "tab") this.tabKey(event);
      const types = event.target.matches("select") && event.key !== "/";
      if (types || event.target.id === "search") return;
      this.globalKey(event);
    });
  }

  searchKey(event) {
    if (event.key === "Escape") {
      event.target.value = "";
      this.update();
    } else if (event.key === "Enter" || event.key === "ArrowDown") {
      event.preventDefault();
      this.focusView();
    }
  }

  tabKey(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by === undefined) return;
    const tab = TABS[(TABS.indexOf(this.tab) + by + TABS.length) % TABS.length];
    this.show(tab);
    byId(`tab-${tab}`).focus();
  }

  globalKey(event) {
    const fade = Number(byId("fade").value);
    const open = this.viewer.dialog.open;
    const actions = {
      "[": () => this.setFade(fade - 10),
      "]": () => this.setFade(fade + 10),
      m: () => this.setFade(fade ? 0 : this.faded || 60),
    };
    if (!open) {
      actions["/"] = () => byId("search").focus();
      TABS.forEach((tab, i) => { actions[i + 1] = () => { this.show(tab); this.focusView(); }; });
    }
    if (!Object.hasOwn(actions, event.key)) return;
    event.preventDefault();
    actions[event.key]();
  }

  setFade(value) {
    const fade = Math.min(Math.max(value, 0), 100);
    if (!fade) this.faded = Number(byId("fade").value);
    ["fade", "viewer-fade"].forEach((id) => { byId(id).value = fade; });
    byId("fade-value").textContent = `${fade}%`;
    document.documentElement.style.setProperty("--map", fade / 100);
    this.remember();
  }

  setTheme(theme, store = false) {
    document.documentElement.dataset.theme = theme;
    if (store) storeTheme(theme);
  }

  show(tab) {
    this.tab = tab;
    TABS.forEach((name) => {
      byId(`view-${name}`).hidden = name !== tab;
      byId(`tab-${name}`).setAttribute("aria-selected", name === tab);
      byId(`tab-${name}`).tabIndex = name === tab ? 0 : -1;
    });
    const tools = document.querySelector(".tools");
    tools.hidden = tab === "failed" || tab === "run";
    tools.querySelectorAll(".for-pictures").forEach((node) => { node.hidden = tab !== "pictures"; });
    if (!this.judged) byId("show").parentNode.hidden = true;
    tools.querySelectorAll(".for-classes").forEach((node) => { node.hidden = tab !== "classes"; });
    this.update();
  }

  update() {
    const text = byId("search").value, reverse = this.reversed[this.tab];
    byId("direction").setAttribute("aria-pressed", Boolean(reverse));
    if (this.tab === "pictures") {
      const [label, show, sort] = ["label", "show", "sort"].map((id) => byId(id).value);
      this.grid.update({ text, label, show, sort, reverse });
      this.tell();
    } else if (this.tab === "classes") {
      this.classes.update({ text, sort: byId("sort-classes").value, reverse });
    }
    this.remember();
  }

  tell() {
    const { total } = this.data, listed = this.pictures.length, found = this.grid.list.length;
    const part = listed < total ? `, an even selection of ${count(total)}` : "";
    byId("count").textContent = found === listed
      ? plural(found, "picture") + part : `${count(found)} of ${plural(listed, "picture")}${part}`;
  }

  showClass(position) {
    byId("label").value = position === EVERY_CLASS ? "" : `p${position}`;
    byId("show").value = "";
    byId("search").value = "";
    this.show("pictures");
    this.focusView();
  }

  focusView() {
    byId(`view-${this.tab}`).querySelector(".scroller").focus();
  }
}

/* options: value and text of each; or the name of a group, and its options. */
function fillSelect(id, options) {
  byId(id).replaceChildren(...options.map(choice));
}

function choice([value, text]) {
  const group = Array.isArray(text), node = element(group ? "optgroup" : "option", "", group ? "" : text);
  if (group) {
    node.label = value;
    node.append(...text.map(choice));
  } else node.value = value;
  return node;
}

const { records, page } = JSON.parse(byId("data").textContent);
new Report(reader(records, "Page")(page));
