import type { PaymentMethod, Price, Recurring, SoldPrice } from "../api";
import type { Coseat } from "../coseat";
import type { MessageKey } from "../i18n";

const INTERVALS: Record<Recurring["interval"], MessageKey> = {
  day: "price.day",
  week: "price.week",
  month: "price.month",
  year: "price.year",
};

/** Returns a price with its interval, and "" for one without an amount. A tiered price is told by its first tier. */
export function priceText({ t, format }: Pick<Coseat, "t" | "format">, price: Price): string {
  const amount = amountOf(price);
  if (amount === null || price.currency === null) return "";
  const money = format.money(amount, price.currency);
  const shown = price.tiers?.length ? t("price.from", { price: money }) : money;
  const size = price.transform_quantity?.divide_by ?? 1;
  const offered = size === 1 ? shown : t("price.package", { price: shown, count: size });
  if (price.recurring === null) return offered;
  return t(INTERVALS[price.recurring.interval], { price: offered, count: price.recurring.interval_count });
}

/** Returns a price that is on sale with its amounts in `currency`, or in its own if it is not offered in that one. */
export function pricedIn(price: SoldPrice, currency: string | null): SoldPrice {
  const option = currency === null ? undefined : price.currency_options?.[currency];
  return option === undefined || currency === null ? price : { ...price, ...option, currency };
}

/** Returns what the first one costs, in minor units and parts of them. */
function amountOf({ tiers, unit_amount, unit_amount_decimal }: Price): number | null {
  const tier = tiers?.[0];
  const parts = tier
    ? [decimal(tier.unit_amount_decimal, tier.unit_amount), decimal(tier.flat_amount_decimal, tier.flat_amount)]
    : [decimal(unit_amount_decimal, unit_amount)];
  const known = parts.filter((part) => part !== null);
  return known.length === 0 ? null : known.reduce((sum, part) => sum + part, 0);
}

function decimal(exact: string | null, whole: number | null): number | null {
  return exact === null ? whole : Number(exact);
}

/** Returns whether a price is charged by usage. It takes no quantity. */
export function isMetered({ recurring }: Pick<Price, "recurring">): boolean {
  return recurring?.usage_type === "metered";
}

/** Returns what people call a payment method: a card by its brand and last digits. */
export function methodName({ t }: Pick<Coseat, "t">, { card, type }: PaymentMethod): string {
  return card ? t("methods.card", { brand: BRANDS[card.brand ?? ""] ?? card.brand ?? type, last4: card.last4 ?? "" }) : type;
}

const BRANDS: Record<string, string> = { visa: "Visa", mastercard: "Mastercard", amex: "American Express" };
