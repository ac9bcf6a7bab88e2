import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import type { Person, Subscription } from "../api";
import { useCoseat } from "../coseat";
import { appliedOrRefused, useAction, useRefresh, finished } from "../data";
import { errorText } from "../errors";
import { Failure } from "../ui/Failure";
import { Confirm } from "../ui/Modal";
import type { Rights } from "./rights";

interface RemoveProps {
  person: Person;
  subscription: Subscription;
  rights: Rights;
  onClose: () => void;
}

/** Asks whether the person is to be removed, and whether the seat stays for somebody else or goes back for credit. */
export function Remove({ person, subscription, rights, onClose }: RemoveProps) {
  const coseat = useCoseat();
  const { api, t, format, announce } = coseat;
  const refresh = useRefresh(subscription.id);
  const [isGivenBack, setGivenBack] = useState(false);
  const { isBusy, failure, run } = useAction();
  const name = person.name ?? person.email ?? t("person.unnamed");
  const remove = [person.customer_id ?? ""];
  const quote = useQuery({
    queryKey: ["quote", subscription.id, "remove", remove],
    queryFn: () => api.quoteSeats(subscription.id, { remove, release_seats: true }),
    enabled: rights.canChangeSeats,
    staleTime: 0,
    gcTime: 0,
    retry: false,
  });

  const confirmed = () =>
    run(async () => {
      const release =
        isGivenBack && quote.data
          ? { release_seats: true, quote_id: quote.data.quote_id, ...(quote.data.credit_forgone > 0 ? { forgo_credit: true } : {}) }
          : {};
      appliedOrRefused(await finished(api, await api.changePeople(subscription.id, { remove, ...release }), refresh));
      if (isGivenBack && quote.data) {
        announce(t("told.removed_with_credit", { name, credit: format.money(quote.data.credit, quote.data.currency) }));
      } else announce(t("told.removed", { name }));
      onClose();
    }).finally(refresh);

  const creditText = () => {
    if (quote.data === undefined) return quote.isError ? errorText(coseat, quote.error) : t("quote.reading");
    if (quote.data.credit_forgone > 0) {
      return t("remove.without_credit", { amount: format.money(quote.data.credit_forgone, quote.data.currency) });
    }
    return t("remove.credit", { credit: format.money(quote.data.credit, quote.data.currency) });
  };

  return (
    <Confirm
      isOpen
      isDangerous
      isBusy={isBusy}
      canConfirm={!isGivenBack || quote.data !== undefined}
      title={t("remove.title", { name })}
      confirmLabel={t("remove.confirm")}
      onConfirm={() => void confirmed()}
      onCancel={onClose}
    >
      <p>{t("remove.text", { name })}</p>
      {rights.canChangeSeats && (
        <fieldset className="cs-choices">
          <legend>{t("remove.seat")}</legend>
          <label className="cs-choice">
            <input type="radio" name="seat" checked={!isGivenBack} onChange={() => setGivenBack(false)} />
            <span>
              {t("remove.keep")}
              <span className="cs-hint">{t("remove.keep_hint")}</span>
            </span>
          </label>
          <label className="cs-choice">
            <input type="radio" name="seat" checked={isGivenBack} onChange={() => setGivenBack(true)} />
            <span>
              {t("remove.give_back")}
              <span className="cs-hint" aria-live="polite">{creditText()}</span>
            </span>
          </label>
        </fieldset>
      )}
      <Failure failure={failure} />
    </Confirm>
  );
}
