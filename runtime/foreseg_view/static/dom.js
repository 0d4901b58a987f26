// SPDX-License-Identifier: Apache-2.0
// Elements from values. Text goes in as text only: nothing that comes from outside is ever markup.

export const $ = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Rows by key: those that stay keep their elements, and so the focus and what is open in them.
export function keyed(list, items, keyOf, make, update) {
  const known = new Map([...list.children].map((row) => [row.dataset.key, row]));
  let place = list.firstChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let row = known.get(key);
    known.delete(key);
    if (!row) {
      row = make(item);
      row.dataset.key = key;
    }
    update(row, item);
    if (row === place) place = place.nextSibling;
    else list.insertBefore(row, place);
  }
  for (const row of known.values()) row.remove();
}

export function seconds(value) {
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  return `${Math.round(value / 60)} min`;
}
