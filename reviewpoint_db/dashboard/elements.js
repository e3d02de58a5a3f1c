"use strict";
// Elements and words. Whatever comes from the application is set as text, never as markup.

function byId(id) {
  return document.getElementById(id);
}

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Rows stay the same elements from poll to poll, so that focus and what is open stay too.
function showRows(body, items, keyOf, make, update) {
  const rows = new Map([...body.children].map((row) => [row.dataset.key, row]));
  let before = null;
  for (const item of items) {
    const key = keyOf(item);
    let row = rows.get(key);
    if (row === undefined) {
      row = make(item);
      row.dataset.key = key;
    }
    rows.delete(key);
    update(row, item);
    const next = before === null ? body.firstElementChild : before.nextElementSibling;
    if (next !== row) body.insertBefore(row, next);
    before = row;
  }
  for (const row of rows.values()) row.remove();
}

// A figure and its unit, and a method and its path, stay on one line where there is room.
function unbroken(text) {
  return text.replace(/(\d) (?=(?:ms|s|min|h)\b)|\b(GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS|WEBSOCKET) (?=\/)/g, "$1$2\u00a0");
}

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0 s";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${(value * 1000).toPrecision(value < 0.01 ? 2 : 3) * 1} ms`;
  if (value < 10) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return whole % 60 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function amount(value) {
  return value >= 100 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1);
}

function clock(unixSeconds) {
  return new Date(unixSeconds * 1000).toLocaleTimeString();
}
