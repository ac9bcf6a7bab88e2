/** Every named state by the rules of WCAG 2.2 AA, and what a keyboard and a screen reader find. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Page } from "playwright-core";
import { misfits, violations } from "./access.ts";
import { opened, prepare, type Prepared, type State, STATES } from "./states.ts";
import { MEMBER, newTeam, OWNER, row, SEATS, seatsOf, startWorld, told, until, visit, type World } from "./world.ts";

let world: World;
let prepared: Prepared;

before(async () => {
  world = await startWorld();
  prepared = await prepare(world);
});
after(() => world?.stop());

const PSEUDO = "ar-XB";
const PHONE = { width: 320, height: 640 };

/** Resolves once the page is drawn as it is now. Colours change in the frames after this one, even if it takes 0.01 ms. */
async function drawn(page: Page): Promise<void> {
  await page.evaluate(async () => {
    const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
    await frame();
    await Promise.all(document.getAnimations().map((animation) => animation.finished));
    await frame();
  });
}

async function inTheDark(page: Page): Promise<void> {
  await page.evaluate(() => document.querySelector(".coseat")?.setAttribute("data-theme", "dark"));
  await drawn(page);
}

/** Makes the open page that of a phone, in the pseudo-locale. */
async function onAPhone(page: Page): Promise<void> {
  await page.setViewportSize(PHONE);
  await page.locator(".cs-footer select").first().evaluate((element, locale) => {
    (element as HTMLSelectElement).value = locale;
    element.dispatchEvent(new Event("change", { bubbles: true }));
  }, PSEUDO);
  await page.locator(".coseat[dir=rtl]").waitFor();
  await drawn(page);
}

assert.ok(STATES.length >= 25);
describe("states", { concurrency: 3 }, () => {
  for (const state of STATES) {
    test(`${state.name}: no violation and no misfit in light, in dark, and at 320 px from right to left with longer texts`, async () => {
      let { page, close } = await opened(world, state, prepared);
      try {
        assert.deepEqual(await violations(page), []);
        await inTheDark(page);
        assert.deepEqual(await violations(page), []);
        assert.deepEqual(await misfits(page), []);
        if (state.isFixed) {
          await close();
          ({ page, close } = await opened(world, state, prepared, { ...PHONE, locale: PSEUDO }));
        } else {
          await onAPhone(page);
          await page.locator(state.shows).first().waitFor();
        }
        assert.deepEqual(await violations(page), []);
        assert.deepEqual(await misfits(page), []);
      } finally {
        await close();
      }
    });
  }
});

/** Faults that are planted into the open seat dialog, and what has to be said of each. */
const FAULTS: [string, string, RegExp][] = [
  ["a button without a name", "document.querySelector('.cs-row-menu button').removeAttribute('aria-label'); document.querySelector('.cs-row-menu button').removeAttribute('title')", /button-name/],
  ["a field without a label", "document.querySelector('.cs-search input').removeAttribute('aria-label'); document.querySelector('.cs-search input').removeAttribute('placeholder')", /label/],
  ["a text that is too pale", "document.querySelector('.cs-row-email').style.color = '#bbb'", /color-contrast/],
  ["a role that does not exist", "document.querySelector('.cs-rows').setAttribute('role', 'rows')", /aria-roles/],
  ["a list with what is no item", "document.querySelector('.cs-rows').prepend(document.createElement('div'))", /list:/],
  ["a target that is too small", "document.querySelector('.cs-modal .cs-icon-button').style.cssText = 'inline-size:16px;min-block-size:16px;block-size:16px'", /a target of 16/],
  ["a text that is cut off", "document.querySelector('.cs-row-name').style.cssText = 'inline-size:20px;overflow:hidden;white-space:nowrap;flex-wrap:nowrap'", /cut off/],
  ["a line that is too wide", "document.querySelector('.cs-contact, .cs-pages').style.cssText = 'min-inline-size:200vw'", /sideways/],
];
test("planted faults are caught", async (t) => {
  const { page, dialog, close } = await opened(world, STATES[0] as State, prepared);
  for (const [name, script, expected] of FAULTS) {
    await t.test(name, async () => {
      await page.evaluate(script);
      assert.match([...(await violations(page)), ...(await misfits(page))].join("\n"), expected);
    });
    await page.reload();
    await dialog.locator(".cs-rows").waitFor();
  }
  await close();
});

test("the focus goes into the dialog, stays there, and returns to the button that opened it", async () => {
  const { page, dialog, close } = await visit(world, OWNER, "#/subscriptions");
  const opener = page.getByRole("button", { name: "Seats and people" });
  await opener.focus();
  await page.keyboard.press("Enter");
  await dialog.locator(".cs-row").first().waitFor();
  const isInside = () => page.evaluate(() => document.querySelector("[role=dialog]")?.contains(document.activeElement));
  assert.equal(await isInside(), true);
  for (let press = 0; press < 40; press += 1) {
    await page.keyboard.press(press % 7 === 6 ? "Shift+Tab" : "Tab");
    assert.equal(await isInside(), true, `after ${press + 1} presses`);
  }
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  await until(() => opener.evaluate((element) => element === document.activeElement));
  await close();
});

