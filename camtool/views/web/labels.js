/* The list of classes: search, choose one, choose a second for the contrast. */

const AT_ONCE = 60;

class Labels {
  /* told: {choose, versus} that are called with an entry. */
  constructor(evidence, told) {
    Object.assign(this, { evidence, told, limit: AT_ONCE, one: null, other: null });
    this.sorted = [...evidence.entries].sort((a, b) => b.logit - a.logit);
    byId("search").addEventListener("input", () => this.draw(AT_ONCE));
    byId("more").addEventListener("click", () => this.draw(this.limit + AT_ONCE));
    byId("labels").addEventListener("keydown", (event) => this.key(event));
  }

  found() {
    const needle = byId("search").value.trim().toLowerCase();
    return this.sorted.filter(({ title, index }) => (
      title.toLowerCase().includes(needle) || String(index) === needle));
  }

  draw(limit) {
    const found = this.found();
    this.limit = limit;
    byId("labels").replaceChildren(...found.slice(0, limit).map((entry) => this.row(entry)));
    byId("more").hidden = found.length <= limit;
    byId("more").textContent = `Show more of ${count(found.length)}`;
    byId("none").hidden = found.length > 0;
    this.mark(this.one, this.other);
  }

  row(entry) {
    const node = element("li"), choose = element("button", "choose"), versus = element("button", "versus", "−");
    node.entry = entry;
    choose.append(element("span", "name", entry.title),
      element("span", "odds", entry.probability === null ? "" : percent(entry.probability)),
      element("span", "value", decimal(entry.logit)));
    versus.title = "Rather than this: the difference of both maps";
    versus.setAttribute("aria-label", `Rather than ${entry.title}`);
    choose.addEventListener("click", () => this.told.choose(entry));
    versus.addEventListener("click", () => this.told.versus(entry));
    node.append(choose, versus);
    return node;
  }

  /* Which two are shown. */
  mark(one, other) {
    Object.assign(this, { one, other });
    [...byId("labels").children].forEach(({ entry, children: [choose, versus] }) => {
      choose.setAttribute("aria-pressed", entry === one);
      versus.setAttribute("aria-pressed", entry === other);
      versus.disabled = entry === one;
    });
  }

  key(event) {
    const row = event.target.closest("li"), by = { ArrowUp: "previousSibling", ArrowDown: "nextSibling" }[event.key];
    if (!by) return;
    event.preventDefault();
    row[by]?.querySelector(`.${event.target.className}`).focus();
  }
}
