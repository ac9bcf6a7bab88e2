import { ApiError } from "./api";
import type { Formats } from "./format";
import type { MessageKey, Translate } from "./i18n";

/** The message of each code that a person can meet. All others are told as an error of the service. */
const MESSAGES: Record<string, MessageKey> = {
  offline: "error.offline",
  unauthenticated: "error.unauthenticated",
  card_declined: "error.card_declined",
  payment_action_required: "error.payment_action_required",
  payment_abandoned: "error.payment_abandoned",
  update_expired: "error.update_expired",
  role_required: "error.role_required",
  identity_conflict: "error.identity_conflict",
  invitation_for_another: "error.invitation_for_another",
  not_found: "error.not_found",
  customer_not_linked: "error.customer_not_linked",
  already_invited: "error.already_invited",
  already_member: "error.already_member",
  already_subscribed: "error.already_subscribed",
  cannot_be_added: "error.cannot_be_added",
  member_elsewhere: "error.cannot_be_added",
  ambiguous_email: "error.ambiguous_email",
  owner_cannot_leave: "error.owner_cannot_leave",
  not_shareable: "error.not_shareable",
  subscription_not_active: "error.subscription_not_active",
  operation_in_progress: "error.operation_in_progress",
  operation_ended: "error.operation_ended",
  request_in_progress: "error.operation_in_progress",
  payment_method_in_use: "error.payment_method_in_use",
  promotion_code_in_use: "error.promotion_code_in_use",
  managed_by_schedule: "error.managed_by_schedule",
  invitation_ended: "error.invitation_ended",
  invitations_unavailable: "error.invitations_unavailable",
  invoice_unpaid: "error.invoice_unpaid",
  quote_expired: "error.quote_expired",
  version_conflict: "error.version_conflict",
  invalid_request: "error.invalid_request",
  price_not_available: "error.price_not_available",
  currency_mismatch: "error.currency_mismatch",
  mixed_intervals: "error.mixed_intervals",
  changed_meanwhile: "error.changed_meanwhile",
  rate_limited: "error.too_many",
  too_many_in_flight: "error.too_many",
  too_many_declines: "error.too_many_declines",
  stripe_limit_reached: "error.too_many",
  stripe_rejected: "error.stripe_rejected",
  stripe_unavailable: "error.unavailable",
  database_unavailable: "error.unavailable",
  overloaded: "error.unavailable",
};

interface Told {
  t: Translate;
  format: Formats;
}

/** Returns the sentence of a code. `figures` are the members that the API gives with it. */
export function codeText({ t, format }: Told, code: string, figures: Record<string, unknown> = {}): string {
  const figure = (name: string) => (typeof figures[name] === "number" ? (figures[name] as number) : null);
  if (code === "seat_limit_reached") {
    const [total, used, required] = [figure("total"), figure("used"), figure("required")];
    if (total === null || used === null || required === null) return t("error.seat_limit_reached_plain");
    return t("error.seat_limit_reached", { free: Math.max(0, total - used), total, required });
  }
  if (code === "seats_in_use") {
    const used = figure("used");
    return used === null ? t("error.seats_in_use_plain") : t("error.seats_in_use", { used });
  }
  if (code === "unsecured_raise_limit") return t("error.unsecured_raise_limit", { allowed: figure("allowed") ?? 0 });
  if (code === "end_ambiguous") {
    const [earliest, latest] = [figures["earliest"], figures["latest"]].map(String);
    return t("error.end_ambiguous", { earliest: format.date(earliest ?? ""), latest: format.date(latest ?? "") });
  }
  return t(MESSAGES[code] ?? "error.other");
}

export function errorText(told: Told, error: unknown): string {
  return error instanceof ApiError ? codeText(told, error.code, error.figures) : told.t("error.other");
}

/** Whether the person may not see, or see no longer, what was asked for. What was read before is not to be shown. */
export function isDenied(error: unknown): boolean {
  return error instanceof ApiError && (error.status === 403 || error.status === 404);
}

export function isOffline(error: unknown): boolean {
  return error instanceof ApiError && error.code === "offline";
}
