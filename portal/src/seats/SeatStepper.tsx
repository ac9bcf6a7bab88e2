import { useQuery } from "@tanstack/react-query";
import { useEffect, useId, useState } from "react";
import type { Quote, Subscription } from "../api";
import { useCoseat } from "../coseat";
import { appliedOrRefused, finished, isUnpaid, useDebounced, useRefresh } from "../data";
import { errorText } from "../errors";
import { Button, IconButton } from "../ui/Button";
import { MinusIcon, PlusIcon } from "../ui/icons";
import { Notice } from "../ui/Notice";
import { QuoteText } from "./QuoteText";
import type { MarkTyped } from "./SeatDialog";

interface SeatStepperProps {
  subscription: Subscription;
  markTyped: MarkTyped;
  onDone: () => void;
}

const MOST_SEATS = 999_999;

/** Changes the number of seats after its price was shown. */
export function SeatStepper({ subscription, markTyped, onDone }: SeatStepperProps) {
  const { api, t, announce } = useCoseat();
  const coseat = useCoseat();
  const id = useId();
  const seats = subscription.shared?.seats;
  const now = seats?.total ?? 0;
  const floor = Math.max(1, (seats?.used ?? 0) + (seats?.reserved ?? 0));
  const [wanted, setWanted] = useState(now);
  const [isBusy, setBusy] = useState(false);
  const [failure, setFailure] = useState<unknown>(null);
  const settled = useDebounced(wanted, 250);
  const isChanged = wanted !== now;
  const isBelowFloor = wanted < floor && wanted < now;
  const refresh = useRefresh(subscription.id);
  const quote = useQuery({
    queryKey: ["quote", subscription.id, now, settled],
    queryFn: () => api.quoteSeats(subscription.id, { total: settled }),
    enabled: settled !== now && !(settled < floor && settled < now),
    staleTime: 0,
    gcTime: 0,
    retry: false,
  });
  const current: Quote | undefined = settled === wanted && !quote.isFetching ? quote.data : undefined;

  useEffect(() => {
    markTyped("seats", isChanged);
    return () => markTyped("seats", false);
  }, [markTyped, isChanged]);

  async function apply(bound: Quote) {
    setBusy(true);
    setFailure(null);
    try {
      const forgo = bound.credit_forgone > 0 ? { forgo_credit: true } : {};
      const change = { total: wanted, quote_id: bound.quote_id, ...forgo };
      const changed = appliedOrRefused(await finished(api, await api.setSeats(subscription.id, change), refresh));
      await refresh();
      announce(isUnpaid(changed) ? t("payment.needed") : t("told.seats", { count: wanted }));
      onDone();
    } catch (error) {
      setFailure(error);
      await quote.refetch();
    } finally {
      setBusy(false);
    }
  }

  return (
    <section className="cs-panel" aria-label={t("seats.change")}>
      <div className="cs-stepper-line">
        <label htmlFor={id} className="cs-label">
          {t("stepper.label")}
        </label>
        <div className="cs-stepper">
          <IconButton label={t("stepper.less")} disabled={wanted <= floor || isBusy} onClick={() => setWanted(wanted - 1)}>
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
              setWanted(Math.min(MOST_SEATS, digits));
            }}
          />
          <IconButton label={t("stepper.more")} disabled={isBusy} onClick={() => setWanted(wanted + 1)}>
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
            {current ? (
              <QuoteText quote={current} subscription={subscription} />
            ) : quote.isError && settled === wanted ? (
              <p className="cs-error">{errorText(coseat, quote.error)}</p>
            ) : (
              <p className="cs-hint">{t("quote.reading")}</p>
            )}
          </div>
          <div className="cs-actions">
            <Button variant="quiet" onClick={() => setWanted(now)}>
              {t("dialog.cancel")}
            </Button>
            {current && (
              <Button variant="primary" isBusy={isBusy} onClick={() => void apply(current)}>
                {applyLabel(coseat, current, wanted - now)}
              </Button>
            )}
          </div>
        </div>
      )}
      {failure !== null && (
        <Notice tone="error" isAlert>
          <p>{errorText(coseat, failure)}</p>
        </Notice>
      )}
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
