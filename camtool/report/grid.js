/* A scrolling grid that keeps only the cells in view in the document. */

class VirtualGrid {
  /* options: shape(width) -> {minWidth, height} of a cell and gap, in pixels; render(index) -> element;
     empty: what to say when there is nothing to show. */
  constructor(scroller, options) {
    Object.assign(this, { scroller, count: 0, active: -1, columns: 1, height: 1, cells: new Map() }, options);
    this.sheet = element("div", "sheet");
    this.note = element("p", "empty", this.empty);
    this.sheet.setAttribute("role", "presentation");
    scroller.append(this.sheet, this.note);
    scroller.addEventListener("scroll", () => this.schedule());
    new ResizeObserver(() => this.layout()).observe(scroller);
  }

  show(count) {
    this.count = count;
    this.active = Math.min(this.active, count - 1);
    this.note.hidden = count > 0;
    this.refresh();
  }

  refresh() {
    this.clear();
    this.layout();
  }

  clear() {
    this.cells.forEach((cell) => cell.remove());
    this.cells.clear();
  }

  layout() {
    const width = this.sheet.clientWidth;
    if (!width) return;
    const { minWidth, height } = this.shape(width);
    this.height = height;
    this.columns = Math.max(1, Math.floor((width + this.gap) / (minWidth + this.gap)));
    const before = this.width;
    this.width = (width + this.gap) / this.columns - this.gap;
    if (this.width !== before) this.clear();
    const rows = Math.ceil(this.count / this.columns);
    this.sheet.style.height = `${Math.max(0, rows * (this.height + this.gap) - this.gap)}px`;
    this.draw();
  }

  place(cell, index) {
    const x = (index % this.columns) * (this.width + this.gap);
    const y = Math.floor(index / this.columns) * (this.height + this.gap);
    cell.style.width = `${this.width}px`;
    cell.style.height = `${this.height}px`;
    cell.style.transform = `translate(${x}px, ${y}px)`;
  }

  schedule() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => { this.pending = 0; this.draw(); });
  }

  /* One row more than is seen, each way. The active cell stays: assistive tools point at it. */
  wanted() {
    const step = this.height + this.gap, view = this.scroller;
    const top = view.scrollTop - this.sheet.offsetTop;
    const first = Math.max(0, Math.floor(top / step) - 1) * this.columns;
    const last = Math.min(this.count, (Math.ceil((top + view.clientHeight) / step) + 1) * this.columns);
    const indices = new Set();
    for (let i = first; i < last; i++) indices.add(i);
    if (this.active >= 0) indices.add(this.active);
    return indices;
  }

  draw() {
    if (!this.scroller.clientHeight) return;
    const wanted = this.wanted();
    this.cells.forEach((cell, index) => {
      if (!wanted.has(index)) { cell.remove(); this.cells.delete(index); }
    });
    wanted.forEach((index) => { if (!this.cells.has(index)) this.add(index); });
    this.mark();
  }

  add(index) {
    const cell = this.render(index);
    cell.classList.add("cell");
    cell.dataset.index = index;
    this.place(cell, index);
    this.cells.set(index, cell);
    this.sheet.append(cell);
  }

  mark() {
    this.cells.forEach((cell, index) => cell.classList.toggle("active", index === this.active));
  }

  activate(index) {
    if (!this.count) return;
    this.active = Math.min(Math.max(index, 0), this.count - 1);
    const step = this.height + this.gap, view = this.scroller;
    const y = Math.floor(this.active / this.columns) * step + this.sheet.offsetTop;
    const lowest = y + this.height + 16 - view.clientHeight;
    view.scrollTop = Math.max(Math.min(view.scrollTop, y - 16), lowest);
    this.draw();
  }

  /* The index that a navigation key leads to, or undefined for another key. */
  target(key) {
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / (this.height + this.gap)));
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns,
      PageUp: -page * this.columns, PageDown: page * this.columns,
      Home: -this.count, End: this.count,
    };
    if (!(key in steps)) return undefined;
    return this.active < 0 ? 0 : this.active + steps[key];
  }
}
