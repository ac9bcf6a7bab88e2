import { useState } from "react";
import type { Price, Subscription, SubscriptionChange } from "../api";
import { useCoseat } from "../coseat";
import { applied, boundTo, isUnpaid, useAction, useProducts, useQuote, useRefresh } from "../data";
import { errorText } from "../errors";
import { QuoteText } from "../seats/QuoteText";
import { Button } from "../ui/Button";
import { Failure } from "../ui/Failure";
import { Field, Select, TextInput } from "../ui/Field";
import { Modal } from "../ui/Modal";
import { isMetered, pricedIn, priceText } from "./prices";

/** Changes the price or the quantity of one item. The preview that is shown is the one that is executed. */
export function ChangeItems({ subscription, onClose }: { subscription: Subscription; onClose: () => void }) {
  const coseat = useCoseat();
  const { api, t, announce } = coseat;
  const refresh = useRefresh();
  const products = useProducts();
  const { isBusy, failure, run } = useAction();
  const [itemId, setItemId] = useState(subscription.items[0]?.id ?? "");
  const item = subscription.items.find((one) => one.id === itemId);
  const [priceId, setPrice] = useState(item?.price.id ?? "");
  const [quantity, setQuantity] = useState(item?.quantity ?? 1);
  const product = products.data?.data.find((one) => one.id === item?.product.id);
  const sold = product?.prices.filter((one) => one.recurring !== null).map((one) => pricedIn(one, subscription.currency)) ?? [];
  // The price that is held may not be on sale any more.
  const isHeldSold = sold.some((one) => one.id === item?.price.id);
  const offered: Price[] = item === undefined || isHeldSold ? sold : [item.price, ...sold];
  const price = offered.find((one) => one.id === priceId) ?? item?.price;
  const isRepriced = price?.id !== item?.price.id;
  const isCounted = price !== undefined && !isMetered(price);
  const isChanged = isRepriced || (isCounted && quantity !== (item?.quantity ?? 1));
  const change: SubscriptionChange = {
    items: [{ id: itemId, ...(isCounted ? { quantity } : {}), ...(isRepriced && price ? { price_id: price.id } : {}) }],
  };
  const isWhole = isChanged && (!isCounted || quantity > 0);
  const { quote, problem, isReading } = useQuote(subscription.id, isWhole ? change : null, isBusy, (asked) =>
    api.previewSubscription(subscription.id, asked),
  );

  const apply = () =>
    run(async () => {
      if (!quote) return;
      const bound = { ...change, ...boundTo(quote) };
      const changed = await applied(api, api.updateSubscription(subscription.id, bound), refresh);
      announce(isUnpaid(changed) ? t("payment.needed") : t("told.changed"));
      onClose();
    }).finally(refresh);

  function choose(id: string) {
    const chosen = subscription.items.find((one) => one.id === id);
    setItemId(id);
    setPrice(chosen?.price.id ?? "");
    setQuantity(chosen?.quantity ?? 1);
  }

  return (
    <Modal title={t("change.title")} description={t("change.text")} isDirty={isChanged} onClose={onClose}>
      <form
        className="cs-modal-body"
        onSubmit={(event) => {
          event.preventDefault();
          if (quote && !isBusy && !isReading) void apply();
        }}
      >
        {subscription.items.length > 1 && (
          <Field label={t("change.item")}>
            {(control) => (
              <Select {...control} value={itemId} onChange={(event) => choose(event.target.value)}>
                {subscription.items.map((one) => (
                  <option key={one.id} value={one.id}>
                    {one.product.name ?? one.product.id}
                  </option>
                ))}
              </Select>
            )}
          </Field>
        )}
        {offered.length > 0 && (
          <Field label={t("change.price")}>
            {(control) => (
              <Select {...control} value={price?.id} onChange={(event) => setPrice(event.target.value)}>
                {offered.map((one) => (
                  <option key={one.id} value={one.id}>
                    {priceText(coseat, one)}
                  </option>
                ))}
              </Select>
            )}
          </Field>
        )}
        {isCounted && (
          <Field label={t("change.quantity")}>
            {(control) => (
              <TextInput
                {...control}
                inputMode="numeric"
                value={quantity}
                onChange={(event) => setQuantity(Number(event.target.value.replace(/\D/g, "").slice(0, 6)))}
              />
            )}
          </Field>
        )}
        <div aria-live="polite" className="cs-quote">
          {quote && <QuoteText quote={quote} subscription={subscription} isRepriced={isRepriced} />}
          {isReading && !quote && <p className="cs-hint">{t("quote.reading")}</p>}
          {problem && <p className="cs-error">{errorText(coseat, problem)}</p>}
        </div>
        <Failure failure={failure} />
        <div className="cs-actions cs-actions-end">
          <Button variant="primary" type="submit" isBusy={isBusy || isReading} disabled={!quote}>
            {t("change.confirm")}
          </Button>
        </div>
      </form>
    </Modal>
  );
}
