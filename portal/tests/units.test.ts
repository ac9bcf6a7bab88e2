/** What needs no browser: addresses, files, amounts, messages, and the portal's own checks. */
import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { parse } from "@formatjs/icu-messageformat-parser";
import { IntlMessageFormat } from "intl-messageformat";
import { check } from "../scripts/lint.mjs";
import { pseudoLocalised } from "../scripts/pseudo.ts";
import { formats } from "../src/format.ts";
import { pathOf, routeOf } from "../src/page/routing.ts";
import { pricedIn, priceText } from "../src/screens/prices.ts";
import { addressesOf, joined } from "../src/seats/addresses.ts";
import { csvOf } from "../src/seats/csv.ts";
import { words } from "./words.ts";

const SOURCES = fileURLToPath(new URL("../src", import.meta.url));

test("addresses are split at commas, semicolons, spaces and lines, and taken out of names", () => {
  const found = addressesOf('Ann Lee <ann@example.com>, bob@example.com;carl@example.com\n dora@example.com "nonsense');
  assert.deepEqual(
    found.map(({ text, problem }) => [text, problem === null]).sort(),
    [['"nonsense', false], ["ann@example.com", true], ["bob@example.com", true], ["carl@example.com", true], ["dora@example.com", true]],
  );
});

test("an address is kept once, whatever the case of its ASCII letters", () => {
  assert.deepEqual(
    joined(addressesOf("Ann@Example.com"), addressesOf("ann@example.com bob@example.com")).map((one) => one.text),
    ["Ann@Example.com", "bob@example.com"],
  );
});

test("a cell that a spreadsheet would take as a formula becomes text", () => {
  for (const sign of ["=", "+", "-", "@", "\t", "\r", "\n"]) assert.equal(csvOf([[`${sign}1+1`]]), `"'${sign}1+1"\r\n`);
  assert.equal(csvOf([['say "hi"', "a,b"]]), '"say ""hi""","a,b"\r\n');
});

test("amounts have the decimals that Stripe counts, in the words of each language", () => {
  const [english, german] = [formats("en"), formats("de")];
  assert.equal(english.money(1234, "usd"), "$12.34");
  assert.equal(english.money(1234, "jpy"), "¥1,234");
  assert.equal(english.money(-1200, "eur"), "-€12.00");
  assert.equal(english.money(12345, "kwd").replace("\u00a0", " "), "KWD 12.345");
  assert.equal(german.money(123456, "eur").replace("\u00a0", " "), "1.234,56 €");
});

test("a price is told by its first tier, its decimals and its packages", () => {
  const coseat = { t: words("en"), format: formats("en") };
  const recurring = { interval: "month", interval_count: 1, meter: null, usage_type: "licensed" } as const;
  const plain = {
    id: "price_1", currency: "usd", recurring, unit_amount: null, unit_amount_decimal: null, tiers: null, transform_quantity: null,
  };
  const tier = { up_to: null, unit_amount: null, unit_amount_decimal: null, flat_amount: null, flat_amount_decimal: null };
  const told = (price: object) => priceText(coseat, { ...plain, ...price });
  assert.equal(told({ unit_amount: 1200, unit_amount_decimal: "1200" }), "$12.00 per month");
  assert.equal(told({ unit_amount_decimal: "0.25" }), "$0.0025 per month");
  assert.equal(told({ tiers: [{ ...tier, unit_amount: 500, unit_amount_decimal: "500" }] }), "from $5.00 per month");
  assert.equal(told({ tiers: [{ ...tier, flat_amount: 1000, flat_amount_decimal: "1000" }] }), "from $10.00 per month");
  assert.equal(told({ tiers: [{ ...tier, unit_amount: 500, flat_amount: 1000, flat_amount_decimal: "1000" }] }), "from $15.00 per month");
  assert.equal(told({ tiers: [{ ...tier, unit_amount_decimal: "0.5" }] }), "from $0.005 per month");
  assert.equal(told({ unit_amount: 1200, transform_quantity: { divide_by: 5, round: "up" } }), "$12.00 for each 5 per month");
  assert.equal(told({}), "");
});

test("a price is told in a currency that it is offered in, also by its tiers, and otherwise in its own", () => {
  const coseat = { t: words("en"), format: formats("en") };
  const recurring = { interval: "month", interval_count: 1, meter: null, usage_type: "licensed" } as const;
  const tier = { up_to: null, unit_amount: 500, unit_amount_decimal: "500", flat_amount: null, flat_amount_decimal: null };
  const plain = { unit_amount: null, unit_amount_decimal: null, tax_behavior: null, tiers: null };
  const rest = { id: "price_1", currency: "usd", recurring, transform_quantity: null, billing_scheme: "tiered", tiers_mode: "graduated", type: "recurring" } as const;
  const told = (options: object, currency: string | null) =>
    priceText(coseat, pricedIn({ ...plain, ...rest, tiers: [tier], currency_options: { eur: { ...plain, ...options } } }, currency));
  assert.equal(told({ tiers: [{ ...tier, unit_amount: 450, unit_amount_decimal: "450" }] }, "eur"), "from €4.50 per month");
  assert.equal(told({ unit_amount: 400, unit_amount_decimal: "400" }, "eur"), "€4.00 per month");
  for (const currency of ["usd", "gbp", null]) assert.equal(told({ unit_amount: 400 }, currency), "from $5.00 per month");
});

