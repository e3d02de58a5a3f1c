"use strict";
// Asks every two seconds, and shows the answer. Nothing is asked while the tab is hidden or paused.

const INTERVAL = 2000;
const ANSWER_WITHIN = 8000;
// An answer takes two seconds at most where a server is silent; the figures are four seconds old by then.
const STALE_AFTER = 2500;
const BASE = location.origin + location.pathname.replace(/\/*$/, "/");
let timer = null;
let paused = false;
let asking = false;
let askedAt = 0;
let lastAnswer = null;
let silent = false;
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
  setText(byId("headline-text"), unbroken(text));
  const list = byId("headline-also");
  list.hidden = also.length === 0;
  showRows(list, also.map((each, index) => [String(index), each]), ([key]) => key,
    () => element("li"), (item, [, words]) => setText(item, unbroken(words)));
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
  silent = true;
  const since = lastAnswer === null ? "" : ` The figures below are ${seconds((Date.now() - lastAnswer) / 1000)} old.`;
  showHeadline("lost", `The application does not answer (${reason}).${since}`);
}

async function poll() {
  if (asking) return;
  asking = true;
  askedAt = Date.now();
  try {
    const response = await fetch(`${BASE}debug/live`, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_WITHIN) });
    if (response.ok) {
      const live = await response.json();
      silent = false;
      lastAnswer = Date.now();
      show(live);
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
  showFreshness();
  if (!stopped) timer = setTimeout(poll, INTERVAL);
}

function showFreshness() {
  const when = lastAnswer === null ? "" : ` at ${new Date(lastAnswer).toLocaleTimeString()}`;
  const old = lastAnswer === null ? "no answer" : `no answer since ${new Date(lastAnswer).toLocaleTimeString()}`;
  setText(byId("freshness"), paused ? `paused${when}` : document.hidden ? "hidden" : silent ? old : "live, every 2 s");
  document.body.toggleAttribute("data-stale", silent);
}

// What was true before may not be so any more: said while the answer is still awaited, not when it is given up.
setInterval(() => {
  if (!asking || Date.now() - askedAt < STALE_AFTER) return;
  lost(`no answer for ${seconds((Date.now() - askedAt) / 1000)}`);
  showFreshness();
}, 500);

byId("charts").append(...CHARTS.map((chart) => chart.figure));
byId("json").href = `${BASE}debug/live`;
byId("server").href = `${BASE}debug/server`;
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
