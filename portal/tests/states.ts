/**
 * The states of the portal by name, for the rules of access and for pictures. A state that the service reaches only
 * after hours, or by accident, is made from its real answer by changing that answer on its way to the browser.
 */
import type { Page, Route } from "playwright-core";
import type { MessageKey } from "../src/i18n.ts";
import {
  atApi, type Look, MANAGER, MEMBER, newTeam, OWNER, seatsOf, SEATS, STRANGER, tokenOf, type Team, visit, type Visitor, type World,
} from "./world.ts";
import { type Words, words } from "./words.ts";

export interface Prepared {
  team: Team;
  invitation: string;
}

/** Makes what the states show: a team with open and ended invitations and a member who was never seen. */
export async function prepare(world: World): Promise<Prepared> {
  const team = await newTeam(world, 6, [
    { email: "ada.lovelace@example.com", role: "manager" },
    { email: "charles.babbage@example.com" },
  ]);
  const token = await tokenOf(world, team.owner);
  await atApi(world, "PATCH", "customers/me", { name: "Grace Hopper" }, token);
  const invite = (email: string) =>
    atApi(world, "POST", `shared-subscriptions/${team.id}/invitations`, { email }, token);
  const withdrawn = await invite("konrad.zuse@example.com");
  await atApi(world, "DELETE", `shared-subscriptions/${team.id}/invitations/${withdrawn["invitation"].id}`, undefined, token);
  const open = await atApi(world, "POST", `shared-subscriptions/${team.id}/invitations`, { email: "mary.jackson@example.com" });
  return { team, invitation: String(open["token"]) };
}

export interface State {
  name: string;
  /** Who sees it: the owner of the prepared team without a word. */
  who?: string;
  path?: string;
  /** What is changed on the way to the browser, before the page is opened. */
  before?: (visitor: Pick<Visitor, "page" | "context">, prepared: Prepared) => Promise<unknown>;
  /** What the person does to get there. */
  reach?: (visitor: Visitor, t: Words, prepared: Prepared) => Promise<unknown>;
  /** The element that shows the state. */
  shows: string;
  /** True if the state does not outlast a change of language: it is reached again in each. */
  isFixed?: true;
}

/** Opens the portal in a state. */
export async function opened(world: World, state: State, prepared: Prepared, look: Look = {}): Promise<Visitor> {
  const path = state.path === "INVITATION" ? `#/invitations/${prepared.invitation}` : (state.path ?? seatsOf(prepared.team));
  const visitor = await visit(world, state.who ?? prepared.team.owner, path, look, async (early) => state.before?.(early, prepared));
  try {
    await state.reach?.(visitor, words(look.locale ?? "en"), prepared);
    await visitor.page.locator(state.shows).first().waitFor();
    return visitor;
  } catch (error) {
    await visitor.close();
    throw error;
  }
}

type Json = Record<string, any>;

/** Changes the answers of a route. */
function changed(pattern: string, change: (answer: Json) => Json): NonNullable<State["before"]> {
  return ({ page }) =>
    page.route(pattern, async (route: Route) => {
      const response = await route.fetch();
      await route.fulfill({ response, json: change((await response.json()) as Json), headers: { "content-type": "application/json" } });
    });
}

const SHARED = "**/v1/shared-subscriptions/*";
const USERS = "**/v1/shared-subscriptions/*/users?*";

function failing(pattern: string, status: number, problem: Json): NonNullable<State["before"]> {
  return ({ page }) =>
    page.route(pattern, (route) =>
      route.fulfill({
        status,
        contentType: "application/problem+json",
        body: JSON.stringify({ type: "about:blank", title: "x", detail: "x", request_id: "req_x", status, ...problem }),
      }),
    );
}

const PAYMENT = {
  kind: "payment",
  status: "requires_action",
  client_secret: "pi_x_secret_x",
  payment_method_id: null,
  decline_code: null,
  hosted_invoice_url: null,
};

const unpaid = changed(SHARED, (answer) => ({
  subscription: {
    ...answer["subscription"],
    pending_change: { expires_at: "2030-01-02T03:04:05Z", operation_id: "op_x", payment: PAYMENT },
  },
}));

const answered = (status: number, body: Json) => async ({ page }: { page: Page }) =>
  page.route("**/dev/payment", (route) => route.fulfill({ status, json: body }));

/** Presses what has this text. */
function pressing(key: MessageKey, role: "button" | "tab" | "menuitem" = "button") {
  return ({ page }: Visitor, t: Words) => page.getByRole(role, { name: t(key), exact: true }).first().click();
}

const openPayment = pressing("payment.finish");

async function openMenu({ dialog }: Visitor, who: string) {
  await dialog.locator(".cs-row").filter({ hasText: who }).locator(".cs-row-menu button").click();
}

async function stepTo(visitor: Visitor, t: Words, wanted: string) {
  await pressing("seats.change")(visitor, t);
  await visitor.dialog.getByLabel(t("stepper.label")).fill(wanted);
}

