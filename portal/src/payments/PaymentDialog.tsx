import { useEffect, useRef, useState } from "react";
import type { Payment } from "../api";
import { useCoseat } from "../coseat";
import { Button } from "../ui/Button";
import { Field, Select } from "../ui/Field";
import { Modal } from "../ui/Modal";
import { Notice } from "../ui/Notice";
import type { PaymentConfirmation } from "./confirmation";

interface PaymentDialogProps {
  payment: Payment;
  onClose: () => void;
  /** The payment was taken, or the bank still processes it. */
  onConfirmed: () => void | Promise<void>;
}

/** The payment step: a card, the bank's question if there is one, and the result. */
export function PaymentDialog({ payment, onClose, onConfirmed }: PaymentDialogProps) {
  const { payments, t } = useCoseat();
  const place = useRef<HTMLDivElement>(null);
  const [card, setCard] = useState(payments?.cards[0]?.id ?? "");
  const [isAsked, setAsked] = useState(false);
  const [isBusy, setBusy] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const secret = payment.client_secret;

  useEffect(() => {
    if (payments?.mount == null || secret === null || place.current === null) return;
    const mounted = payments.mount(place.current, secret);
    mounted.catch(() => setProblem(t("payment.not_loaded")));
    return () => void mounted.then((remove) => remove(), () => {});
  }, [payments, secret, t]);

  async function confirm(authenticate?: boolean) {
    if (payments === null || secret === null) return;
    const needsBank = payments.kind === "stand_in" && card.includes("threeDSecure") && authenticate === undefined;
    setProblem(null);
    setAsked(needsBank);
    if (needsBank) return;
    setBusy(true);
    try {
      const problem = await confirmationProblem(payments, secret, authenticate);
      if (problem === null) await onConfirmed();
      else setProblem(problem);
    } finally {
      setBusy(false);
    }
  }

  /** Confirms the payment. Returns null if it was taken, or is processed: whatever fails later does not undo it. */
  async function confirmationProblem(confirmation: PaymentConfirmation, clientSecret: string, authenticate?: boolean) {
    try {
      const { status } = await confirmation.confirm({
        clientSecret,
        kind: payment.kind,
        ...(card === "" ? {} : { card }),
        ...(authenticate === undefined ? {} : { authenticate }),
      });
      if (status === "succeeded" || status === "processing") return null;
      return authenticate === false ? t("payment.not_authenticated") : t("payment.declined");
    } catch {
      return t("payment.failed");
    }
  }

  const canConfirm = payments !== null && secret !== null;
  const link = canConfirm ? null : payment.hosted_invoice_url;
  return (
    <Modal
      title={payment.kind === "setup" ? t("payment.title_setup") : t("payment.title")}
      description={payments?.kind === "stand_in" ? t("payment.stand_in") : null}
      onClose={onClose}
    >
      <div className="cs-modal-body">
        {problem !== null && <Notice tone="error" isAlert><p>{problem}</p></Notice>}
        {!canConfirm && link === null && <p>{t("payment.none")}</p>}
        {canConfirm && payments.mount !== null && <div ref={place} className="cs-card-form" />}
        {isAsked ? (
          <div className="cs-bank" role="group" aria-label={t("bank.title")}>
            <p className="cs-notice-title">{t("bank.title")}</p>
            <p>{t("bank.text")}</p>
            <div className="cs-actions">
              <Button isBusy={isBusy} onClick={() => void confirm(false)}>{t("bank.refuse")}</Button>
              <Button variant="primary" isBusy={isBusy} onClick={() => void confirm(true)}>{t("bank.approve")}</Button>
            </div>
          </div>
        ) : (
          <>
            {canConfirm && payments.cards.length > 0 && (
              <Field label={t("payment.card")}>
                {(control) => (
                  <Select {...control} value={card} onChange={(event) => setCard(event.target.value)}>
                    {payments.cards.map((one) => (
                      <option key={one.id} value={one.id}>
                        {one.name}
                      </option>
                    ))}
                  </Select>
                )}
              </Field>
            )}
            <div className="cs-actions cs-actions-end">
              {link !== null && (
                <a className="cs-button cs-button-primary" href={link}>
                  {t("payment.hosted")}
                </a>
              )}
              {canConfirm && (
                <Button variant="primary" isBusy={isBusy} onClick={() => void confirm()}>
                  {payment.kind === "setup" ? t("payment.save") : t("payment.pay")}
                </Button>
              )}
            </div>
          </>
        )}
      </div>
    </Modal>
  );
}
