"use strict";

const at = (id) => document.getElementById(id);

/** Asks a route of this process, and shows the detail of a problem. Returns null for one. */
async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  let answer;
  try {
    const response = await fetch(path, options);
    answer = await response.json();
    at("problem").hidden = response.ok;
    if (response.ok) return answer;
  } catch {
    at("problem").hidden = false;
    answer = { detail: "The process does not answer. Start coseat dev again." };
  }
  at("problem").textContent = answer.detail;
  return null;
}

function row(...cells) {
  const made = document.createElement("tr");
  for (const cell of cells) {
    const place = document.createElement("td");
    place.append(cell);
    made.append(place);
  }
  return made;
}

function link(text, href) {
  const made = document.createElement("a");
  made.href = href;
  made.textContent = text;
  return made;
}

function button(text, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", act);
  return made;
}

const clockOf = (seconds) => new Date(seconds * 1000).toLocaleTimeString();

async function showPeople() {
  const found = await ask("/dev/people");
  if (found === null) return;
  at("people").replaceChildren(...found.data.map((person) => row(
    person.name, person.email, person.about, button("Show the token", () => { at("token").textContent = person.token; }),
  )));
}

async function showOutcomes() {
  const found = await ask("/dev/payment-outcomes");
  if (found === null) return;
  at("payment").elements.outcome.replaceChildren(...found.data.map((outcome, number) => {
    const option = new Option(outcome.about, String(number));
    option.outcome = outcome;
    return option;
  }));
}

async function showClock() {
  const found = await ask("/dev/clock");
  if (found !== null) at("now").textContent = new Date(found.now * 1000).toLocaleString();
}

async function showRecent() {
  const [mails, events, requests] = await Promise.all(
    ["/dev/mailbox", "/dev/events?limit=15", "/dev/requests?limit=15"].map((path) => ask(path)),
  );
  if (mails === null || events === null || requests === null) return;
  at("mails").replaceChildren(...mails.data.map((mail) => {
    const made = document.createElement("li");
    made.append(`To ${mail.to}, as ${mail.role}: `, link("accept the invitation", mail.link));
    return made;
  }));
  at("events").replaceChildren(...events.data.map((event) => row(
    new Date(event.received_at).toLocaleTimeString(), event.type, event.subscription_id, event.customer_id ?? "",
  )));
  at("requests").replaceChildren(...requests.data.map((request) => row(
    clockOf(request.at), `${request.method} ${request.path}`, String(request.status), `${request.milliseconds} ms`,
  )));
}

at("somebody").addEventListener("submit", async (event) => {
  event.preventDefault();
  const made = await ask("/dev/token", { email: event.target.elements.email.value });
  if (made !== null) at("token").textContent = made.token;
});

at("advance").addEventListener("submit", async (event) => {
  event.preventDefault();
  await ask("/dev/clock", { advance: Number(event.submitter.value) });
  await showClock();
});

at("payment").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { client_secret: secret, outcome } = event.target.elements;
  const { payment_method, authenticate } = outcome.selectedOptions[0].outcome;
  const answer = await ask("/dev/payment", { client_secret: secret.value, payment_method, authenticate });
  at("paid").textContent = answer === null ? "" : `${answer.id}: ${answer.status}`;
});

if (location.pathname !== "/") {
  at("portal").replaceChildren("Started by coseat dev. ", link("The portal", "/"), " is at the top of this address.");
}

showPeople();
showOutcomes();
showClock();
showRecent();
setInterval(showRecent, 2000);
