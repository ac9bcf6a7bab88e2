// The people of a team in a page, with fetch alone: who has a seat, and a person more.

/** Sends one request. Rejects with the problem document that the API answered. */
export async function ask(api, token, method, path, body) {
  const response = await fetch(`${api}/v1${path}`, {
    method,
    headers: {
      Authorization: `Bearer ${token}`,
      // One key for each write: if it is sent again, it is made once.
      ...(method === "GET" ? {} : { "Content-Type": "application/json", "Idempotency-Key": newKey() }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const answer = response.status === 204 ? null : await response.json();
  if (!response.ok) throw answer;
  return answer;
}

function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// The page has it from its link, so that it may be anything.
const usersOf = (subscription) => `/shared-subscriptions/${encodeURIComponent(subscription)}/users`;

/** Returns everybody on a subscription, and its seats. */
export async function people(api, token, subscription) {
  const found = [];
  for (let cursor = ""; ; ) {
    const query = `?limit=100${cursor && `&cursor=${encodeURIComponent(cursor)}`}`;
    const page = await ask(api, token, "GET", usersOf(subscription) + query);
    found.push(...page.data);
    if (!page.has_more) return { people: found, seats: page.seats };
    cursor = page.next_cursor;
  }
}

/** Gives a seat to a person. Returns a sentence about what happened. */
export async function add(api, token, subscription, email) {
  try {
    const change = await ask(api, token, "PATCH", usersOf(subscription), { add: [{ email }] });
    return change.pending ? `${email} will be added in a moment.` : `${email} has a seat.`;
  } catch (problem) {
    if (problem.code === "seat_limit_reached") return `All ${problem.total} seats are taken.`;
    return problem.detail ?? "Something went wrong.";
  }
}
