import type { Invitation, Subscription } from "../api";
import { useCoseat } from "../coseat";
import { useAction, useInvitations, useRefresh } from "../data";
import { Button } from "../ui/Button";
import { Failure } from "../ui/Failure";
import { Badge } from "../ui/Notice";
import { Empty, Failed, Loading } from "../ui/States";
import { INVITATION_STATE_KEYS, ROLE_KEYS } from "./labels";

export function Invitations({ subscription }: { subscription: Subscription }) {
  const { t } = useCoseat();
  const pages = useInvitations(subscription.id);
  const invitations = pages.data?.pages.flatMap((page) => page.data) ?? [];
  if (pages.isPending) return <Loading />;
  if (pages.isError && !pages.data) return <Failed error={pages.error} onRetry={() => pages.refetch()} />;
  if (invitations.length === 0) return <Empty title={t("invitations.none")} />;
  return (
    <>
      <ul className="cs-rows">
        {invitations.map((invitation) => (
          <InvitationRow key={invitation.id} invitation={invitation} subscriptionId={subscription.id} />
        ))}
      </ul>
      {pages.hasNextPage && <Button isBusy={pages.isFetchingNextPage} onClick={() => void pages.fetchNextPage()}>{t("list.more")}</Button>}
    </>
  );
}

function InvitationRow({ invitation, subscriptionId }: { invitation: Invitation; subscriptionId: string }) {
  const { api, t, format, announce } = useCoseat();
  const refresh = useRefresh(subscriptionId);
  const { isBusy, failure, run } = useAction();
  const email = invitation.email ?? t("person.unnamed");
  const isOpen = invitation.state === "open";

  const change = (make: () => Promise<unknown>, told: string) =>
    run(async () => {
      await make();
      announce(told);
    }).finally(refresh);

  return (
    <li className="cs-row cs-row-invitation">
      <div className="cs-row-person">
        <p className="cs-row-name">{email}</p>
        <p className="cs-row-email">
          {isOpen
            ? t("invitation.until", { role: t(ROLE_KEYS[invitation.role]), date: format.date(invitation.expires_at) })
            : t("invitation.made", { role: t(ROLE_KEYS[invitation.role]), date: format.date(invitation.created) })}
        </p>
        <Failure failure={failure} />
      </div>
      <div className="cs-row-state">
        <Badge tone={isOpen ? "accent" : "neutral"}>{t(INVITATION_STATE_KEYS[invitation.state])}</Badge>
      </div>
      <div className="cs-actions">
        {isOpen && (
          <>
            <Button
              variant="quiet"
              isBusy={isBusy}
              onClick={() => void change(() => api.resendInvitation(subscriptionId, invitation.id), t("told.resent", { email }))}
            >
              {t("person.resend")}
            </Button>
            <Button
              variant="quiet"
              isBusy={isBusy}
              onClick={() => void change(() => api.revokeInvitation(subscriptionId, invitation.id), t("told.revoked", { email }))}
            >
              {t("person.revoke")}
            </Button>
          </>
        )}
        {invitation.renewable && invitation.email !== null && (
          <Button
            variant="quiet"
            isBusy={isBusy}
            onClick={() => void change(() => api.invite(subscriptionId, email, invitation.role), t("told.invited", { count: 1 }))}
          >
            {t("invitation.renew")}
          </Button>
        )}
      </div>
    </li>
  );
}
