import { useState } from "react";
import { ApiError } from "../api";
import { useCoseat } from "../coseat";
import { applied, useAction, useLookup, useMe, useRefresh } from "../data";
import { go, useRoute } from "../page/routing";
import { ROLE_KEYS } from "../seats/labels";
import { Button } from "../ui/Button";
import { Failure } from "../ui/Failure";
import { Empty, Failed, Loading } from "../ui/States";

/** The page that an invitation's link opens. */
export function Accept() {
  const { api, t, format, announce } = useCoseat();
  const secret = useRoute().id ?? "";
  const me = useMe();
  const lookup = useLookup(secret);
  const refresh = useRefresh();
  const { isBusy, failure, run } = useAction();
  const [isDeclined, setDeclined] = useState(false);
  const invitation = lookup.data;

  const accept = () =>
    run(async () => {
      await applied(api, api.acceptInvitation(secret), refresh);
      announce(t("told.joined", { name: invitation?.product.name ?? "" }));
      await refresh();
      go("#/");
    });
  const decline = () =>
    run(async () => {
      await api.declineInvitation(secret);
      setDeclined(true);
      announce(t("told.invitation_declined"));
    });

  if (isDeclined) return <Empty title={t("told.invitation_declined")} />;
  return (
    <>
      <h1 className="cs-screen-title">{t("accept.title")}</h1>
      {lookup.isPending && <Loading rows={2} />}
      {lookup.isError && (
        <>
          {lookup.error instanceof ApiError && lookup.error.status === 404 ? (
            <Empty title={t("accept.unknown")} />
          ) : (
            <Failed error={lookup.error} onRetry={() => lookup.refetch()} />
          )}
        </>
      )}
      {invitation && (
        <article className="cs-card">
          <div>
            <h2 className="cs-card-title">{invitation.product.name ?? invitation.product.id}</h2>
            <p>
              {invitation.inviter?.name
                ? t("accept.invited_by", { name: invitation.inviter.name, role: t(ROLE_KEYS[invitation.role]) })
                : t("accept.invited", { role: t(ROLE_KEYS[invitation.role]) })}
            </p>
            <p className="cs-muted">{t("accept.until", { date: format.date(invitation.expires_at) })}</p>
            {me.data?.email && <p className="cs-muted">{t("accept.signed_in", { email: me.data.email })}</p>}
          </div>
          <Failure failure={failure} />
          <div className="cs-actions">
            <Button variant="primary" isBusy={isBusy} onClick={() => void accept()}>
              {t("accept.accept")}
            </Button>
            <Button variant="quiet" isBusy={isBusy} onClick={() => void decline()}>
              {t("accept.decline")}
            </Button>
          </div>
        </article>
      )}
    </>
  );
}
