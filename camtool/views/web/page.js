/* What every page needs: elements, numbers in words, the theme. */

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
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

function percent(value, digits = 1) {
  return value === null ? "–" : `${(100 * value).toFixed(digits)}%`;
}

function decimal(value, digits = 2) {
  return value === null ? "–" : value.toFixed(digits).replace("-", "−");
}

function bar(value) {
  const node = element("div", "bar"), fill = element("i");
  fill.style.width = `${100 * Math.min(Math.max(value || 0, 0), 1)}%`;
  node.append(fill);
  return node;
}

function setArea(node, [x0, y0, x1, y1], { width, height }) {
  node.style.left = `${(100 * x0) / width}%`;
  node.style.top = `${(100 * y0) / height}%`;
  node.style.width = `${(100 * (x1 - x0)) / width}%`;
  node.style.height = `${(100 * (y1 - y0)) / height}%`;
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
