"use strict";
// Who holds connections, and who waits for whom.

const FIRST = 10;
const opened = new Set();
let allHolders = false;

function makeHolder(holder) {
  const id = `stack-${holder.id}`;
  const button = element("button", { type: "button", class: "toggle", "aria-expanded": "false", "aria-controls": id });
  const stack = element("pre", { id, hidden: true, tabindex: "0", role: "group" });
  button.addEventListener("click", () => {
    if (!opened.delete(holder.id)) opened.add(holder.id);
    showStack(button, stack, holder.id, holder.route);
  });
  return element("tr", {},
    element("td", { class: "nowrap" }),
    element("td", { class: "holding" }, element("span", { class: "who" }), element("span", { class: "place" }), " ", element("span", { class: "badge" }),
      element("code", { class: "sql" }), button, stack),
    element("td", { class: "worker nowrap" }));
}

function showStack(button, stack, id, route) {
  const open = opened.has(id);
  stack.hidden = !open;
  button.setAttribute("aria-expanded", String(open));
  setText(button, open ? "Hide stack" : "Where is it now?");
  button.setAttribute("aria-label", `${button.textContent} (${route})`);
}

// The innermost line of the application's own code: where to look.
function placeOf(holder) {
  if (holder.abandoned) {
    const origin = holder.origin ?? "";
    return ` ${origin.startsWith(holder.route) ? origin.slice(holder.route.length).trim() : origin}`;
  }
  const own = holder.stack.filter((frame) => frame.own).pop();
  if (!holder.place) return "";
  return own ? ` in ${holder.place}, ${own.file}:${own.line}` : ` in ${holder.place}`;
}

function badgeOf(holder, blockings) {
  if (holder.abandoned) return ["leaked: its task has ended", "bad"];
  const waits = blockings.find((each) => each.waiting_pid === holder.backend_pid);
  if (waits) return [`waits for ${waits.blocking}`, "busy"];
  const state = holder.state ? `${holder.state} for ${seconds(holder.state_for)}` : "in use";
  if (blockings.some((each) => each.blocking_pid === holder.backend_pid)) return [`${state}; others wait for it`, "bad"];
  return [state, holder.state === "idle in transaction" ? "busy" : ""];
}

function updateHolder(row, holder, blockings) {
  const [age, who, worker] = row.children;
  setText(age, seconds(holder.held));
  const [name, place, badge, sql, button, stack] = who.children;
  setText(name, holder.route);
  setText(place, placeOf(holder));
  setText(sql, holder.statement ?? "");
  const lines = holder.stack.map((frame) => element("span", { class: frame.own ? "own" : "library" },
    `${frame.function}  ${frame.file}:${frame.line}\n`));
  if (!lines.length) lines.push(element("span", { class: "library" }, "No stack: the task is not known, or not among the first."));
  const words = lines.map((line) => line.textContent).join("");
  if (stack.textContent !== words) stack.replaceChildren(...lines);
  stack.setAttribute("aria-label", `Stack of ${holder.route}, the innermost call last`);
  const [state, kind] = badgeOf(holder, blockings);
  setText(badge, state);
  badge.className = `badge ${kind}`;
  button.hidden = holder.abandoned; // there is no stack any more
  setText(worker, String(holder.pid));
  showStack(button, stack, holder.id, holder.route);
}

// Counted by the application, over all holders: the rows are the oldest only.
function showRoutes(live) {
  byId("routes").hidden = live.routes.length < 2 || live.holders_total < 4;
  setText(byId("routes"), `Most by ${live.routes.map((each) => `${each.route} (${each.count})`).join(", ")}`);
}

// The oldest, and whom the headline names, however late that one came.
function firstHolders(live) {
  const blamed = new Set(live.blamed);
  let others = FIRST - blamed.size;
  return live.holders.filter((each) => blamed.has(each.id) || others-- > 0);
}

function showHolders(live) {
  const shown = allHolders ? live.holders : firstHolders(live);
  showRows(byId("holders-body"), shown, (each) => each.id, makeHolder, (row, each) => updateHolder(row, each, live.blockings));
  const more = byId("holders-more");
  more.hidden = live.holders.length <= FIRST;
  setText(more, allHolders ? `Show the first ${FIRST}` : `Show ${live.holders.length - FIRST} more`);
  more.onclick = () => {
    allHolders = !allHolders;
    showHolders(live);
  };
  showRoutes(live);
  byId("holders-empty").hidden = live.holders.length > 0;
  byId("holders-body").parentElement.hidden = live.holders.length === 0;
  const cut = live.holders_total > live.holders.length ? `${live.holders.length} of ${live.holders_total}` : String(live.holders_total);
  setText(byId("holders-count"), live.holders.length ? `(${cut})` : "");
  const waiting = live.waiters.map((each) => `${each.route} (${each.count}, the longest for ${seconds(each.longest)})`);
  byId("waiters").hidden = waiting.length === 0;
  setText(byId("waiters"), `Waiting for one: ${waiting.join("; ")}`);
  document.body.classList.toggle("alone", live.workers.length < 2);
}

function party(kind) {
  return element("div", { class: `party ${kind}` }, element("span", { class: "who" }), element("span", { class: "place" }), element("code", { class: "sql" }));
}

function showParty(node, name, place, statement) {
  const [who, where, sql] = node.children;
  setText(who, name);
  setText(where, place ? ` ${place}` : "");
  setText(sql, statement ?? "");
}

function showBlocking(live) {
  byId("blocking").hidden = live.blockings.length === 0;
  const waiting = new Set(live.blockings.map((each) => each.waiting_pid));
  // Who waits for nobody is to blame: what waits for that one directly comes first.
  const links = [...live.blockings].sort((one, other) => waiting.has(one.blocking_pid) - waiting.has(other.blocking_pid));
  showRows(byId("chains"), links, (each) => `${each.waiting_pid}-${each.blocking_pid}`,
    () => element("li", { class: "chain" }, party(""), element("span", { class: "arrow" }), party("culprit")),
    (row, each) => {
      const [one, arrow, other] = row.children;
      showParty(one, each.waiting, `process ${each.waiting_pid} of the server`, each.waiting_statement);
      setText(arrow, `waits${each.seconds === null ? "" : ` ${seconds(each.seconds)}`} for →`);
      showParty(other, each.blocking, each.place ? `in ${each.place}` : each.blocking_state ?? "", each.blocking_statement);
      other.classList.toggle("culprit", !waiting.has(each.blocking_pid));
    });
}
