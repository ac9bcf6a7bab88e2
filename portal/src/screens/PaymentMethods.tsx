import { useState } from "react";
import type { Payment, PaymentMethod } from "../api";
import { useCoseat } from "../coseat";
import { useAction, useMe, usePaymentMethods } from "../data";
import { PaymentDialog } from "../payments/PaymentDialog";
import { Button } from "../ui/Button";
import { Failure } from "../ui/Failure";
import { Confirm } from "../ui/Modal";
import { Badge } from "../ui/Notice";
import { Empty, Failed, Loading } from "../ui/States";
import { methodName } from "./prices";

export function PaymentMethods() {
  const { api, t, announce, payments } = useCoseat();
  const me = useMe();
  const methods = usePaymentMethods();
  const { isBusy, failure, run } = useAction();
  const [setup, setSetup] = useState<Payment | null>(null);
  const list = methods.data?.data ?? [];

  const begin = () =>
    run(async () => {
      const intent = await api.createSetupIntent();
      setSetup({
        kind: "setup",
        status: intent.status,
        client_secret: intent.client_secret,
        payment_method_id: null,
        decline_code: null,
        hosted_invoice_url: null,
      });
    });

  return (
    <>
      <div className="cs-card-head">
        <h1 className="cs-screen-title">{t("nav.payment_methods")}</h1>
        {payments !== null && (
          <Button variant="primary" isBusy={isBusy} disabled={!me.isSuccess} onClick={() => void begin()}>
            {t("methods.add")}
          </Button>
        )}
      </div>
      {payments === null && <p className="cs-muted">{t("methods.cannot_add")}</p>}
      <Failure failure={failure} />
      {methods.isPending && !me.isError && <Loading />}
      {(me.isError || (methods.isError && !methods.data)) && (
        <Failed error={me.error ?? methods.error} onRetry={() => (me.isError ? me.refetch() : methods.refetch())} />
      )}
      {methods.isSuccess && list.length === 0 && <Empty title={t("methods.none")} />}
      {list.length > 0 && (
        <ul className="cs-card">
          {list.map((method) => (
            <Method key={method.id} method={method} onChanged={() => methods.refetch()} />
          ))}
        </ul>
      )}
      {setup && (
        <PaymentDialog
          payment={setup}
          onClose={() => setSetup(null)}
          onConfirmed={async () => {
            setSetup(null);
            announce(t("told.method_added"));
            await methods.refetch();
          }}
        />
      )}
    </>
  );
}

function Method({ method, onChanged }: { method: PaymentMethod; onChanged: () => Promise<unknown> }) {
  const coseat = useCoseat();
  const { api, t, announce } = coseat;
  const { isBusy, failure, run } = useAction();
  const [isAsking, setAsking] = useState(false);
  const name = methodName(coseat, method);
  const useAsDefault = () =>
    run(async () => {
      await api.setDefaultPaymentMethod(method.id);
      await onChanged();
      announce(t("told.method_default", { name }));
    });
  const remove = () =>
    run(async () => {
      await api.detachPaymentMethod(method.id);
      setAsking(false);
      await onChanged();
      announce(t("told.method_removed", { name }));
    });
  return (
    <li className="cs-line">
      <span>
        <span className="cs-card-title">
          {name}
          {method.is_default && <Badge tone="accent">{t("methods.default")}</Badge>}
        </span>
        {method.card?.exp_month != null && method.card.exp_year != null && (
          <span className="cs-muted">
            {t("methods.expires", { month: String(method.card.exp_month).padStart(2, "0"), year: String(method.card.exp_year) })}
          </span>
        )}
        {!isAsking && <Failure failure={failure} />}
      </span>
      <span className="cs-actions">
        {!method.is_default && (
          <Button variant="quiet" isBusy={isBusy} onClick={() => void useAsDefault()}>
            {t("methods.make_default")}
            <span className="cs-hidden">{name}</span>
          </Button>
        )}
        <Button variant="quiet" onClick={() => setAsking(true)}>
          {t("methods.remove")}
          <span className="cs-hidden">{name}</span>
        </Button>
      </span>
      <Confirm
        isOpen={isAsking}
        isDangerous
        isBusy={isBusy}
        title={t("methods.remove_title", { name })}
        confirmLabel={t("methods.remove")}
        onConfirm={() => void remove()}
        onCancel={() => setAsking(false)}
      >
        <p>{t("methods.remove_text")}</p>
        <Failure failure={failure} />
      </Confirm>
    </li>
  );
}