test("Escape asks before it loses what was typed, and nothing is lost when the answer is no", async () => {
  const { page, dialog, close } = await visit(world, prepared.team.owner, seatsOf(prepared.team));
  await dialog.getByLabel("Invite people by e-mail").fill("someone@example.com");
  await page.keyboard.press("Escape");
  const question = page.getByRole("alertdialog", { name: "Discard what you typed?" });
  await question.getByRole("button", { name: "Keep editing" }).click();
  await dialog.locator(".cs-tag, .cs-addresses-input").first().waitFor();
  assert.match(await dialog.locator(".cs-addresses").innerHTML(), /someone@example\.com/);
  await page.keyboard.press("Escape");
  await question.getByRole("button", { name: "Discard" }).click();
  await dialog.waitFor({ state: "detached" });
  await close();
});

test("what was typed stays after a failure, and the reason is read out", async () => {
  const { page, dialog, context, close } = await visit(world, prepared.team.owner, seatsOf(prepared.team));
  await dialog.locator(".cs-row").first().waitFor();
  await dialog.getByLabel("Invite people by e-mail").fill("kept@example.com,");
  await context.setOffline(true);
  await dialog.getByRole("button", { name: "Invite", exact: true }).click();
  await dialog.getByRole("alert").filter({ hasText: "could not be reached" }).first().waitFor();
  assert.deepEqual(await dialog.locator(".cs-tag-text").allTextContents(), ["kept@example.com"]);
  await context.setOffline(false);
  await dialog.getByRole("button", { name: "Invite", exact: true }).click();
  await told(page, /1 invitation was sent/);
  await close();
});

test("the whole dialog works by keyboard alone", async () => {
  const team = await newTeam(world, 3, [{ email: "zoe@example.com" }]);
  const { page, dialog, close } = await visit(world, team.owner, seatsOf(team));
  await row(dialog, "zoe@example.com").waitFor();
  /** Presses Tab until an element with this name has the focus. */
  const tabTo = async (name: RegExp) => {
    for (let press = 0; press < 60; press += 1) {
      const label = await page.evaluate(() => {
        const element = document.activeElement as HTMLInputElement | null;
        const labels = element?.labels ? [...element.labels].map((one) => one.textContent) : [];
        return [element?.getAttribute("aria-label"), ...labels, element?.matches("button, a, [role=tab]") && element.textContent].filter(Boolean).join(" ");
      });
      if (name.test(label)) return;
      await page.keyboard.press("Tab");
    }
    throw new Error(`Tab never reaches ${name}.`);
  };

  await tabTo(/Invite people by e-mail/);
  await page.keyboard.type("yan@example.com");
  await page.keyboard.press("Enter");
  await tabTo(/^Invite$/);
  await page.keyboard.press("Enter");
  await told(page, /1 invitation was sent/);

  await tabTo(/Change seats/);
  await page.keyboard.press("Enter");
  await tabTo(/One seat more/);
  await page.keyboard.press("Space");
  await dialog.getByRole("button", { name: /^Buy 1 seat/ }).waitFor();
  await tabTo(/^Buy 1 seat/);
  await page.keyboard.press("Enter");
  await told(page, /You have 4 seats now/);

  await tabTo(/Role of zoe/);
  await page.keyboard.press("ArrowDown");
  await told(page, /has the role Manager now/);

  await tabTo(/Actions for zoe/);
  await page.keyboard.press("Enter");
  await page.getByRole("menu").waitFor();
  await page.keyboard.press("End");
  // The menu moves the focus after the key's own event.
  await page.locator("[role=menuitem]:focus", { hasText: "Remove" }).waitFor();
  await page.keyboard.press("Enter");
  await page.getByRole("alertdialog").waitFor();
  await tabTo(/^Remove$/);
  await page.keyboard.press("Enter");
  await told(page, /zoe@example\.com was removed/);

  await tabTo(/^People$/);
  await page.keyboard.press("ArrowRight");
  await dialog.locator(".cs-row-invitation").first().waitFor();
  await page.keyboard.press("ArrowRight");
  await dialog.locator(".cs-history .cs-row").first().waitFor();
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  await close();
});

test("nothing moves when motion is unwelcome, and edges stay visible in forced colours", async () => {
  const { page, dialog, close } = await visit(world, MEMBER, SEATS, { forcedColors: true });
  await dialog.locator(".cs-row").first().waitFor();
  const durations = await page.evaluate(() =>
    [...document.querySelectorAll(".coseat *")].flatMap((element) => {
      const style = getComputedStyle(element);
      return [style.animationDuration, style.transitionDuration].flatMap((text) => text.split(",").map(Number.parseFloat));
    }),
  );
  assert.ok(Math.max(...durations) <= 0.001, `${Math.max(...durations)} s`);
  const edge = await dialog.evaluate((element) => getComputedStyle(element).borderTopStyle);
  assert.equal(edge, "solid");
  assert.deepEqual(await violations(page), []);
  await close();
});
