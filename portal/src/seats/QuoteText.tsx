import type { Quote, Subscription } from "../api";
import { useCoseat } from "../coseat";
import { seatItem } from "./rights";

/** The exact price of a change: what is due now, the credit, and the total from the next renewal. */
export function QuoteText({ quote, subscription }: { quote: Quote; subscription: Subscription }) {
  const { t, format } = useCoseat();
  const renewal = seatItem(subscription)?.current_period_end;
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
