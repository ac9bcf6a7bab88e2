import { useState } from "react";
import type { Person, Subscription } from "../api";
import { useCoseat } from "../coseat";
import { applied, boundTo, useAction, useQuote, useRefresh } from "../data";
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
  const givenBack = { remove, release_seats: true };
  const { quote, problem, isReading } = useQuote(subscription.id, rights.canChangeSeats ? givenBack : null, isBusy, (change) =>
    api.quoteSeats(subscription.id, change),
  );

  const confirmed = () =>
    run(async () => {
      const change = isGivenBack && quote ? { ...givenBack, ...boundTo(quote) } : { remove };
      await applied(api, api.changePeople(subscription.id, change), refresh);
      if (isGivenBack && quote) {
        announce(t("told.removed_with_credit", { name, credit: format.money(quote.credit, quote.currency) }));
      } else announce(t("told.removed", { name }));
      onClose();
    }).finally(refresh);

  const creditText = () => {
    if (quote === undefined) return problem ? errorText(coseat, problem) : t("quote.reading");
    if (quote.credit_forgone > 0) return t("remove.without_credit", { amount: format.money(quote.credit_forgone, quote.currency) });
    return t("remove.credit", { credit: format.money(quote.credit, quote.currency) });
  };

  return (
    <Confirm
      isOpen
      isDangerous
      isBusy={isBusy || (isGivenBack && isReading)}
      canConfirm={!isGivenBack || quote !== undefined}
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
