"use strict";
// Asks every two seconds, and shows the answer. Nothing is asked while the tab is hidden or paused.

const INTERVAL = 2000;
const ANSWER_WITHIN = 8000;
const BASE = location.origin + location.pathname.replace(/\/*$/, "/");
const opened = new Set();
let timer = null;
let paused = false;
let asking = false;
let lastAnswer = null;
let announced = "";

const SEVERE = new Set(["exhausted", "leaking", "blocked", "unreachable"]);
const perSecond = (read) => (sample) => read(sample) / 2;
const CHARTS = [
  new Chart("Connections", [
    ["in use", "one", (each) => each.gauges.out],
    ["waiting", "two", (each) => each.gauges.waiting],
    ["limit", "three", (each) => each.gauges.limit],
  ], amount, 1),
  new Chart("Wait for a connection", [
    ["median", "one", (each) => each.wait_p50],
    ["p99", "two", (each) => each.wait_p99],
  ], seconds, 0.001),
  new Chart("Use of a connection", [
    ["median", "one", (each) => each.use_p50],
    ["p99", "two", (each) => each.use_p99],
  ], seconds, 0.001),
  new Chart("Checkouts and errors a second", [
    ["checkouts", "one", perSecond((each) => each.acquired)],
    ["errors", "two", perSecond((each) => each.errors)],
  ], amount, 1),
];

function showHeadline(state, text, also = []) {
  document.body.dataset.state = state;
  setText(byId("headline-state"), state);
  setText(byId("headline-text"), text);
  const list = byId("headline-also");
  list.hidden = also.length === 0;
  showRows(list, also.map((each, index) => [String(index), each]), ([key]) => key,
    () => element("li"), (item, [, words]) => setText(item, words));
  document.title = `${SEVERE.has(state) || state === "lost" ? "⚠ " : ""}${state} – database ${byId("name").textContent}`;
  // Ages change at every poll: a screen reader hears of it when something else has changed.
  const gist = state + text.replace(/[\d.]+ (h|min|s)\b/g, "");
  if (gist !== announced) {
    announced = gist;
    setText(byId("announcement"), text);
  }
}

function figure(label, value, note, bad, progress) {
  return { label, value, note: note ?? "", bad: Boolean(bad), progress: progress ?? null };
}

function figuresOf(live) {
  const { out, idle, waiting, limit } = live.gauges;
  const last = live.history.length ? live.history[live.history.length - 1] : null;
  const longest = Math.max(0, ...live.waiters.map((each) => each.longest));
  const full = limit !== null && limit > 0 && out >= limit;
  return [
    figure("Connections in use", String(out), limit === null ? "no limit" : `of ${limit}`, full, limit ? [out, limit] : null),
    figure("Waiting for one", String(waiting), longest ? `up to ${seconds(longest)}` : "requests", waiting > 0),
    figure("Idle", String(idle), "open"),
    figure("Wait (p99, last 2 s)", last ? seconds(last.wait_p99) : "–"),
    figure("Use (p99, last 2 s)", last ? seconds(last.use_p99) : "–"),
    figure("Checkouts", last ? amount(last.acquired / 2) : "–", "a second"),
    figure("Errors", last ? amount(last.errors / 2) : "–", "a second", last && last.errors > 0),
  ];
}

function showFigures(live) {
  showRows(byId("figures"), figuresOf(live), (each) => each.label,
    (each) => element("div", {}, element("dt", {}, each.label),
      element("dd", {}, element("span"), " ", element("small")),
      each.progress ? element("dd", {}, element("progress", { "aria-label": each.label })) : null),
    (row, each) => {
      const value = row.querySelector("dd");
      setText(value.firstElementChild, each.value);
      setText(value.lastElementChild, each.note);
      value.classList.toggle("bad", each.bad);
      const bar = row.querySelector("progress");
      if (bar && each.progress) {
        [bar.value, bar.max] = each.progress;
        bar.classList.toggle("full", each.bad);
      }
    });
}

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

function updateHolder(row, holder) {
  const [age, who, worker] = row.children;
  setText(age, seconds(holder.held));
  const [name, place, badge, sql, button, stack] = who.children;
  setText(name, holder.route);
  setText(place, holder.place ? ` in ${holder.place}` : "");
  setText(sql, holder.statement ?? "");
  const lines = holder.stack.map((frame) => element("span", { class: frame.own ? "own" : "library" },
    `${frame.function}  ${frame.file}:${frame.line}\n`));
  if (!lines.length) lines.push(element("span", { class: "library" }, holder.abandoned ? "Its task has ended: there is no stack any more." : "No stack: the task is not known."));
  const words = lines.map((line) => line.textContent).join("");
  if (stack.textContent !== words) stack.replaceChildren(...lines);
  stack.setAttribute("aria-label", `Stack of ${holder.route}, the innermost call last`);
  setText(badge, holder.abandoned ? "leaked" : holder.state ?? "in use");
  badge.className = `badge ${holder.abandoned ? "bad" : holder.state === "idle in transaction" ? "busy" : ""}`;
  setText(worker, String(holder.pid));
  showStack(button, stack, holder.id, holder.route);
}

function showHolders(live) {
  showRows(byId("holders-body"), live.holders, (each) => each.id, makeHolder, updateHolder);
  byId("holders-empty").hidden = live.holders.length > 0;
  byId("holders-body").parentElement.hidden = live.holders.length === 0;
  const cut = live.holders_total > live.holders.length ? `the ${live.holders.length} oldest of ${live.holders_total}` : String(live.holders_total);
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
  showRows(byId("chains"), live.blockings, (each) => `${each.waiting_pid}-${each.blocking_pid}`,
    () => element("li", { class: "chain" }, party(""), element("span", { class: "arrow" }), party("culprit")),
    (row, each) => {
      const [one, arrow, other] = row.children;
      showParty(one, each.waiting, `process ${each.waiting_pid} of the server`, each.waiting_statement);
      setText(arrow, `waits${each.seconds === null ? "" : ` ${seconds(each.seconds)}`} for →`);
      showParty(other, each.blocking, each.place ? `in ${each.place}` : each.blocking_state ?? "", each.blocking_statement);
      other.classList.toggle("culprit", !waiting.has(each.blocking_pid));
    });
}

function hostBadge(host) {
  if (host.alive === false) return ["down", "bad"];
  if (host.used) return ["in use", "good"];
  if (host.alive === null) return ["not asked", ""];
  return host.watched ? ["left out", "busy"] : ["stands by", ""];
}

function showHosts(live) {
  byId("hosts").hidden = live.hosts.length === 0;
  showRows(byId("hosts-body"), live.hosts, (each) => each.host,
    () => element("tr", {}, element("th", { scope: "row" }, element("span", { class: "who" }), element("span", { class: "place" })),
      element("td", {}, element("span", { class: "badge" }), " ", element("span", { class: "place" })),
      element("td", { class: "nowrap" }), element("td", { class: "nowrap" })),
    (row, each) => {
      const [name, state, lag, used] = row.children;
      setText(name.firstElementChild, each.host);
      setText(name.lastElementChild, each.role ? ` ${each.role}` : "");
      const [word, kind] = hostBadge(each);
      setText(state.firstElementChild, word);
      state.firstElementChild.className = `badge ${kind}`;
      setText(state.lastElementChild, each.note);
      setText(lag, each.lag === null ? "–" : seconds(each.lag));
      setText(used, each.out === null ? `? of ${each.open}` : `${each.out} of ${each.open}`);
    });
}

function showTables(live) {
  showRows(byId("statements-body"), live.statements, (each) => each.statement,
    () => element("tr", {}, element("td", { class: "nowrap" }), element("td", {}, element("code"), element("span", { class: "sql" }))),
    (row, each) => {
      setText(row.children[0], seconds(each.seconds));
      setText(row.children[1].firstElementChild, each.statement);
      const often = each.count === 1 ? "once" : `${each.count} times`;
      setText(row.children[1].lastElementChild, [each.origin, often].filter(Boolean).join(", "));
    });
  byId("statements-empty").hidden = live.statements.length > 0;
  byId("statements-body").parentElement.hidden = live.statements.length === 0;
  showRows(byId("notices"), live.notices, (each) => `${each.at} ${each.pid} ${each.text}`,
    (each) => element("li", {}, element("time", { dateTime: new Date(each.at * 1000).toISOString() }, clock(each.at)), element("span", {}, each.text)),
    () => {});
  byId("notices-empty").hidden = live.notices.length > 0;
  setText(byId("workers-note"), live.workers_note);
  showRows(byId("workers-body"), live.workers, (each) => String(each.pid),
    () => element("tr", {}, element("th", { scope: "row" }), element("td"), element("td"), element("td")),
    (row, each) => {
      const [pid, used, waiting, state] = row.children;
      setText(pid, each.asked ? `${each.pid} (answers this page)` : String(each.pid));
      const limit = each.gauges && each.gauges.limit !== null ? ` of ${each.gauges.limit}` : "";
      setText(used, each.gauges ? `${each.gauges.out}${limit}` : "–");
      setText(waiting, each.gauges ? String(each.gauges.waiting) : "–");
      setText(state, each.gauges === null ? "does not answer" : each.outage ?? "answers");
    });
  showRows(byId("configuration-body"), Object.entries(live.configuration), ([name]) => name,
    ([name]) => element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, element("code"))),
    (row, [, value]) => setText(row.children[1].firstElementChild, value === null ? "–" : String(value)));
}

function show(live) {
  setText(byId("name"), live.name);
  const environment = byId("environment");
  environment.hidden = false;
  setText(environment, live.environment);
  setText(byId("asked"), live.workers.length > 1 ? `${live.workers.length} workers` : `process ${live.pid}`);
  showHeadline(live.headline.state, live.headline.text, live.headline.also);
  showFigures(live);
  showBlocking(live);
  showHolders(live);
  const first = live.history.length ? live.history[0].at : live.at;
  const span = Math.min(300, Math.max(60, live.at - first));
  setText(byId("charts-title"), span <= 60 ? "The last minute" : `The last ${seconds(span)}`);
  for (const chart of CHARTS) chart.draw(live.history, span);
  showHosts(live);
  showTables(live);
}

function lost(reason) {
  const since = lastAnswer === null ? "" : ` The figures below are ${seconds((Date.now() - lastAnswer) / 1000)} old.`;
  showHeadline("lost", `The application does not answer (${reason}).${since}`);
}

async function poll() {
  if (asking) return;
  asking = true;
  try {
    const response = await fetch(`${BASE}debug/live`, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_WITHIN) });
    if (response.ok) {
      show(await response.json());
      lastAnswer = Date.now();
    } else if (response.status === 401) {
      lost("it asks for the password again: reload this page");
    } else {
      lost(`status ${response.status}`);
    }
  } catch (error) {
    lost(error.name === "TimeoutError" ? "no answer in time" : "it cannot be reached");
  } finally {
    asking = false;
    schedule();
  }
}

function schedule() {
  clearTimeout(timer);
  timer = null;
  const stopped = paused || document.hidden;
  const when = lastAnswer === null ? "" : ` at ${new Date(lastAnswer).toLocaleTimeString()}`;
  setText(byId("freshness"), paused ? `paused${when}` : document.hidden ? "hidden" : `live, every 2 s`);
  if (!stopped) timer = setTimeout(poll, INTERVAL);
}

byId("charts").append(...CHARTS.map((chart) => chart.figure));
byId("json").href = `${BASE}debug/live`;
byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  if (paused) schedule();
  else poll();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden || paused) schedule();
  else poll();
});
poll();
