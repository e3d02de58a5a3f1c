// Sends each form as JSON to the API route in its action; shows what the API says when it refuses.
"use strict";

function fields(form, button) {
  const data = Object.fromEntries(new FormData(form, button));
  for (const input of form.querySelectorAll("input[type=number]")) {
    data[input.name] = input.valueAsNumber;
  }
  return data;
}

async function explain(response) {
  const problem = await response.json().catch(() => ({}));
  const details = Array.isArray(problem.extra) ? problem.extra.map((item) => item.message) : [];
  return details.join(". ") || problem.detail || `The server answered ${response.status}.`;
}

function tell(form, text) {
  let note = form.querySelector("[role=alert]");
  if (!note) {
    note = document.createElement("p");
    note.setAttribute("role", "alert");
    form.append(note);
  }
  note.textContent = text;
}

async function send(form, button) {
  const body = JSON.stringify(fields(form, button)); // before: a disabled button sends no value
  form.ariaBusy = "true";
  button.disabled = true;
  try {
    const response = await fetch(form.action, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body,
    });
    if (!response.ok) {
      tell(form, await explain(response));
      return;
    }
    const paper = form.closest("details.paper");
    if (paper) history.replaceState(null, "", `#${paper.id}`); // opened again after the reload
    location.reload();
  } catch {
    tell(form, "The server cannot be reached. Nothing was sent; please try again.");
  } finally {
    form.ariaBusy = "false";
    button.disabled = false;
  }
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("form[data-api]")) return;
  event.preventDefault();
  send(event.target, event.submitter ?? event.target.querySelector("button"));
});

const wanted = document.getElementById(location.hash.slice(1));
if (wanted instanceof HTMLDetailsElement) wanted.open = true;