test("an address that names no screen, or cannot be decoded, is the start", () => {
  assert.deepEqual(routeOf(pathOf("shared", "sub_a/b %")), { screen: "shared", id: "sub_a/b %", isStart: false });
  assert.deepEqual(routeOf(""), { screen: "subscriptions", id: null, isStart: true });
  assert.deepEqual(routeOf("#/shared/%"), { screen: "subscriptions", id: null, isStart: true });
  assert.deepEqual(routeOf("#/nowhere"), { screen: "subscriptions", id: null, isStart: false });
});

test("plurals differ by count in every language", () => {
  for (const [language, one, other] of [["en", "1 seat", "2 seats"], ["de", "1 Platz", "2 Plätze"]] as const) {
    const texts = JSON.parse(readFileSync(join(SOURCES, `messages/${language}.json`), "utf8")) as Record<string, string>;
    const message = new IntlMessageFormat(parse(texts["count.total"] ?? ""), language);
    assert.deepEqual([message.format({ count: 1 }), message.format({ count: 2 })], [one, other]);
  }
});

test("the pseudo-locale is at least 40 % longer, and keeps its arguments", () => {
  const texts = JSON.parse(readFileSync(join(SOURCES, "messages/en.json"), "utf8")) as Record<string, string>;
  for (const text of Object.values(texts).filter((one) => !one.includes("{"))) {
    const pseudo = String(new IntlMessageFormat(pseudoLocalised(parse(text)), "en").format());
    assert.ok(pseudo.length >= text.length * 1.4, `${pseudo} for ${text}`);
    assert.doesNotMatch(pseudo, /[a-z]/, "a letter without an accent shows a text outside of the messages");
  }
  const message = new IntlMessageFormat(pseudoLocalised(parse("Remove {name}?")), "en");
  assert.match(String(message.format({ name: "Ann" })), /Ann/);
});

/** Each fault, and what the check says of it. */
const FAULTS: [string, (sources: string) => void, RegExp][] = [
  ["a text in JSX", (sources) => append(sources, "ui/Fault.tsx", "export const Fault = () => <p>Hello</p>;"), /Fault\.tsx:1.*Hello/],
  ["a text in an attribute", (sources) => append(sources, "ui/Fault.tsx", 'export const Fault = () => <p title="Hello" />;'), /Fault\.tsx:1.*Hello/],
  ["a choice of texts", (sources) => append(sources, "ui/Fault.tsx", 'export const Fault = ({ a }: { a: boolean }) => <p>{a ? "Yes" : null}</p>;'), /Fault\.tsx:1/],
  ["an unused key", (sources) => edit(sources, "en", (texts) => { texts["fault.unused"] = "x"; }), /"fault\.unused" is used nowhere/],
  ["a missing key", (sources) => edit(sources, "en", (texts) => { delete texts["dialog.close"]; }), /"dialog\.close" is in no message file/],
  ["a key without translation", (sources) => edit(sources, "de", (texts) => { delete texts["dialog.close"]; }), /de\.json: "dialog\.close" is missing/],
  ["another argument", (sources) => edit(sources, "de", (texts) => { texts["remove.title"] = "{nam} entfernen?"; }), /takes \(nam\) instead of \(name\)/],
  ["a broken message", (sources) => edit(sources, "de", (texts) => { texts["remove.title"] = "{name entfernen?"; }), /is no ICU message/],
  ["a physical side", (sources) => append(sources, "ui/fault.css", ".a { margin-left: 1px; }"), /fault\.css:1: a physical side/],
  ["a service key", (sources) => append(sources, "ui/fault.ts", 'export const key = "csk_abc";'), /holds what only a server may have/],
];

for (const [name, plant, expected] of FAULTS) {
  test(`the check catches ${name}`, () => {
    const sources = mkdtempSync(join(tmpdir(), "coseat-lint-"));
    try {
      cpSync(SOURCES, sources, { recursive: true });
      plant(sources);
      assert.match(check(sources).problems.join("\n"), expected);
    } finally {
      rmSync(sources, { recursive: true });
    }
  });
}

function append(sources: string, file: string, code: string) {
  writeFileSync(join(sources, file), code);
}

function edit(sources: string, language: string, change: (texts: Record<string, string>) => void) {
  const file = join(sources, `messages/${language}.json`);
  const texts = JSON.parse(readFileSync(file, "utf8")) as Record<string, string>;
  change(texts);
  writeFileSync(file, JSON.stringify(texts));
}
