import type { Subscription } from "../api";
import { useCoseat } from "../coseat";
import { useAction, useRefresh } from "../data";
import { Button } from "../ui/Button";
import { Failure } from "../ui/Failure";
import { Notice } from "../ui/Notice";

/** Lets the payer give and withdraw the owner's right to buy. The payer sees no members. */
export function PurchasePermission({ subscription }: { subscription: Subscription }) {
  const { api, t, announce } = useCoseat();
  const refresh = useRefresh(subscription.id);
  const { isBusy, failure, run } = useAction();
  const isAllowed = subscription.shared?.owner_may_purchase === true;

  const change = () =>
    run(async () => {
      await (isAllowed ? api.withdrawPurchases(subscription.id) : api.allowPurchases(subscription.id));
      announce(isAllowed ? t("told.permission_withdrawn") : t("told.permission_given"));
    }).finally(refresh);

  return (
    <Notice
      tone="info"
      title={isAllowed ? t("permission.given") : t("permission.none")}
      actions={
        <Button isBusy={isBusy} onClick={() => void change()}>
          {isAllowed ? t("permission.withdraw") : t("permission.give")}
        </Button>
      }
    >
      <p>{t("permission.text")}</p>
      <Failure failure={failure} />
    </Notice>
  );
}
