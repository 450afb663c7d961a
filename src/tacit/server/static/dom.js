// Elements, and numbers and times as text. Everything that comes from outside enters the page as a text node: there is
// no innerHTML in these files.

export function h(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

export const number = (value, digits = 2) =>
  value === null || value === undefined ? "–" : Number(value).toFixed(digits);

export const whole = value => Number(value).toLocaleString("en");

export const percent = value => value === null || value === undefined ? "–" : `${Math.round(100 * value)}%`;

const two = value => String(value).padStart(2, "0");

export function time(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const at = new Date(1000 * seconds);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(seconds)}`;
}

export function clock(seconds) {
  const at = new Date(1000 * seconds);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export const badge = text => h("span", { class: `badge is-${text}` }, String(text).replaceAll("_", " "));

export const memoryLink = (id, text = id) => h("a", { href: `#/memories/${encodeURIComponent(id)}` }, text);

// A table that scrolls by itself where it is wider than the page, and can be reached by keyboard for that.
// columns: [{name, number, control}]; ``control`` stands in the head instead of the name.
export function table(label, columns, rows, empty) {
  const head = columns.map(column => h(
    "th", { scope: "col", class: column.number && "number", "aria-sort": column.sorted }, column.control || column.name));
  const body = rows.length ? rows : [h("tr", {}, h("td", { colSpan: columns.length, class: "faint" }, empty))];
  return h("div", { class: "wide", role: "region", tabindex: "0", "aria-label": label },
    h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}

export const row = (columns, cells) => h("tr", {}, cells.map((cell, at) => h(
  "td", { "data-name": columns[at].name, class: [columns[at].number && "number", columns[at].text && "text"].filter(Boolean).join(" ") || null }, cell)));

export const facts = pairs => h("dl", { class: "facts" }, pairs.map(([name, value]) =>
  h("div", { class: String(value).length > 22 && typeof value === "string" && "long" }, h("dt", {}, name), h("dd", {}, value))));

export const select = (name, choices, chosen, changed) => h("select", { name, onchange: event => changed(event.target.value) },
  choices.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
