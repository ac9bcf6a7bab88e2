/** What people do, each in a browser of their own, against the whole service. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { control, stripe } from "coseat-client-checks/service";
import {
  atApi, newTeam, OWNER, row, seatsOf, signUp, startWorld, STRANGER, TEAM, told, tokenOf, until, useCard, visit,
  type World,
} from "./world.ts";

let world: World;

before(async () => {
  world = await startWorld();
});
after(() => world.stop());

async function hasText(locator: import("playwright-core").Locator, expected: RegExp): Promise<void> {
  await until(async () => expected.test((await locator.textContent().catch(() => null)) ?? ""));
}

describe("flows", { concurrency: 3 }, () => {
  test("the seat dialog shows at / with the counts, the owner first and oneself marked", async () => {
    const { page, dialog, close } = await visit(world, OWNER);
    await dialog.getByRole("heading", { name: "Team plan" }).waitFor();
    await hasText(dialog.getByTestId("counts"), /5 seats.*2 used.*3 free/);
    await dialog.locator(".cs-row").nth(2).waitFor();
    assert.match((await dialog.locator(".cs-row").first().textContent()) ?? "", /Olivia Owner.*You.*owner@example\.com.*Owner/);
    assert.match(page.url(), new RegExp(`#/shared/${TEAM}$`));
    await close();
  });

  test("the owner adds, invites, buys, gives a seat back, makes a manager and transfers; the invited person appears", async () => {
    const [max, uma, ada, ida] = ["max", "uma", "ada", "ida"].map((name) => `${name}-${process.pid}@example.com`) as [string, string, string, string];
    const team = await newTeam(world, 5, [{ email: max, role: "manager" }, { email: uma }]);
    await atApi(world, "PATCH", "customers/me", { name: "Olivia Owner" }, await tokenOf(world, team.owner));
    const { page, dialog, close } = await visit(world, team.owner, seatsOf(team));
    const addresses = dialog.getByLabel("Invite people by e-mail");

    await addresses.fill(ada);
    await dialog.getByLabel("How people join").selectOption("add");
    await dialog.getByRole("button", { name: "Add", exact: true }).click();
    await told(page, /1 person was added/);
    await row(dialog, ada).getByText("Not seen yet").waitFor();

    await addresses.fill(ida);
    await dialog.getByLabel("How people join").selectOption("invite");
    await dialog.getByRole("button", { name: "Invite", exact: true }).click();
    await told(page, /1 invitation was sent/);
    await row(dialog, ida).getByText("Invited").waitFor();
    await hasText(dialog.getByTestId("counts"), /5 seats.*3 used.*1 reserved.*1 free/);

    await dialog.getByRole("button", { name: "Change seats" }).click();
    await dialog.getByRole("button", { name: "One seat more" }).click();
    await dialog.getByRole("button", { name: "One seat more" }).click();
    const buy = dialog.getByRole("button", { name: /^Buy 2 seats for \$\d+\.\d\d$/ });
    await buy.waitFor();
    await hasText(dialog.locator(".cs-quote"), /Due now\$\d+\.\d\d.*Total from/);
    await buy.click();
    await told(page, /You have 7 seats now/);
    await hasText(dialog.getByTestId("counts"), /7 seats/);

    await row(dialog, ada).getByRole("button", { name: /Actions/ }).click();
    await page.getByRole("menuitem", { name: "Remove…" }).click();
    const question = page.getByRole("alertdialog", { name: `Remove ${ada}?` });
    await question.getByLabel("Give the seat back").check();
    await hasText(question, /You get a credit of \$\d+\.\d\d/);
    await question.getByRole("button", { name: "Remove" }).click();
    await told(page, /was removed\. Credit: \$[1-9]\d*\.\d\d/);
    await hasText(dialog.getByTestId("counts"), /6 seats.*2 used/);

    await dialog.getByLabel(`Role of ${uma}`).selectOption("manager");
    await told(page, /has the role Manager now/);

    const mailbox = await (await fetch(`${world.url}/dev/mailbox`)).json() as { data: { to: string; link: string }[] };
    const mail = mailbox.data.find((one) => one.to === ida);
    assert.ok(mail, "the invitation is in the mailbox");
    const guest = await visit(world, ida, mail.link.replace(/^\//, ""));
    await guest.page.getByText("Olivia Owner invites you to join as Member.").waitFor();
    await guest.page.getByRole("button", { name: "Accept" }).click();
    await guest.dialog.getByRole("heading", { name: "Team plan" }).waitFor();
    await guest.close();
    await row(dialog, ida).getByText("Active").waitFor();

    await row(dialog, max).getByRole("button", { name: /Actions/ }).click();
    await page.getByRole("menuitem", { name: "Make owner…" }).click();
    await page.getByRole("alertdialog").getByRole("button", { name: "Offer" }).click();
    await told(page, /offered to max/);
    const heir = await visit(world, max, seatsOf(team));
    await heir.dialog.getByRole("button", { name: "Become owner" }).click();
    await told(heir.page, /You are the owner now/);
    await row(heir.dialog, max).getByText("Owner").waitFor();
    await row(dialog, max).getByText("Owner").waitFor();
    await heir.close();
    await close();
  });

  test("manager, member, payer and stranger each see theirs", async () => {
    const team = await newTeam(world, 4, [
      { email: "mara@example.com", role: "manager" },
      { email: "udo@example.com" },
    ]);
    for (const email of ["mara@example.com", "udo@example.com"]) await signUp(world, email, null);

    const manager = await visit(world, "mara@example.com", seatsOf(team));
    await row(manager.dialog, "udo@example.com").getByRole("button", { name: /Actions/ }).waitFor();
    assert.equal(await manager.dialog.getByRole("button", { name: "Change seats" }).count(), 0);
    assert.equal(await row(manager.dialog, team.owner).getByRole("button").count(), 0, "the owner's row is locked");
    await manager.close();

    const member = await visit(world, "udo@example.com", seatsOf(team));
    await member.dialog.getByText(`The subscription belongs to ${team.owner}.`).waitFor();
    assert.equal(await member.dialog.getByLabel("Invite people by e-mail").count(), 0);
    assert.equal(await row(member.dialog, "mara@example.com").count(), 0, "a member sees nobody else");
    await member.close();

    await atApi(world, "POST", `shared-subscriptions/${team.id}/transfer`, { to_customer_id: await signUp(world, "mara@example.com", null) }, await tokenOf(world, team.owner));
    await atApi(world, "POST", `shared-subscriptions/${team.id}/transfer/accept`, undefined, await tokenOf(world, "mara@example.com"));
    const payer = await visit(world, team.owner, seatsOf(team));
    await payer.dialog.getByText("The owner may not buy seats").waitFor();
    assert.equal(await payer.dialog.locator(".cs-people").count(), 0, "a payer sees no members");
    await payer.dialog.getByRole("button", { name: "Let the owner buy" }).click();
    await told(payer.page, /The owner may buy seats now/);
    await payer.close();

    const stranger = await visit(world, STRANGER, seatsOf(team));
    await stranger.dialog.getByText("This does not exist, or you may not see it.").waitFor();
    await stranger.close();
  });

  test("a bad address is kept with its reason while the good ones go through, and missing seats are bought on the way", async () => {
    const team = await newTeam(world, 1);
    const { page, dialog, close } = await visit(world, team.owner, seatsOf(team));
    const addresses = dialog.getByLabel("Invite people by e-mail");
    await addresses.fill("nonsense, kim@example.com, lea@example.com,");
    await dialog.getByText("not an e-mail address").waitFor();
    await dialog.getByRole("button", { name: "Invite", exact: true }).click();
    await dialog.getByText("1 seat is missing").waitFor();
    await hasText(dialog.locator(".cs-add .cs-quote"), /Due now\$\d+\.\d\d.*Total from/);
    await dialog.getByRole("button", { name: "Buy 1 seat and invite" }).click();
    await told(page, /2 invitations were sent/);
    assert.deepEqual(await dialog.locator(".cs-tag-text").allTextContents(), ["nonsensenot an e-mail address"]);
    await row(dialog, "lea@example.com").waitFor();
    await addresses.fill("kim@example.com,");
    await dialog.getByRole("button", { name: "Remove nonsense" }).click();
    await dialog.getByRole("button", { name: "Invite", exact: true }).click();
    await dialog.getByRole("button", { name: "Buy 1 seat and invite" }).click();
    await dialog.locator(".cs-tag", { hasText: "is already invited" }).waitFor();
    await close();
  });

  test("with more people than seats, the seats that are bought are enough for all", async () => {
    const members = Array.from({ length: 5 }, (_, number) => ({ email: `over-${number}-${process.pid}@example.com` }));
    const team = await newTeam(world, 5, members);
    const item = (await stripe("GET", `subscriptions/${team.id}`)).items.data[0].id as string;
    const { page, dialog, close } = await visit(world, team.owner, seatsOf(team));
    const addresses = dialog.getByLabel("Invite people by e-mail");
    for (const [seats, way, button, done, after] of [
      [3, "invite", "Invite", /1 invitation was sent/, /^6 seats/],
      [4, "add", "Add", /1 person was added/, /^7 seats/],
    ] as const) {
      await stripe("POST", `subscription_items/${item}`, { quantity: seats, proration_behavior: "none" });
      await hasText(dialog.getByTestId("counts"), new RegExp(`^${seats} seats.*2 too many in use`));
      await addresses.fill(`${way}-${process.pid}@example.com`);
      await dialog.getByLabel("How people join").selectOption(way);
      await dialog.getByRole("button", { name: button, exact: true }).click();
      await dialog.getByText("3 seats are missing").waitFor();
      await dialog.getByRole("button", { name: `Buy 3 seats and ${way}` }).click();
      await told(page, done);
      await hasText(dialog.getByTestId("counts"), after);
    }
    await close();
  });

  test("a purchase that the bank asks about is finished, refused and abandoned", async () => {
    const team = await newTeam(world, 1);
    await useCard(world, team.ownerId, "pm_card_threeDSecure2Required");
    const { page, dialog, close } = await visit(world, team.owner, seatsOf(team));
    const more = dialog.getByRole("button", { name: "One seat more" });
    const buyOne = async () => {
      await dialog.getByRole("button", { name: "Change seats" }).click();
      await more.click();
      await dialog.getByRole("button", { name: /^Buy 1 seat for/ }).click();
      await dialog.getByText("A purchase waits for its payment").waitFor();
      // Something else may have shown the purchase before its own request was answered, which closes the form.
      await more.waitFor({ state: "detached" });
    };
    await buyOne();
    await dialog.getByRole("button", { name: "Abandon" }).click();
    await told(page, /The purchase was abandoned/);
    await hasText(dialog.getByTestId("counts"), /^1 seat/);

    await buyOne();
    await page.reload();
    await dialog.getByRole("button", { name: "Finish payment" }).click();
    const payment = page.getByRole("dialog", { name: "Payment" });
    await payment.getByLabel("Card").selectOption("pm_card_chargeDeclined");
    await payment.getByRole("button", { name: "Pay" }).click();
    await payment.getByText("The card was declined.").waitFor();
    await payment.getByLabel("Card").selectOption("pm_card_threeDSecure2Required");
    await payment.getByRole("button", { name: "Pay" }).click();
    await payment.getByRole("button", { name: "Refuse" }).click();
    await payment.getByText("The bank's confirmation failed.").waitFor();
    await payment.getByRole("button", { name: "Pay" }).click();
    await payment.getByRole("button", { name: "Confirm" }).click();
    await hasText(dialog.getByTestId("counts"), /^2 seats/);
    await close();
  });

  test("the form of a purchase is closed before what it changed is read again", async () => {
    const team = await newTeam(world, 1);
    const { page, dialog, close } = await visit(world, team.owner, seatsOf(team));
    const more = dialog.getByRole("button", { name: "One seat more" });
    await dialog.getByRole("button", { name: "Change seats" }).click();
    await more.click();
    const buy = dialog.getByRole("button", { name: /^Buy 1 seat for/ });
    await buy.waitFor();
    await page.route("**/users?*", () => new Promise(() => {}));
    await buy.click();
    await more.waitFor({ state: "detached" });
    await close();
  });

  test("a declined card is told, and nothing is bought", async () => {
    const team = await newTeam(world, 1);
    await useCard(world, team.ownerId, "pm_card_chargeCustomerFail");
    const { dialog, close } = await visit(world, team.owner, seatsOf(team));
    await dialog.getByRole("button", { name: "Change seats" }).click();
    await dialog.getByRole("button", { name: "One seat more" }).click();
    await dialog.getByRole("button", { name: /^Buy 1 seat for/ }).click();
    await dialog.getByText(/The card was declined|A purchase waits for its payment/).waitFor();
    await hasText(dialog.getByTestId("counts"), /^1 seat/);
    await close();
  });

  test("a change that takes longer is shown while it runs, and then as done", async () => {
    const team = await newTeam(world, 3);
    const { page, dialog, close } = await visit(world, team.owner, seatsOf(team));
    await dialog.getByTestId("counts").waitFor();
    const slow = `slow-${process.pid}@example.com`;
    // The API answers 202 after five seconds.
    await control("faults", { method: "POST", object: await signUp(world, slow, null), latency_s: 8 });
    const answered = page.waitForResponse((response) => response.request().method() === "PATCH");
    await dialog.getByLabel("Invite people by e-mail").fill(slow);
    await dialog.getByLabel("How people join").selectOption("add");
    await dialog.getByRole("button", { name: "Add", exact: true }).click();
    assert.equal((await answered).status(), 202);
    await row(dialog, slow).getByText("In progress").waitFor();
    await row(dialog, slow).getByText("Not seen yet").waitFor();
    await told(page, /added/);
    await close();
  });

  test("search, filters and pages are the server's, and the file has everybody", async () => {
    const members = Array.from({ length: 44 }, (_, number) => ({ email: `person-${String(number).padStart(2, "0")}@example.com` }));
    const team = await newTeam(world, 50, members);
    const { page, dialog, close } = await visit(world, team.owner, seatsOf(team));
    await dialog.getByText("1–20 of 45").waitFor();
    await dialog.getByRole("button", { name: "Next" }).click();
    await dialog.getByText("21–40 of 45").waitFor();
    await dialog.getByRole("button", { name: "Previous" }).click();
    await dialog.getByText("1–20 of 45").waitFor();
    const asked = new Set<string>();
    page.on("request", (request) => {
      const search = new URL(request.url()).searchParams.get("search");
      if (search !== null) asked.add(search);
    });
    // Typed in one go, so that a busy machine makes no pause.
    await dialog.getByRole("searchbox").evaluate((input, text) => {
      const value = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value");
      for (let end = 1; end <= text.length; end += 1) {
        value?.set?.call(input, text.slice(0, end));
        input.dispatchEvent(new Event("input", { bubbles: true }));
      }
    }, "person-07");
    await dialog.getByText("1–1 of 1").waitFor();
    assert.deepEqual([...asked], ["person-07"]);
    await dialog.getByRole("searchbox").fill("nobody-at-all");
    await dialog.getByText("Nobody fits the search and filters.").waitFor();
    await dialog.getByRole("button", { name: "Show everybody" }).click();
    await dialog.getByLabel("Filter by role").selectOption("owner");
    await dialog.getByText("1–1 of 1").waitFor();
    const [download] = await Promise.all([page.waitForEvent("download"), dialog.getByRole("button", { name: "CSV" }).click()]);
    const lines = readFileSync(await download.path(), "utf8").trim().split("\r\n");
    assert.equal(lines.length, 46);
    await close();
  });

  test("the page before is shown when the only person of the last page is removed", async () => {
    const members = Array.from({ length: 20 }, (_, number) => ({ email: `member-${String(number).padStart(2, "0")}@example.com` }));
    const team = await newTeam(world, 21, members);
    const { page, dialog, close } = await visit(world, team.owner, seatsOf(team));
    await dialog.getByRole("button", { name: "Next" }).click();
    await dialog.getByText("21–21 of 21").waitFor();
    await dialog.locator(".cs-row").getByRole("button", { name: /Actions/ }).click();
    await page.getByRole("menuitem", { name: "Remove…" }).click();
    await page.getByRole("alertdialog").getByRole("button", { name: "Remove" }).click();
    await dialog.getByText("1–20 of 20").waitFor();
    assert.equal(await dialog.locator(".cs-row").count(), 20);
    await close();
  });

  test("plans are bought and ended, cards are added, made default and removed, the profile is saved", async () => {
    const nova = `nova-${process.pid}@example.com`;
    const { page, close } = await visit(world, nova, "#/payment-methods");
    await page.getByText("There is no payment method yet.").waitFor();
    for (let card = 0; card < 2; card += 1) {
      await page.getByRole("button", { name: "Add card" }).click();
      const payment = page.getByRole("dialog");
      await payment.getByRole("button", { name: "Save card" }).click();
      await told(page, /The card was added/);
      await payment.waitFor({ state: "detached" });
    }
    await page.getByRole("button", { name: /^Make default/ }).first().click();
    await told(page, /is the default now/);
    const other = page.locator(".cs-line").filter({ has: page.getByRole("button", { name: /^Make/ }) });
    await other.getByRole("button", { name: /^Remove/ }).click();
    await page.getByRole("alertdialog").getByRole("button", { name: "Remove" }).click();
    await told(page, /was removed/);

    // The cards come late: the purchase waits for them, and takes the default.
    await page.route("**/payment-methods*", async (route) => {
      await new Promise((done) => setTimeout(done, 1500));
      await route.continue();
    });
    await page.goto(`${world.url}/?as=${nova}#/plans`);
    await page.getByRole("button", { name: "Buy Team plan" }).click();
    await page.getByLabel("Number of seats").fill("3");
    await page.getByRole("dialog").getByRole("button", { name: "Buy" }).click();
    await told(page, /You bought Team plan/);
    await page.unrouteAll({ behavior: "wait" });
    await page.getByRole("article", { name: "Team plan" }).getByRole("button", { name: "End…" }).click();
    await page.getByRole("alertdialog").getByRole("button", { name: "End subscription" }).click();
    await told(page, /The subscription ends on/);
    await page.getByRole("button", { name: "Keep the subscription" }).click();
    await told(page, /The subscription goes on/);

    await page.goto(`${world.url}/?as=${nova}#/invoices`);
    await page.getByText("$36.00").waitFor();
    await page.goto(`${world.url}/?as=${nova}#/profile`);
    await page.getByLabel("Name").fill("Nova Neumann");
    await page.getByRole("button", { name: "Save" }).click();
    await told(page, /The profile was saved/);
    await close();
  });

  test("a payment that was made is told as made, and waited for, even if its operation cannot be read", async () => {
    const buyer = `buyer-${process.pid}@example.com`;
    const { page, close } = await visit(world, buyer, "#/plans");
    await page.getByRole("button", { name: "Buy Team plan" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Buy" }).click();
    const pay = page.getByRole("dialog", { name: "Payment" }).getByRole("button", { name: "Pay" });
    await pay.waitFor();
    await page.route("**/v1/operations/*", (route) => route.fulfill({ status: 404, ...problem("not_found") }));
    await pay.click();
    await told(page, /You bought Team plan/);
    await close();

    const team = await newTeam(world, 1);
    await useCard(world, team.ownerId, "pm_card_threeDSecure2Required");
    const token = await tokenOf(world, team.owner);
    const { quote_id } = await atApi(world, "POST", `shared-subscriptions/${team.id}/quote`, { total: 2 }, token);
    await atApi(world, "PUT", `shared-subscriptions/${team.id}/seats`, { total: 2, quote_id }, token);
    const owner = await visit(world, team.owner, "#/subscriptions");
    await owner.page.getByRole("button", { name: "Finish payment" }).click();
    const states: string[] = [];
    await owner.page.route("**/v1/operations/*", async (route) => {
      const answer = (await (await route.fetch()).json()) as { state: string };
      // The first answer is from before Stripe told of the payment.
      if (states.length === 0) answer.state = "awaiting_payment";
      states.push(answer.state);
      await route.fulfill({ json: answer });
    });
    await owner.page.getByRole("dialog", { name: "Payment" }).getByRole("button", { name: "Pay" }).click();
    await owner.page.getByText("A purchase waits for its payment").waitFor({ state: "detached" });
    await owner.page.getByText(/2 seats/).first().waitFor();
    assert.deepEqual([states[0], states.at(-1)], ["awaiting_payment", "settled"]);
    await owner.close();
  });

  test("a person who is removed sees the people no longer, and the portal asks no more", async () => {
    const team = await newTeam(world, 3, [{ email: "rita@example.com", role: "manager" }]);
    const rita = await signUp(world, "rita@example.com", null);
    const { page, dialog, close } = await visit(world, "rita@example.com", seatsOf(team));
    await row(dialog, team.owner).waitFor();
    await dialog.getByLabel("Invite people by e-mail").fill("typed@example.com");
    await atApi(world, "PATCH", `shared-subscriptions/${team.id}/users`, { remove: [rita] }, await tokenOf(world, team.owner));
    await dialog.getByText("This does not exist, or you may not see it.").first().waitFor();
    await until(async () => (await dialog.locator(".cs-row").count()) === 0);
    const asked: string[] = [];
    page.on("request", (request) => asked.push(request.url()));
    await page.waitForTimeout(6_000);
    assert.deepEqual(asked, []);
    await close();
  });

  test("what is typed while invitations are sent stays, and so do the addresses that were not sent when the network ends", async () => {
    const team = await newTeam(world, 5);
    const { page, dialog, close } = await visit(world, team.owner, seatsOf(team));
    await dialog.locator(".cs-row").first().waitFor();
    let sent = 0;
    let goOn = () => {};
    const mayGoOn = new Promise<void>((resolve) => { goOn = resolve; });
    await page.route("**/invitations", async (route) => {
      if (route.request().method() !== "POST") return route.continue();
      sent += 1;
      if (sent > 1) return route.abort();
      await mayGoOn;
      return route.continue();
    });
    const addresses = dialog.getByLabel("Invite people by e-mail");
    await addresses.fill("one@example.com, two@example.com, three@example.com,");
    await dialog.getByRole("button", { name: "Invite", exact: true }).click();
    await until(async () => sent === 1);
    await addresses.fill("four@example.com,");
    goOn();
    await told(page, /1 invitation was sent/);
    const kept = (await dialog.locator(".cs-tag-text").allTextContents()).map((text) => /^.*?@example\.com/.exec(text)?.[0]);
    assert.deepEqual(kept, ["two@example.com", "three@example.com", "four@example.com"]);
    await dialog.locator(".cs-tag", { hasText: "two@example.com" }).getByText("could not be reached").waitFor();
    await page.unroute("**/invitations");
    await dialog.getByRole("button", { name: "Invite", exact: true }).click();
    await told(page, /3 invitations were sent/);
    assert.equal(await dialog.locator(".cs-tag").count(), 0);
    await close();
  });

  test("an addition buys the seats whose price was shown, also if somebody else buys some at the same time", async () => {
    const team = await newTeam(world, 1);
    const { page, dialog, close } = await visit(world, team.owner, seatsOf(team));
    await dialog.locator(".cs-row").first().waitFor();
    await dialog.getByLabel("Invite people by e-mail").fill("quoted@example.com, other@example.com,");
    await dialog.getByRole("button", { name: "Invite", exact: true }).click();
    await dialog.getByText("1 seat is missing").waitFor();
    const item = (await stripe("GET", `subscriptions/${team.id}`)).items.data[0].id as string;
    await stripe("POST", `subscription_items/${item}`, { quantity: 2, proration_behavior: "none" });
    await hasText(dialog.getByTestId("counts"), /^2 seats/);
    const totals: number[] = [];
    await page.route("**/seats", (route) => {
      totals.push(route.request().postDataJSON().total);
      return route.continue();
    });
    await dialog.getByRole("button", { name: "Buy 1 seat and invite" }).click();
    await until(async () => totals.length > 0);
    assert.deepEqual(totals, [2]);
    await close();
  });

  test("a price that has expired is read again before it can be confirmed again", async () => {
    const team = await newTeam(world, 2);
    const { page, close } = await visit(world, team.owner, "#/subscriptions");
    await page.getByRole("button", { name: "Change", exact: true }).click();
    const change = page.getByRole("dialog");
    await change.getByLabel("Quantity").fill("3");
    let refused = "";
    await page.route(`**/v1/subscriptions/${team.id}`, (route) => {
      if (route.request().method() !== "PATCH" || refused !== "") return route.continue();
      refused = route.request().postDataJSON().quote_id;
      return route.fulfill({ status: 409, ...problem("quote_expired") });
    });
    const confirm = change.getByRole("button", { name: "Change subscription" });
    await confirm.click();
    await until(async () => refused !== "");
    const [request] = await Promise.all([page.waitForRequest((one) => one.method() === "PATCH"), confirm.click()]);
    assert.notEqual(request.postDataJSON().quote_id, refused);
    await told(page, /changed/);
    await close();
  });

  test("the number of seats follows what others change until the person chooses one", async () => {
    const team = await newTeam(world, 2);
    const { dialog, close } = await visit(world, team.owner, seatsOf(team));
    await hasText(dialog.getByTestId("counts"), /^2 seats/);
    await dialog.getByRole("button", { name: "Change seats" }).click();
    const item = (await stripe("GET", `subscriptions/${team.id}`)).items.data[0].id as string;
    await stripe("POST", `subscription_items/${item}`, { quantity: 4, proration_behavior: "none" });
    await hasText(dialog.getByTestId("counts"), /^4 seats/);
    assert.equal(await dialog.getByLabel("Number of seats").inputValue(), "4");
    await close();
  });
});

/** A refusal as the API answers it. */
function problem(code: string) {
  const body = JSON.stringify({ type: "about:blank", title: "x", detail: "x", request_id: "req_x", code });
  return { contentType: "application/problem+json", body };
}
