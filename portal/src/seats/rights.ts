import type { MemberRole, Subscription } from "../api";

/** What the person may do, as far as their role tells. The API decides: a refusal is shown with its reason. */
export interface Rights {
  canSeePeople: boolean;
  canManage: boolean;
  canChangeSeats: boolean;
  canTransfer: boolean;
  /** Whether the person pays for what somebody else owns. */
  canAllowPurchases: boolean;
  /** The roles that the person may give. */
  roles: readonly MemberRole[];
}

export function rightsOf(subscription: Subscription, me: string): Rights {
  const role = subscription.role;
  const isOwner = role === "owner";
  const isPayer = subscription.customer_id === me;
  const canManage = isOwner || role === "manager";
  return {
    canSeePeople: role !== "payer",
    canManage,
    canChangeSeats: isOwner || isPayer,
    canAllowPurchases: isPayer && !isOwner,
    canTransfer: isOwner,
    roles: isOwner ? ["user", "manager"] : role === "manager" ? ["user"] : [],
  };
}

/** The item whose quantity is the number of seats. */
export function seatItem(subscription: Subscription) {
  return subscription.items.find((item) => item.product.supports_shared_subscriptions) ?? null;
}

export function productName(subscription: Subscription): string | null {
  return (seatItem(subscription) ?? subscription.items[0])?.product.name ?? null;
}
