import type { Quote, Subscription } from "../api";
import { useCoseat } from "../coseat";

interface QuoteTextProps {
  quote: Quote;
  subscription: Subscription;
  /** Whether the change takes another price, whose interval may be another one. */
  isRepriced?: boolean;
}

/**
 * The exact price of a change: what is due now, the credit, and the total from the next renewal. That is dated if all
 * items renew at once, when they do now.
 */
export function QuoteText({ quote, subscription, isRepriced = false }: QuoteTextProps) {
  const { t, format } = useCoseat();
  const ends = new Set(subscription.items.map((item) => item.current_period_end));
  const renewal = ends.size === 1 && !isRepriced ? subscription.items[0]?.current_period_end : null;
  return (
    <dl className="cs-amounts">
      {quote.credit > 0 ? (
        <div>
          <dt>{t("quote.credit")}</dt>
          <dd>{format.money(quote.credit, quote.currency)}</dd>
        </div>
      ) : (
        <div>
          <dt>{t("quote.now")}</dt>
          <dd>{format.money(quote.amount_due_now, quote.currency)}</dd>
        </div>
      )}
      {quote.credit_forgone > 0 && (
        <div>
          <dt>{t("quote.forgone")}</dt>
          <dd>{format.money(quote.credit_forgone, quote.currency)}</dd>
        </div>
      )}
      {quote.next_total !== null && (
        <div>
          <dt>{renewal ? t("quote.renewal_on", { date: format.date(renewal) }) : t("quote.renewal")}</dt>
          <dd>{format.money(quote.next_total, quote.currency)}</dd>
        </div>
      )}
    </dl>
  );
}
