import type { AuditEvent } from "../api";
import { useCoseat } from "../coseat";
import { PEOPLE_PAGE, useHistory, usePeople } from "../data";
import type { MessageKey } from "../i18n";
import { Button } from "../ui/Button";
import { Empty, Failed, Loading } from "../ui/States";

const ACTIONS: Record<string, MessageKey> = {
  member_added: "history.member_added",
  member_removed: "history.member_removed",
  role_changed: "history.role_changed",
  subscription_changed: "history.subscription_changed",
  purchases_allowed: "history.purchases_allowed",
  purchases_withdrawn: "history.purchases_withdrawn",
  invitation_created: "history.invitation_created",
  invitation_resent: "history.invitation_resent",
  invitation_accepted: "history.invitation_accepted",
  invitation_declined: "history.invitation_declined",
  invitation_expired: "history.invitation_expired",
  invitation_revoked: "history.invitation_revoked",
};

const SOURCES: Record<AuditEvent["source"], MessageKey> = {
  api: "source.api",
  dashboard: "source.dashboard",
  reconcile: "source.reconcile",
};

export function History({ subscriptionId }: { subscriptionId: string }) {
  const { t, format } = useCoseat();
  const pages = useHistory(subscriptionId);
  const people = usePeople(subscriptionId, { limit: PEOPLE_PAGE });
  const names = new Map(people.data?.data.map((one) => [one.customer_id, one.name ?? one.email]));
  const events = pages.data?.pages.flatMap((page) => page.data) ?? [];
  if (pages.isPending) return <Loading />;
  if (pages.isError && !pages.data) return <Failed error={pages.error} onRetry={() => pages.refetch()} />;
  if (events.length === 0) return <Empty title={t("history.none")} />;
  return (
    <>
      <ol className="cs-rows cs-history">
        {events.map((event) => (
          <li key={`${event.at} ${event.action} ${event.customer_id}`} className="cs-row">
            <div className="cs-row-person">
              <p className="cs-row-name">{t(ACTIONS[event.action] ?? "history.other")}</p>
              <p className="cs-row-email">{details(event)}</p>
            </div>
            <div className="cs-row-state">
              <span className="cs-since">{t(SOURCES[event.source])}</span>
              <time className="cs-since" dateTime={event.at}>
                {format.moment(event.at)}
              </time>
            </div>
          </li>
        ))}
      </ol>
      {pages.hasNextPage && <Button isBusy={pages.isFetchingNextPage} onClick={() => void pages.fetchNextPage()}>{t("list.more")}</Button>}
    </>
  );

  function details(event: AuditEvent): string {
    const by = event.actor_customer_id === null ? event.service : named(event.actor_customer_id);
    return [event.customer_id && named(event.customer_id), by && t("history.by", { by })].filter(Boolean).join(" · ");
  }

  /** The id stands for people who are not on the first page, or have left. */
  function named(customerId: string): string {
    return names.get(customerId) ?? customerId;
  }
}
