import { useState } from "react";
import type { Payment, Product } from "../api";
import { useCoseat } from "../coseat";
import { applied, isUnpaid, useAction, useMe, usePaymentMethods, useProducts, useRefresh } from "../data";
import { go, pathOf } from "../page/routing";
import { PaymentDialog } from "../payments/PaymentDialog";
import { Button } from "../ui/Button";
import { Failure } from "../ui/Failure";
import { Field, Select, TextInput } from "../ui/Field";
import { Modal } from "../ui/Modal";
import { Empty, Failed, Loading } from "../ui/States";
import { isMetered, methodName, pricedIn, priceText } from "./prices";

/** The choice of a card that is not stored: the payment step asks for it. */
const ANOTHER_CARD = "";

export function Plans() {
  const { t } = useCoseat();
  const me = useMe();
  const products = useProducts();
  const [chosen, setChosen] = useState<Product | null>(null);
  // A subscription fixes the currency. Otherwise the service prefers that of the last purchase.
  const currency = products.data?.local_currency ?? me.data?.currency ?? null;
  const sold = me.isPending ? [] : (products.data?.data.filter((product) => recurring(product, currency).length > 0) ?? []);
  return (
    <>
      <h1 className="cs-screen-title">{t("nav.plans")}</h1>
      {(products.isPending || me.isPending) && !products.isError && <Loading />}
      {products.isError && !products.data && <Failed error={products.error} onRetry={() => products.refetch()} />}
      {products.isSuccess && !me.isPending && sold.length === 0 && <Empty title={t("plans.none")} />}
      <div className="cs-grid">
        {sold.map((product) => (
          <Plan key={product.id} product={product} currency={currency} onChoose={() => setChosen(product)} />
        ))}
      </div>
      {chosen && <Buy product={chosen} currency={currency} onClose={() => setChosen(null)} />}
    </>
  );
}

/** The prices of subscriptions, in a currency if they are offered in it. */
function recurring(product: Product, currency: string | null) {
  return product.prices.filter((price) => price.recurring !== null).map((price) => pricedIn(price, currency));
}

interface PlanProps {
  product: Product;
  currency: string | null;
  onChoose: () => void;
}

function Plan({ product, currency, onChoose }: PlanProps) {
  const coseat = useCoseat();
  const { t } = coseat;
  return (
    <article className="cs-card" aria-label={product.name}>
      <div>
        <h2 className="cs-card-title">{product.name}</h2>
        <p className="cs-muted">
          {product.description ?? (product.supports_shared_subscriptions ? t("plans.per_seat") : t("plans.single"))}
        </p>
      </div>
      <ul>
        {recurring(product, currency).map((price) => (
          <li key={price.id} className="cs-amount">
            {priceText(coseat, price)}
          </li>
        ))}
      </ul>
      <Button variant="primary" onClick={onChoose}>
        {t("plans.buy")}
        <span className="cs-hidden">{product.name}</span>
      </Button>
    </article>
  );
}

interface BuyProps {
  product: Product;
  currency: string | null;
  onClose: () => void;
}

function Buy({ product, currency, onClose }: BuyProps) {
  const coseat = useCoseat();
  const { api, t, announce } = coseat;
  const me = useMe();
  const refresh = useRefresh();
  const { isBusy, failure, run } = useAction();
  const prices = recurring(product, currency);
  // The default may be a price that is not on sale, or is paid once.
  const first = prices.find((one) => one.id === product.default_price_id) ?? prices[0];
  const [priceId, setPrice] = useState(first?.id ?? "");
  const price = prices.find((one) => one.id === priceId) ?? first;
  const isCounted = price !== undefined && !isMetered(price);
  const [quantity, setQuantity] = useState(1);
  const [promotion, setPromotion] = useState("");
  const cards = usePaymentMethods();
  const methods = cards.data?.data ?? [];
  const [chosenMethod, setChosenMethod] = useState<string | null>(null);
  const method = chosenMethod ?? methods.find((one) => one.is_default)?.id ?? ANOTHER_CARD;
  const [due, setDue] = useState<{ payment: Payment; operation: string | null } | null>(null);
  // Before the cards are known, a purchase would ask for another one although there is a default.
  const isWaiting = isBusy || cards.isPending;

  async function bought() {
    announce(t("told.bought", { name: product.name }));
    onClose();
    await refresh();
    go(pathOf("subscriptions"));
  }

  const buy = () =>
    run(async () => {
      const code = promotion.trim();
      const purchase = {
        items: [{ price_id: price?.id ?? "", ...(isCounted ? { quantity } : {}) }],
        ...(price === undefined ? {} : { currency: price.currency }),
        ...(code === "" ? {} : { promotion_code: code }),
        ...(method === ANOTHER_CARD ? {} : { payment_method_id: method }),
      };
      const changed = await applied(api, api.addSubscription(purchase), refresh);
      if (isUnpaid(changed) && changed.payment) setDue({ payment: changed.payment, operation: changed.operation_id });
      else await bought();
    });

  if (due) {
    return (
      <PaymentDialog
        payment={due.payment}
        onClose={() => {
          onClose();
          void refresh();
        }}
        onConfirmed={async () => {
          if (due.operation !== null) await api.paid(due.operation);
          await bought();
        }}
      />
    );
  }
  return (
    <Modal title={t("buy.title", { name: product.name })} isDirty={promotion !== "" || quantity !== 1} onClose={onClose}>
      <form
        className="cs-modal-body"
        onSubmit={(event) => {
          event.preventDefault();
          if (!isWaiting) void buy();
        }}
      >
        <Field label={t("change.price")}>
          {(control) => (
            <Select {...control} value={price?.id} onChange={(event) => setPrice(event.target.value)}>
              {prices.map((one) => (
                <option key={one.id} value={one.id}>
                  {priceText(coseat, one)}
                </option>
              ))}
            </Select>
          )}
        </Field>
        {product.supports_shared_subscriptions && isCounted && (
          <Field label={t("stepper.label")} hint={t("buy.seats_hint")}>
            {(control) => (
              <TextInput
                {...control}
                inputMode="numeric"
                value={quantity}
                onChange={(event) => setQuantity(Number(event.target.value.replace(/\D/g, "").slice(0, 5)))}
              />
            )}
          </Field>
        )}
        {methods.length > 0 && (
          <Field label={t("payment.card")}>
            {(control) => (
              <Select {...control} value={method} onChange={(event) => setChosenMethod(event.target.value)}>
                {methods.map((one) => (
                  <option key={one.id} value={one.id}>
                    {methodName(coseat, one)}
                  </option>
                ))}
                <option value={ANOTHER_CARD}>{t("buy.another_card")}</option>
              </Select>
            )}
          </Field>
        )}
        <Field label={t("buy.promotion")}>
          {(control) => <TextInput {...control} value={promotion} onChange={(event) => setPromotion(event.target.value)} />}
        </Field>
        <Failure failure={failure ?? (me.isError ? me.error : null)} />
        <div className="cs-actions cs-actions-end">
          <Button variant="primary" type="submit" isBusy={isWaiting} disabled={(isCounted && quantity < 1) || !me.isSuccess}>
            {t("plans.buy")}
          </Button>
        </div>
      </form>
    </Modal>
  );
}
