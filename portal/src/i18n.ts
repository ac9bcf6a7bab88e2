import { IntlMessageFormat } from "intl-messageformat";
import type english from "./messages/en.json";

export type MessageKey = keyof typeof english;
export type Values = Record<string, string | number | Date>;
export type Translate = (key: MessageKey, values?: Values) => string;

type Messages = Record<MessageKey, ConstructorParameters<typeof IntlMessageFormat>[0]>;
/** The build turns a file of messages into parsed ones. The types that TypeScript sees are those of the file. */
const parsed = (module: { default: unknown }) => module.default as Messages;

export interface Language {
  /** The language's own name, shown as it is in every language. */
  name: string;
  direction: "ltr" | "rtl";
  /** The locale of numbers, dates and plurals. */
  formats: string;
  load: () => Promise<Messages>;
  /** True for a language that only developers need. */
  isDevelopment?: true;
}

export const LANGUAGES = {
  en: { name: "English", direction: "ltr", formats: "en", load: () => import("./messages/en.json").then(parsed) },
  de: { name: "Deutsch", direction: "ltr", formats: "de", load: () => import("./messages/de.json").then(parsed) },
  "ar-XB": {
    name: "Pseudo",
    direction: "rtl",
    formats: "en",
    load: () => import("./messages/en.json?pseudo").then(parsed),
    isDevelopment: true,
  },
} satisfies Record<string, Language>;

export type Locale = keyof typeof LANGUAGES;

/** Returns the best language for a list such as `navigator.languages`. English if none fits. */
export function chosenLocale(wanted: readonly string[]): Locale {
  for (const tag of wanted) {
    if (tag in LANGUAGES) return tag as Locale;
    const language = tag.split("-")[0] ?? "";
    if (language in LANGUAGES) return language as Locale;
  }
  return "en";
}

export function translator(locale: Locale, messages: Messages): Translate {
  const made = new Map<MessageKey, IntlMessageFormat>();
  return (key, values) => {
    let message = made.get(key);
    if (message === undefined) {
      message = new IntlMessageFormat(messages[key], LANGUAGES[locale].formats);
      made.set(key, message);
    }
    return String(message.format(values));
  };
}
