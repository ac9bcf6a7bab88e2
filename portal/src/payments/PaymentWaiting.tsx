import { useState } from "react";
import type { Payment, Subscription } from "../api";
import { useCoseat } from "../coseat";
import { finished, useAction, useRefresh } from "../data";
import { Button } from "../ui/Button";
import { Failure } from "../ui/Failure";
import { Notice } from "../ui/Notice";
import { PaymentDialog } from "./PaymentDialog";

interface PaymentWaitingProps {
  subscription: Subscription;
  change: { expires_at: string | null; operation_id: string; payment: Payment | null };
}

/** A purchase that waits for its payment: it can be paid, or abandoned. */
export function PaymentWaiting({ subscription, change }: PaymentWaitingProps) {
  const { api, t, format, announce } = useCoseat();
  const refresh = useRefresh(subscription.id);
  const [isPaying, setPaying] = useState(false);
  const { isBusy, failure, run } = useAction();
  const payment = change.payment;
  // The link is shown to the payer only, and a secret is not always known. Without both nothing can be done here.
  const isPayable = payment !== null && (payment.client_secret !== null || payment.hosted_invoice_url !== null);
  const isProcessing = payment?.status === "processing";

  const abandon = () =>
    run(async () => {
      const operation = await finished(api, api.cancelOperation(change.operation_id), refresh);
      announce(operation.results.some((result) => result.outcome === "applied") ? t("told.paid_first") : t("told.abandoned"));
    }).finally(refresh);

  return (
    <Notice
      tone="warning"
      title={isProcessing ? t("payment.processing") : t("payment.waiting")}
      actions={
        !isProcessing && (
          <>
            <Button isBusy={isBusy} onClick={() => void abandon()}>{t("payment.abandon")}</Button>
            {isPayable && (
              <Button variant="primary" onClick={() => setPaying(true)}>{t("payment.finish")}</Button>
            )}
          </>
        )
      }
    >
      <p>
        {change.expires_at === null ? t("payment.text") : t("payment.until", { moment: format.moment(change.expires_at) })}
      </p>
      <Failure failure={failure} />
      {isPaying && payment !== null && (
        <PaymentDialog
          payment={payment}
          onClose={() => setPaying(false)}
          onConfirmed={async () => {
            setPaying(false);
            announce(t("told.paid"));
            await api.paid(change.operation_id);
            await refresh();
          }}
        />
      )}
    </Notice>
  );
}