async function type({ dialog }: Visitor, t: Words, text: string) {
  await dialog.getByLabel(t("add.addresses")).fill(text);
}

export const STATES: State[] = [
  { name: "seats", shows: ".cs-rows" },
  { name: "seats-loading", before: async ({ page }) => page.route(USERS, () => {}), shows: ".cs-list .cs-loading" },
  { name: "seats-error", before: failing(USERS, 502, { code: "stripe_unavailable" }), shows: ".cs-notice-error" },
  {
    name: "seats-offline",
    reach: async ({ page, context }) => {
      await page.locator(".cs-rows").waitFor();
      await context.setOffline(true);
    },
    shows: ".cs-notice-warning",
    isFixed: true,
  },
  {
    name: "seats-none-found",
    reach: async ({ dialog }) => dialog.getByRole("searchbox").fill("nobody at all"),
    shows: ".cs-list .cs-empty button",
  },
  {
    name: "seats-empty",
    before: changed(USERS, (answer) => ({ ...answer, data: [], total_count: 0 })),
    shows: ".cs-list .cs-empty",
  },
  {
    name: "seats-over-allocated",
    before: changed(SHARED, (answer) => {
      const subscription = answer["subscription"];
      const seats = { total: 3, used: 4, reserved: 1, available: 0, over_allocated: 2 };
      return { subscription: { ...subscription, shared: { ...subscription.shared, seats } } };
    }),
    shows: ".cs-count-over",
  },
  { name: "seats-stepper", reach: (visitor, t) => stepTo(visitor, t, "6"), shows: ".cs-stepper" },
  { name: "seats-quote", reach: (visitor, t) => stepTo(visitor, t, "8"), shows: ".cs-quote-line .cs-button-primary" },
  { name: "seats-credit", reach: (visitor, t) => stepTo(visitor, t, "5"), shows: ".cs-quote-line .cs-button-primary" },
  { name: "seats-floor", reach: (visitor, t) => stepTo(visitor, t, "1"), shows: ".cs-stepper-line .cs-error" },
  {
    name: "seats-quote-refused",
    before: failing("**/quote", 409, { code: "operation_in_progress" }),
    reach: (visitor, t) => stepTo(visitor, t, "8"),
    shows: ".cs-quote .cs-error",
  },
  {
    name: "seats-addresses",
    reach: (visitor, t) => type(visitor, t, "nonsense, hedy.lamarr@example.com,"),
    shows: ".cs-tag[data-bad]",
  },
  {
    name: "seats-missing",
    before: changed(SHARED, (answer) => {
      const subscription = answer["subscription"];
      const seats = { ...subscription.shared.seats, total: 4, available: 0 };
      return { subscription: { ...subscription, shared: { ...subscription.shared, seats } } };
    }),
    reach: async (visitor, t) => {
      await visitor.dialog.getByLabel(t("add.way")).selectOption("add");
      const many = Array.from({ length: 4 }, (_, number) => `new-${number}@example.com`).join(",");
      await type(visitor, t, `${many},`);
      await pressing("add.submit_add")(visitor, t);
    },
    shows: ".cs-add .cs-amounts",
  },
  {
    name: "seats-refused",
    before: failing("**/invitations", 409, { code: "already_member" }),
    reach: async (visitor, t) => {
      await type(visitor, t, "ada.lovelace@example.com,");
      await pressing("add.submit_invite")(visitor, t);
    },
    shows: ".cs-tag-problem",
  },
  { name: "seats-menu", reach: (visitor) => openMenu(visitor, "charles.babbage"), shows: ".cs-menu" },
  {
    name: "seats-remove",
    reach: async (visitor, t) => {
      await openMenu(visitor, "charles.babbage");
      await pressing("person.remove", "menuitem")(visitor, t);
      await visitor.page.getByRole("radio").nth(1).check();
    },
    shows: ".cs-modal-confirm .cs-choice:has(:checked)",
  },
  {
    name: "seats-make-owner",
    reach: async (visitor, t) => {
      await openMenu(visitor, "ada.lovelace");
      await pressing("person.transfer", "menuitem")(visitor, t);
    },
    shows: ".cs-modal-confirm select",
  },
  {
    name: "seats-ownership-offered",
    before: changed("**/transfer", () => ({
      transfer: {
        allow_purchases: false, created_at: "2029-12-20T00:00:00Z", expires_at: "2030-01-02T00:00:00Z", state: "offered",
        from_customer_id: "cus_x", to_customer_id: "cus_y", keep_me_as: null, operation_id: null, subscription_id: "sub_x",
      },
    })),
    shows: ".cs-notice-info",
  },
  {
    name: "seats-in-progress",
    before: changed(USERS, (answer) => ({
      ...answer,
      data: answer["data"].map((person: Json, place: number) => (place === 2 ? { ...person, state: "pending" } : person)),
    })),
    shows: '.cs-row[data-state="pending"]',
  },
  { name: "seats-unpaid", before: unpaid, shows: ".cs-notice-warning .cs-button-primary" },
  { name: "payment", before: unpaid, reach: openPayment, shows: ".cs-modal-narrow select" },
  {
    name: "payment-bank",
    before: unpaid,
    reach: async (visitor, t) => {
      await openPayment(visitor, t);
      await visitor.page.getByLabel(t("payment.card"), { exact: true }).selectOption("pm_card_threeDSecure2Required");
      await pressing("payment.pay")(visitor, t);
    },
    shows: ".cs-bank",
  },
  {
    name: "payment-declined",
    before: async (visitor, prepared) => {
      await unpaid(visitor, prepared);
      await answered(402, { code: "card_declined", decline_code: "generic_decline" })(visitor);
    },
    reach: async (visitor, t) => {
      await openPayment(visitor, t);
      await pressing("payment.pay")(visitor, t);
    },
    shows: ".cs-modal-narrow .cs-notice-error",
    isFixed: true,
  },
  {
    name: "discard",
    reach: async (visitor, t) => {
      await type(visitor, t, "hedy.lamarr@example.com,");
      await visitor.page.keyboard.press("Escape");
    },
    shows: ".cs-modal-confirm",
  },
  {
    name: "invitations",
    reach: pressing("tab.invitations", "tab"),
    shows: ".cs-row-invitation",
  },
  {
    name: "history",
    reach: pressing("tab.history", "tab"),
    // People stand in it by what the list calls them.
    shows: '.cs-history .cs-row:has-text("ada.lovelace@example.com · "):has-text("Grace Hopper")',
  },
  {
    name: "told",
    reach: pressing("people.csv"),
    isFixed: true,
    shows: '.cs-toast[data-shown="true"]',
  },
  { name: "manager", who: MANAGER, path: SEATS, shows: ".cs-rows" },
  { name: "member", who: MEMBER, path: SEATS, shows: ".cs-contact" },
  {
    name: "leave",
    who: MEMBER,
    path: SEATS,
    reach: async (visitor, t) => {
      await openMenu(visitor, "Uma User");
      await pressing("person.leave", "menuitem")(visitor, t);
    },
    shows: ".cs-modal-confirm",
  },
  {
    name: "payer",
    before: changed(SHARED, (answer) => {
      const subscription = answer["subscription"];
      const owner = { customer_id: "cus_x", name: "Ada Lovelace", email: "ada.lovelace@example.com" };
      return { subscription: { ...subscription, role: "payer", shared: { ...subscription.shared, owner, owner_may_purchase: false } } };
    }),
    shows: ".cs-contact",
  },
  { name: "stranger", who: STRANGER, path: SEATS, shows: ".cs-notice-error" },
  { name: "subscriptions", who: OWNER, path: "#/subscriptions", shows: ".cs-card" },
  { name: "subscriptions-empty", who: STRANGER, path: "#/subscriptions", shows: ".cs-empty" },
  {
    name: "subscription-change",
    who: OWNER,
    path: "#/subscriptions",
    reach: async (visitor, t) => {
      await pressing("subscription.change")(visitor, t);
      await visitor.page.getByLabel(t("change.quantity")).fill("7");
    },
    shows: ".cs-quote .cs-amounts",
  },
  {
    name: "subscription-end",
    who: OWNER,
    path: "#/subscriptions",
    reach: pressing("subscription.end"),
    shows: ".cs-modal-confirm .cs-choice",
  },
  { name: "plans", path: "#/plans", shows: ".cs-card" },
  {
    name: "buy",
    path: "#/plans",
    reach: async ({ page }) => page.locator(".cs-card button").first().click(),
    shows: ".cs-modal-narrow",
  },
  { name: "invoices", path: "#/invoices", shows: ".cs-line" },
  { name: "invoices-empty", who: STRANGER, path: "#/invoices", shows: ".cs-empty" },
  { name: "payment-methods", path: "#/payment-methods", shows: ".cs-line" },
  {
    name: "payment-method-remove",
    path: "#/payment-methods",
    reach: async ({ page }) => page.locator(".cs-line button").last().click(),
    shows: ".cs-modal-confirm",
  },
  { name: "profile", path: "#/profile", shows: ".cs-form" },
  { name: "accept", who: STRANGER, path: "INVITATION", shows: "article.cs-card" },
  { name: "accept-unknown", who: STRANGER, path: "#/invitations/nothing", shows: ".cs-empty" },
  {
    name: "somebody-new",
    path: "#/plans",
    reach: async ({ page }) => {
      await page.locator(".cs-person").click();
      await page.locator(".cs-menu-item").last().click();
    },
    shows: ".cs-modal-narrow",
  },
  {
    name: "nobody",
    before: async ({ page }) => page.route("**/dev/people", (route) => route.fulfill({ status: 404 })),
    shows: ".cs-notice-info",
    isFixed: true,
  },
];
