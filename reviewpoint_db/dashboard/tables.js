"use strict";
// The tables of the database's servers, of statements, warnings, workers and settings.

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
  showRows(byId("notices"), live.notices, (each) => `${each.kind} ${each.text.replace(/\[[^\]]*\]|\d+(\.\d+)?/g, "#")}`,
    () => element("li", {}, element("time"), element("span", { class: "badge" }), element("div", { role: "group" })),
    (row, each) => {
      const [time, often, words] = row.children;
      time.dateTime = new Date(each.at * 1000).toISOString();
      setText(time, clock(each.at));
      often.hidden = each.count === 1;
      setText(often, `${each.count} times`);
      setText(words, each.text);
      words.setAttribute("aria-label", `Warning of ${clock(each.at)}`);
    });
  // A stack is long: it is scrolled in its place, by the keyboard too.
  for (const words of byId("notices").querySelectorAll("div")) {
    if (words.scrollHeight > words.clientHeight) words.tabIndex = 0;
    else words.removeAttribute("tabindex");
  }
  byId("notices-empty").hidden = live.notices.length > 0;
  setText(byId("workers-note"), live.workers_note);
  showRows(byId("workers-body"), live.workers, (each) => String(each.pid),
    () => element("tr", {}, element("th", { scope: "row" }), element("td"), element("td"), element("td")),
    (row, each) => {
      const [pid, used, waiting, state] = row.children;
      setText(pid, String(each.pid));
      const limit = each.gauges && each.gauges.limit !== null ? ` of ${each.gauges.limit}` : "";
      setText(used, each.gauges ? `${each.gauges.out}${limit}` : "–");
      setText(waiting, each.gauges ? String(each.gauges.waiting) : "–");
      const full = each.gauges !== null && each.gauges.limit > 0 && each.gauges.out >= each.gauges.limit;
      const wrong = each.gauges === null ? "does not answer" : each.outage ?? (full ? "full" : null);
      setText(state, [wrong, each.asked ? "answers this page" : wrong ? null : "answers"].filter(Boolean).join("; "));
      state.classList.toggle("bad", wrong !== null);
    });
  showRows(byId("configuration-body"), Object.entries(live.configuration), ([name]) => name,
    ([name]) => element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, element("code"))),
    (row, [, value]) => setText(row.children[1].firstElementChild, value === null ? "–" : String(value)));
}
