/* Reads the data, and ties the tools to the views. */

/* A function from the values of one record to an object; schema.py says which fields there are. */
function reader(records, kind) {
  const fields = Object.entries(records[kind]).map(([name, listed]) => {
    const read = listed && reader(records, listed);
    return [name, read ? (list) => list.map(read) : (value) => value];
  });
  return (values) => Object.fromEntries(fields.map(([name, read], i) => [name, read(values[i])]));
}

/* Adds to a picture its classes' names, the class that it counts under and the text to search. */
function namePicture(picture, labels) {
  picture.classes.forEach((row) => Object.assign(row, labels[row.position]));
  picture.top = picture.classes.find((row) => row.rank === 0) || picture.classes[0];
  picture.text = [picture.path, ...picture.classes.map((row) => row.label)].join("\n").toLowerCase();
}

function nameClass(row, labels) {
  row.label = row.position === EVERY_CLASS ? "All pictures" : labels[row.position].label;
}

function byId(id) {
  return document.getElementById(id);
}

function count(value) {
  return value.toLocaleString("en");
}

function plural(value, noun) {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

const TABS = ["pictures", "classes", "failed", "run"];

class Report {
  constructor(data) {
    const { colors, pictures, classes, labels } = data;
    Object.assign(this, { data, pictures });
    this.settings = { colors: palettes(colors.map(decodeBytes)), against: false };
    pictures.forEach((picture) => namePicture(picture, labels));
    classes.forEach((row) => nameClass(row, labels));
    this.viewer = new Viewer(this.settings, (list, at) => {
      if (list === this.grid.list) this.grid.activate(at);
    });
    this.grid = new Pictures(pictures, this.settings, this.viewer);
    this.classes = new Classes(
      classes, pictures, this.settings, this.viewer, (position) => this.showClass(position));
    this.reversed = { pictures: false, classes: false };
    this.fillHeader();
    this.fillSelects(classes);
    this.fillFailed();
    this.wireTools();
    this.wireKeys();
    this.setTheme(storedTheme());
    this.show("pictures");
  }

  fillHeader() {
    const { total, meta, failed, classes } = this.data;
    const folder = Object.entries(meta).find(([name]) => name.toLowerCase() === "source");
    const failures = failed.length ? ` · ${count(failed.length)} failed` : "";
    byId("summary").textContent = `${folder ? `${folder[1]} · ` : ""}`
      + `${plural(total, "picture")}${failures}`;
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
    fillSelect("label", [["", "All labels"],
      ...labels.map((row) => [row.position, `${name(row)} (${count(row.pictures)})`])]);
    fillSelect("sort", Object.entries(SORTS).map(([key, [text]]) => [key, text]));
    fillSelect("sort-classes", Object.entries(CLASS_SORTS).map(([key, [text]]) => [key, text]));
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
    ["label", "sort", "sort-classes"].forEach((id) => {
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
    });
    byId("boxes").addEventListener("change", (event) => {
      document.documentElement.dataset.boxes = event.target.checked ? "on" : "off";
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
    tools.querySelectorAll(".for-classes").forEach((node) => { node.hidden = tab !== "classes"; });
    this.update();
  }

  update() {
    const text = byId("search").value, reverse = this.reversed[this.tab];
    byId("direction").setAttribute("aria-pressed", Boolean(reverse));
    if (this.tab === "pictures") {
      const position = byId("label").value, sort = byId("sort").value;
      this.grid.update({ text, position, sort, reverse });
      this.tell();
    } else if (this.tab === "classes") {
      this.classes.update({ text, sort: byId("sort-classes").value, reverse });
    }
  }

  tell() {
    const { total } = this.data, listed = this.pictures.length, found = this.grid.list.length;
    const part = listed < total ? `, an even selection of ${count(total)}` : "";
    byId("count").textContent = found === listed
      ? plural(found, "picture") + part : `${count(found)} of ${plural(listed, "picture")}${part}`;
  }

  showClass(position) {
    byId("label").value = position === EVERY_CLASS ? "" : position;
    byId("search").value = "";
    this.show("pictures");
    this.focusView();
  }

  focusView() {
    byId(`view-${this.tab}`).querySelector(".scroller").focus();
  }
}

function fillSelect(id, options) {
  byId(id).replaceChildren(...options.map(([value, text]) => {
    const option = element("option", "", text);
    option.value = value;
    return option;
  }));
}

/* A page on disk may have no storage; then the theme is the system's each time. */
function storedTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  try {
    return localStorage.getItem("camtool-theme") || system;
  } catch {
    return system;
  }
}

function storeTheme(theme) {
  try {
    localStorage.setItem("camtool-theme", theme);
  } catch {
    document.documentElement.dataset.theme = theme;
  }
}

const { records, page } = JSON.parse(byId("data").textContent);
new Report(reader(records, "Page")(page));
