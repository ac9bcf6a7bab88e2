import { useState } from "react";
import type { MemberRole, Person, Subscription } from "../api";
import { useCoseat } from "../coseat";
import { applied, useAction, useRefresh, useTransfer } from "../data";
import { Button } from "../ui/Button";
import { Failure } from "../ui/Failure";
import { Field, Select } from "../ui/Field";
import { Confirm } from "../ui/Modal";
import { Notice } from "../ui/Notice";
import { ROLE_KEYS } from "./labels";
import { productName } from "./rights";

interface OfferProps {
  person: Person;
  subscription: Subscription;
  onClose: () => void;
}

/** Offers the subscription to a member, who accepts or declines. */
export function OfferTransfer({ person, subscription, onClose }: OfferProps) {
  const { api, t, announce } = useCoseat();
  const refresh = useRefresh(subscription.id);
  const [keepMeAs, setKeepMeAs] = useState<"" | MemberRole>("manager");
  const [mayBuy, setMayBuy] = useState(false);
  const { isBusy, failure, run } = useAction();
  const name = person.name ?? person.email ?? t("person.unnamed");

  const confirmed = () =>
    run(async () => {
      await api.offerTransfer(subscription.id, {
        to_customer_id: person.customer_id ?? "",
        allow_purchases: mayBuy,
        ...(keepMeAs === "" ? {} : { keep_me_as: keepMeAs }),
      });
      await refresh();
      announce(t("told.offered", { name }));
      onClose();
    });

  return (
    <Confirm
      isOpen
      isBusy={isBusy}
      title={t("transfer.title", { name })}
      confirmLabel={t("transfer.confirm")}
      onConfirm={() => void confirmed()}
      onCancel={onClose}
    >
      <p>{t("transfer.text", { name })}</p>
      <Field label={t("transfer.keep_me_as")}>
        {(control) => (
          <Select {...control} value={keepMeAs} onChange={(event) => setKeepMeAs(event.target.value as "" | MemberRole)}>
            <option value="manager">{t(ROLE_KEYS.manager)}</option>
            <option value="user">{t(ROLE_KEYS.user)}</option>
            <option value="">{t("transfer.no_seat")}</option>
          </Select>
        )}
      </Field>
      <label className="cs-choice">
        <input type="checkbox" checked={mayBuy} onChange={(event) => setMayBuy(event.target.checked)} />
        <span>
          {t("transfer.may_buy")}
          <span className="cs-hint">{t("transfer.may_buy_hint")}</span>
        </span>
      </label>
      <Failure failure={failure} />
    </Confirm>
  );
}

/** Shows an open offer: to its receiver with both answers, to the owner with a way to withdraw it. */
export function TransferNotice({ subscription, me }: { subscription: Subscription; me: string }) {
  const { api, t, format, announce } = useCoseat();
  const refresh = useRefresh(subscription.id);
  const { isBusy, failure, run } = useAction();
  const offer = useTransfer(subscription.id).data;
  if (!offer || offer.state !== "offered") return null;
  const isForMe = offer.to_customer_id === me;

  const answer = (accepts: boolean) =>
    run(async () => {
      if (accepts) await applied(api, api.acceptTransfer(subscription.id), refresh);
      else await api.declineTransfer(subscription.id);
      announce(accepts ? t("told.accepted") : isForMe ? t("told.declined") : t("told.withdrawn"));
    }).finally(refresh);

  const until = format.date(offer.expires_at);
  return (
    <Notice
      tone="info"
      title={isForMe ? t("transfer.offered_to_me", { name: productName(subscription) ?? t("seats.title") }) : t("transfer.offered")}
      actions={
        isForMe ? (
          <>
            <Button isBusy={isBusy} onClick={() => void answer(false)}>{t("transfer.decline")}</Button>
            <Button variant="primary" isBusy={isBusy} onClick={() => void answer(true)}>{t("transfer.accept")}</Button>
          </>
        ) : (
          subscription.role === "owner" && (
            <Button isBusy={isBusy} onClick={() => void answer(false)}>{t("transfer.withdraw")}</Button>
          )
        )
      }
    >
      <p>{t("transfer.until", { date: until })}</p>
      <Failure failure={failure} />
    </Notice>
  );
}
