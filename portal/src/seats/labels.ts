import type { MessageKey } from "../i18n";

export const ROLE_KEYS: Record<"owner" | "manager" | "user", MessageKey> = {
  owner: "role.owner",
  manager: "role.manager",
  user: "role.user",
};

export const STATE_KEYS: Record<"active" | "unclaimed" | "pending" | "invited", MessageKey> = {
  active: "member.active",
  unclaimed: "member.unclaimed",
  pending: "member.pending",
  invited: "member.invited",
};

export const INVITATION_STATE_KEYS: Record<"open" | "accepted" | "declined" | "expired" | "revoked", MessageKey> = {
  open: "invitation.open",
  accepted: "invitation.accepted",
  declined: "invitation.declined",
  expired: "invitation.expired",
  revoked: "invitation.revoked",
};
