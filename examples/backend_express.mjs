// A back end in Express: it lets people in by access, invites them, and follows the events.
//
//   COSEAT_API=http://127.0.0.1:8000 SERVICE_KEY=csk_… node examples/backend_express.mjs 3000
import { CoseatError, createClient, isProblem } from "@coseat/client";
import express from "express";

const coseat = createClient({ baseUrl: process.env.COSEAT_API, token: process.env.SERVICE_KEY });
const PRODUCT = "prod_demoteam";
const app = express();
app.use(express.json());

// An application knows its own users. This one believes a header, which yours must not.
const customerOf = (request) => request.get("X-Demo-Customer") ?? "";

app.get("/reports", async (request, response) => {
  const access = await coseat.getAccess({ customer_id: customerOf(request), product_id: PRODUCT });
  if (!access.has_access) return response.status(403).json({ detail: "You have no seat." });
  response.json({ reports: [], role: access.role });
});

app.post("/invitations", async (request, response) => {
  const { subscription_id, email } = request.body;
  // It acts for the user, so that the user's rights apply. The answer's token goes into the e-mail, never to the page.
  const made = await coseat.createInvitation({ subscription_id, email }, { actingCustomer: customerOf(request) });
  response.status(201).json({ invited: made.invitation.email, mailed: typeof made.token === "string" });
});

const changed = new Set();
app.get("/changed", (_, response) => response.json([...changed]));

app.use((error, _request, response, _next) => {
  if (!(error instanceof CoseatError)) return response.status(500).json({ detail: "Something went wrong." });
  response.status(error.status).json({ code: error.code, detail: error.problem.detail });
});

/** Takes the state as it is now in place of what was known. Returns the place from which the events go on. */
async function begin() {
  const pages = coseat.getEventsSnapshot();
  const { after } = await pages;
  changed.clear();
  for await (const row of pages) if (row.type === "access.changed") changed.add(row.customer_id);
  return after;
}

/** Reads events in order, and keeps its place: a real application stores it with what it does. */
async function follow() {
  for (let after; ; await new Promise((resolve) => setTimeout(resolve, 500))) {
    try {
      after ??= await begin();
      const page = await coseat.getEvents({ types: ["access.changed"], after });
      for (const event of page.data) changed.add(event.customer_id);
      after = page.next_cursor;
    } catch (error) {
      console.error(`The events could not be read: ${error.message}`);
      // The place is older than what is kept, or from before a restore of the database.
      if (isProblem(error, "cursor_expired")) after = undefined;
    }
  }
}

app.listen(Number(process.argv[2] ?? 3000), "127.0.0.1");
void follow();
