import type { MemberRole, Person, Subscription } from "../api";
import { useCoseat } from "../coseat";
import { applied, useAction, useRefresh } from "../data";
import { IconButton } from "../ui/Button";
import { Failure } from "../ui/Failure";
import { Select } from "../ui/Field";
import { MoreIcon } from "../ui/icons";
import { Menu } from "../ui/Menu";
import { Badge } from "../ui/Notice";
import { ROLE_KEYS, STATE_KEYS } from "./labels";
import type { Rights } from "./rights";

interface PersonRowProps {
  person: Person;
  me: string;
  rights: Rights;
  subscription: Subscription;
  onRemove: () => void;
  onTransfer: () => void;
  onLeave: () => void;
}

const STATE_TONES = { active: "neutral", unclaimed: "neutral", pending: "warning", invited: "accent" } as const;

export function PersonRow({ person, me, rights, subscription, onRemove, onTransfer, onLeave }: PersonRowProps) {
  const { api, t, format, announce } = useCoseat();
  const refresh = useRefresh(subscription.id);
  const { failure, run } = useAction();
  const isMe = person.customer_id === me;
  const shown = person.name ?? person.email ?? t("person.unnamed");
  const canChange = rights.canManage && !isMe && person.role !== "owner" && rights.roles.includes(person.role);

  const change = (make: () => Promise<unknown>, told: string) =>
    run(async () => {
      await make();
      announce(told);
    }).finally(refresh);

  const changeRole = (role: MemberRole) => {
    const update = [{ customer_id: person.customer_id ?? "", role }];
    return change(
      () => applied(api, api.changePeople(subscription.id, { update }), refresh),
      t("told.role", { name: shown, role: t(ROLE_KEYS[role]) }),
    );
  };

  const entries = entriesOf();
  function entriesOf() {
    if (person.state === "invited" && person.invitation_id !== null && canChange) {
      const invitation = person.invitation_id;
      const email = person.email ?? "";
      return [
        {
          label: t("person.resend"),
          onSelect: () => void change(() => api.resendInvitation(subscription.id, invitation), t("told.resent", { email })),
        },
        {
          label: t("person.revoke"),
          isDangerous: true,
          onSelect: () => void change(() => api.revokeInvitation(subscription.id, invitation), t("told.revoked", { email })),
        },
      ];
    }
    if (person.state === "pending") return [];
    if (isMe && person.role !== "owner") return [{ label: t("person.leave"), isDangerous: true, onSelect: onLeave }];
    if (!canChange) return [];
    return [
      ...(rights.canTransfer ? [{ label: t("person.transfer"), onSelect: onTransfer }] : []),
      { label: t("person.remove"), isDangerous: true, onSelect: onRemove },
    ];
  }

  return (
    <li className="cs-row" data-state={person.state}>
      <span className="cs-avatar" aria-hidden="true">
        {shown.slice(0, 1).toUpperCase()}
      </span>
      <div className="cs-row-person">
        <p className="cs-row-name">
          {shown}
          {isMe && <Badge tone="accent">{t("person.you")}</Badge>}
        </p>
        {person.email !== null && person.name !== null && <p className="cs-row-email">{person.email}</p>}
        <Failure failure={failure} />
      </div>
      <div className="cs-row-role">
        {canChange && rights.roles.length > 1 && person.customer_id !== null && person.state !== "pending" ? (
          <Select
            aria-label={t("person.role_of", { name: shown })}
            value={person.role}
            onChange={(event) => void changeRole(event.target.value as MemberRole)}
          >
            {rights.roles.map((role) => (
              <option key={role} value={role}>
                {t(ROLE_KEYS[role])}
              </option>
            ))}
          </Select>
        ) : (
          <span className="cs-role-text">{t(ROLE_KEYS[person.role])}</span>
        )}
      </div>
      <div className="cs-row-state">
        <Badge tone={STATE_TONES[person.state]}>{t(STATE_KEYS[person.state])}</Badge>
        {person.since !== null && <span className="cs-since">{t("person.since", { date: format.date(person.since) })}</span>}
      </div>
      <div className="cs-row-menu">
        {entries.length > 0 && (
          <Menu
            entries={entries}
            trigger={
              <IconButton label={t("person.actions", { name: shown })}>
                <MoreIcon />
              </IconButton>
            }
          />
        )}
      </div>
    </li>
  );
}
