import { LANGUAGES, type Locale } from "./i18n.ts";

/** Stripe's currencies whose minor unit is the currency itself, and those with three decimals. All others have two. */
const ZERO_DECIMAL = new Set("bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf".split(" "));
const THREE_DECIMAL = new Set("bhd jod kwd omr tnd".split(" "));

/** The decimals that Stripe keeps of a minor unit. */
const PARTS_OF_A_UNIT = 12;

function decimals(currency: string): number {
  const code = currency.toLowerCase();
  if (ZERO_DECIMAL.has(code)) return 0;
  return THREE_DECIMAL.has(code) ? 3 : 2;
}

export interface Formats {
  /** An amount in minor units as Stripe counts them. Parts of a unit are shown as far as Stripe knows them. */
  money: (amount: number, currency: string) => string;
  date: (instant: string) => string;
  moment: (instant: string) => string;
  number: (value: number) => string;
  list: (items: string[]) => string;
}

export function formats(locale: Locale): Formats {
  const tag = LANGUAGES[locale].formats;
  const day = new Intl.DateTimeFormat(tag, { dateStyle: "medium" });
  const moment = new Intl.DateTimeFormat(tag, { dateStyle: "medium", timeStyle: "short" });
  const plain = new Intl.NumberFormat(tag);
  const conjunction = new Intl.ListFormat(tag, { type: "conjunction" });
  return {
    money: (amount, currency) => {
      const digits = decimals(currency);
      return new Intl.NumberFormat(tag, {
        style: "currency",
        currency: currency.toUpperCase(),
        minimumFractionDigits: digits,
        maximumFractionDigits: Number.isInteger(amount) ? digits : digits + PARTS_OF_A_UNIT,
      }).format(amount / 10 ** digits);
    },
    date: (instant) => day.format(new Date(instant)),
    moment: (instant) => moment.format(new Date(instant)),
    number: (value) => plain.format(value),
    list: (items) => conjunction.format(items),
  };
}
