/** The portal's texts in Node, so that a state is reached in any language. */
import { readFileSync } from "node:fs";
import { parse } from "@formatjs/icu-messageformat-parser";
import { IntlMessageFormat } from "intl-messageformat";
import { pseudoLocalised } from "../scripts/pseudo.ts";
import type { Translate } from "../src/i18n.ts";

export type Words = Translate;

export function words(locale: "en" | "de" | "ar-XB"): Words {
  const file = new URL(`../src/messages/${locale === "de" ? "de" : "en"}.json`, import.meta.url);
  const texts = JSON.parse(readFileSync(file, "utf8")) as Record<string, string>;
  return (key, values) => {
    const elements = parse(texts[key] ?? "");
    const message = locale === "ar-XB" ? pseudoLocalised(elements) : elements;
    return String(new IntlMessageFormat(message, locale === "de" ? "de" : "en").format(values));
  };
}
