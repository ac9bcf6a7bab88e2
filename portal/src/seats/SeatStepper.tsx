import { useId, useState } from "react";
import type { Quote, Subscription } from "../api";
import { useCoseat } from "../coseat";
import { applied, boundTo, isUnpaid, useAction, useQuote, useRefresh } from "../data";
import { errorText } from "../errors";
import { Button, IconButton } from "../ui/Button";
import { Failure } from "../ui/Failure";
import { MinusIcon, PlusIcon } from "../ui/icons";
import { QuoteText } from "./QuoteText";
import { type MarkTyped, useMark } from "./typed";

interface SeatStepperProps {
  subscription: Subscription;
  markTyped: MarkTyped;
  onDone: () => void;
}

const MOST_SEATS = 999_999;

/** Changes the number of seats after its price was shown. */
export function SeatStepper({ subscription, markTyped, onDone }: SeatStepperProps) {
  const coseat = useCoseat();
  const { api, t, announce } = coseat;
  const id = useId();
  const seats = subscription.shared?.seats;
  const now = seats?.total ?? 0;
  const floor = Math.max(1, (seats?.used ?? 0) + (seats?.reserved ?? 0));
  const [chosen, setChosen] = useState<number | null>(null);
  const wanted = chosen ?? now;
  const { isBusy, failure, run } = useAction();
  const isChanged = wanted !== now;
  const isBelowFloor = wanted < floor && wanted < now;
  const refresh = useRefresh(subscription.id);
  const { quote, problem, isReading } = useQuote(subscription.id, isChanged && !isBelowFloor ? { total: wanted } : null, isBusy, (change) =>
    api.quoteSeats(subscription.id, change),
  );

  useMark(markTyped, "seats", isChanged);

  const apply = (bound: Quote) =>
    run(async () => {
      const change = { total: wanted, ...boundTo(bound) };
      const changed = await applied(api, api.setSeats(subscription.id, change), refresh);
      announce(isUnpaid(changed) ? t("payment.needed") : t("told.seats", { count: wanted }));
      // Before the rest is read again: a form that closes later would do so under a person who opens the next one.
      onDone();
      await refresh();
    });

  return (
    <section className="cs-panel" aria-label={t("seats.change")}>
      <div className="cs-stepper-line">
        <label htmlFor={id} className="cs-label">
          {t("stepper.label")}
        </label>
        <div className="cs-stepper">
          <IconButton label={t("stepper.less")} disabled={wanted <= floor || isBusy} onClick={() => setChosen(wanted - 1)}>
            <MinusIcon />
          </IconButton>
          <input
            id={id}
            className="cs-input"
            inputMode="numeric"
            value={wanted}
            aria-describedby={`${id}-floor`}
            disabled={isBusy}
            onChange={(event) => {
              const digits = Number(event.target.value.replace(/\D/g, ""));
              setChosen(Math.min(MOST_SEATS, digits));
            }}
          />
          <IconButton label={t("stepper.more")} disabled={isBusy} onClick={() => setChosen(wanted + 1)}>
            <PlusIcon />
          </IconButton>
        </div>
        <p id={`${id}-floor`} className={isBelowFloor ? "cs-error" : "cs-hint"}>
          {t("stepper.floor", { floor, used: seats?.used ?? 0, reserved: seats?.reserved ?? 0 })}
        </p>
      </div>
      {isChanged && !isBelowFloor && (
        <div className="cs-quote-line">
          <div aria-live="polite" className="cs-quote">
            {quote ? (
              <QuoteText quote={quote} subscription={subscription} />
            ) : problem ? (
              <p className="cs-error">{errorText(coseat, problem)}</p>
            ) : (
              <p className="cs-hint">{t("quote.reading")}</p>
            )}
          </div>
          <div className="cs-actions">
            <Button variant="quiet" onClick={() => setChosen(null)}>
              {t("dialog.cancel")}
            </Button>
            {quote && (
              <Button variant="primary" isBusy={isBusy || isReading} onClick={() => void apply(quote)}>
                {applyLabel(coseat, quote, wanted - now)}
              </Button>
            )}
          </div>
        </div>
      )}
      <Failure failure={failure} />
    </section>
  );
}

function applyLabel({ t, format }: ReturnType<typeof useCoseat>, quote: Quote, difference: number): string {
  if (difference > 0) {
    return t("stepper.buy", { count: difference, price: format.money(quote.amount_due_now, quote.currency) });
  }
  if (quote.credit_forgone > 0) return t("stepper.give_back_without_credit", { count: -difference });
  return t("stepper.give_back", { count: -difference });
}
