import type { PaymentMethod, Price, Recurring } from "../api";
import type { Coseat } from "../coseat";
import type { MessageKey } from "../i18n";

const INTERVALS: Record<Recurring["interval"], MessageKey> = {
  day: "price.day",
  week: "price.week",
  month: "price.month",
  year: "price.year",
};

/** Returns a price with its interval. A tiered price is told by its first tier. */
export function priceText({ t, format }: Pick<Coseat, "t" | "format">, price: Price): string {
  const amount = price.unit_amount ?? price.tiers?.[0]?.unit_amount ?? null;
  if (amount === null || price.currency === null) return "";
  const money = format.money(amount, price.currency);
  const shown = price.tiers && price.tiers.length > 0 ? t("price.from", { price: money }) : money;
  if (price.recurring === null) return shown;
  return t(INTERVALS[price.recurring.interval], { price: shown, count: price.recurring.interval_count });
}

/** Returns what people call a payment method: a card by its brand and last digits. */
export function methodName({ t }: Pick<Coseat, "t">, { card, type }: PaymentMethod): string {
  return card ? t("methods.card", { brand: BRANDS[card.brand ?? ""] ?? card.brand ?? type, last4: card.last4 ?? "" }) : type;
}

const BRANDS: Record<string, string> = { visa: "Visa", mastercard: "Mastercard", amex: "American Express" };
