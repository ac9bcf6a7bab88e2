import { lazy, Suspense, useEffect, useState } from "react";
import type { Subscription } from "../api";
import { useCoseat } from "../coseat";
import { applied, useAction, useMe, useRefresh, useSubscriptions } from "../data";
import type { MessageKey } from "../i18n";
import { go, pathOf } from "../page/routing";
import { PaymentWaiting } from "../payments/PaymentWaiting";
import { productName } from "../seats/rights";
import { Button } from "../ui/Button";
import { Failure } from "../ui/Failure";
import { Badge } from "../ui/Notice";
import { Empty, Failed, Loading } from "../ui/States";
import { priceText } from "./prices";

const ChangeItems = lazy(() => import("./ChangeItems").then((module) => ({ default: module.ChangeItems })));
const EndSubscription = lazy(() => import("./EndSubscription").then((module) => ({ default: module.EndSubscription })));

const STATUS: Record<string, MessageKey> = {
  incomplete: "status.incomplete",
  incomplete_expired: "status.incomplete_expired",
  trialing: "status.trialing",
  active: "status.active",
  past_due: "status.past_due",
  canceled: "status.canceled",
  unpaid: "status.unpaid",
  paused: "status.paused",
};

const ROLES: Record<string, MessageKey> = {
  owner: "role.owner",
  manager: "role.manager",
  user: "role.user",
  payer: "role.payer",
};

const ENDED = ["canceled", "incomplete_expired"];

/** The subscriptions of the person. At the first visit, the dialog of the first shared one opens. */
export function Subscriptions({ isStart }: { isStart: boolean }) {
  const { t } = useCoseat();
  const me = useMe();
  const subscriptions = useSubscriptions();
  const list = subscriptions.data?.data;
  useEffect(() => {
    const first = list?.find((subscription) => subscription.shared !== null && !ENDED.includes(subscription.status));
    if (isStart && list) history.replaceState(null, "", first ? pathOf("shared", first.id) : pathOf("subscriptions"));
    if (isStart && first) window.dispatchEvent(new HashChangeEvent("hashchange"));
  }, [isStart, list]);
  return (
    <>
      <h1 className="cs-screen-title">{t("nav.subscriptions")}</h1>
      {me.isError && <Failed error={me.error} onRetry={() => me.refetch()} />}
      {(me.isPending || subscriptions.isPending) && !me.isError && <Loading />}
      {subscriptions.isError && !list && <Failed error={subscriptions.error} onRetry={() => subscriptions.refetch()} />}
      {list?.length === 0 && (
        <Empty title={t("subscriptions.none")}>
          <Button variant="primary" onClick={() => go(pathOf("plans"))}>
            {t("subscriptions.see_plans")}
          </Button>
        </Empty>
      )}
      {list?.map((subscription) => (
        <SubscriptionCard key={subscription.id} subscription={subscription} />
      ))}
    </>
  );
}

function SubscriptionCard({ subscription }: { subscription: Subscription }) {
  const coseat = useCoseat();
  const { api, t, format, announce } = coseat;
  const refresh = useRefresh();
  const { isBusy, failure, run } = useAction();
  const [asked, setAsked] = useState<"change" | "end" | null>(null);
  const isEnded = ENDED.includes(subscription.status);
  const isEnding = subscription.cancel_at_period_end || subscription.cancel_at !== null;
  const isMine = subscription.role === "owner" || subscription.role === "payer";
  const end = subscription.ended_at ?? subscription.cancel_at ?? subscription.items[0]?.current_period_end ?? null;
  const seats = subscription.shared?.seats;

  const resume = () =>
    run(async () => {
      await applied(api, api.updateSubscription(subscription.id, { cancel_at_period_end: false }), refresh);
      announce(t("told.resumed"));
    }).finally(refresh);

  const when = () => {
    if (end === null) return null;
    if (subscription.ended_at !== null) return t("subscription.ended", { date: format.date(end) });
    return isEnding ? t("subscription.ends", { date: format.date(end) }) : t("subscription.renews", { date: format.date(end) });
  };

  return (
    <article className="cs-card" aria-label={productName(subscription) ?? subscription.id}>
      <div className="cs-card-head">
        <div>
          <h2 className="cs-card-title">
            {productName(subscription) ?? subscription.id}
            <Badge tone={subscription.status === "past_due" || subscription.status === "unpaid" ? "danger" : "neutral"}>
              {t(STATUS[subscription.status] ?? "status.other")}
            </Badge>
            {subscription.role && <Badge tone="accent">{t(ROLES[subscription.role] ?? "role.user")}</Badge>}
          </h2>
          <p className="cs-muted">{when()}</p>
        </div>
        {subscription.shared && !isEnded && (
          <Button variant="primary" onClick={() => go(pathOf("shared", subscription.id))}>
            {t("subscription.seats")}
          </Button>
        )}
      </div>
      {subscription.pending_change && <PaymentWaiting subscription={subscription} change={subscription.pending_change} />}
      <ul>
        {subscription.items.map((item) => (
          <li key={item.id} className="cs-line">
            <span>{t("subscription.item", { name: item.product.name ?? item.product.id, count: item.quantity ?? 1 })}</span>
            <span className="cs-muted">{priceText(coseat, item.price)}</span>
          </li>
        ))}
      </ul>
      {seats && (
        <p className="cs-muted">
          {t("subscription.seats_line", { total: seats.total, used: seats.used, free: seats.available })}
        </p>
      )}
      <Failure failure={failure} />
      {isMine && !isEnded && (
        <div className="cs-actions">
          {!isEnding && <Button onClick={() => setAsked("change")}>{t("subscription.change")}</Button>}
          {isEnding ? (
            <Button isBusy={isBusy} onClick={() => void resume()}>{t("subscription.resume")}</Button>
          ) : (
            <Button variant="quiet" onClick={() => setAsked("end")}>{t("subscription.end")}</Button>
          )}
        </div>
      )}
      <Suspense fallback={null}>
        {asked === "change" && <ChangeItems subscription={subscription} onClose={() => setAsked(null)} />}
        {asked === "end" && <EndSubscription subscription={subscription} onClose={() => setAsked(null)} />}
      </Suspense>
    </article>
  );
}
