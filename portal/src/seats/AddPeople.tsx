import { useEffect, useState } from "react";
import { type Api, ApiError, type ChangeResult, type MemberRole, type Quote, type Subscription } from "../api";
import { useCoseat } from "../coseat";
import { applied, finished, isUnpaid, useRefresh } from "../data";
import { Button } from "../ui/Button";
import { Failure } from "../ui/Failure";
import { Field, Select } from "../ui/Field";
import { AddressInput } from "./AddressInput";
import { type Address, addressesOf, joined } from "./addresses";
import { QuoteText } from "./QuoteText";
import { ROLE_KEYS } from "./labels";
import type { Rights } from "./rights";
import type { MarkTyped } from "./SeatDialog";

type Way = "invite" | "add";

/** What became of one address. */
type Sent = Pick<ChangeResult, "email" | "outcome"> & { code: string | null };

interface AddPeopleProps {
  subscription: Subscription;
  rights: Rights;
  markTyped: MarkTyped;
}

/** Invites or adds people. If seats are missing, their price is shown, and one button buys them and goes on. */
export function AddPeople({ subscription, rights, markTyped }: AddPeopleProps) {
  const { api, t, announce } = useCoseat();
  const refresh = useRefresh(subscription.id);
  const [addresses, setAddresses] = useState<Address[]>([]);
  const [text, setText] = useState("");
  const [role, setRole] = useState<MemberRole>("user");
  const [way, setWay] = useState<Way>("invite");
  const [isBusy, setBusy] = useState(false);
  const [failure, setFailure] = useState<unknown>(null);
  const [missing, setMissing] = useState<{ seats: number; quote: Quote } | null>(null);
  const isTyped = addresses.length > 0 || text.trim() !== "";

  useEffect(() => {
    markTyped("addresses", isTyped);
    return () => markTyped("addresses", false);
  }, [markTyped, isTyped]);

  function changed(next: Address[], typed: string) {
    setAddresses(next);
    setText(typed);
    setMissing(null);
    setFailure(null);
  }

  async function send(quote: Quote | null) {
    const all = joined(addresses, addressesOf(text));
    setText("");
    setAddresses(all);
    const good = all.filter((address) => address.problem !== "invalid_address").map((address) => address.text);
    if (good.length === 0) return;
    setBusy(true);
    setFailure(null);
    try {
      const lacking = good.length - (subscription.shared?.seats.available ?? 0);
      if (quote === null && lacking > 0 && rights.canChangeSeats) {
        setMissing({ seats: lacking, quote: await quoteFor(api, subscription, way, good, role, lacking) });
        return;
      }
      const results = await (way === "add"
        ? add(api, subscription, good, role, quote, refresh)
        : invite(api, subscription, good, role, quote, lacking, refresh));
      setMissing(null);
      const kept = keptBack(all, results);
      setAddresses(kept);
      await refresh();
      const done = good.length - kept.filter((address) => address.problem !== "invalid_address").length;
      announce(toldOf(done, results.some((result) => result.outcome === "pending")));
    } catch (error) {
      setMissing(null);
      setFailure(error);
      if (error instanceof ApiError && error.results.length > 0) {
        setAddresses(keptBack(all, error.results));
        setFailure(null);
        announce(t("told.none_added"));
      }
      await refresh();
    } finally {
      setBusy(false);
    }
  }

  function toldOf(done: number, isPending: boolean): string {
    if (isPending) return t("told.adding", { count: done });
    if (done === 0) return t("told.none_added");
    return way === "add" ? t("told.added", { count: done }) : t("told.invited", { count: done });
  }

  const bad = addresses.filter((address) => address.problem !== null).length;
  return (
    <form
      className="cs-panel cs-add"
      aria-label={t("add.title")}
      onSubmit={(event) => {
        event.preventDefault();
        if (!isBusy) void send(missing?.quote ?? null);
      }}
    >
      <Field label={t("add.addresses")} error={bad > 0 ? t("add.kept", { count: bad }) : undefined}>
        {(control) => <AddressInput control={control} addresses={addresses} text={text} onChange={changed} />}
      </Field>
      <div className="cs-add-line">
        {rights.roles.length > 1 && (
          <Field label={t("add.role")} isLabelHidden>
            {(control) => (
              <Select {...control} value={role} onChange={(event) => setRole(event.target.value as MemberRole)}>
                {rights.roles.map((one) => (
                  <option key={one} value={one}>
                    {t(ROLE_KEYS[one])}
                  </option>
                ))}
              </Select>
            )}
          </Field>
        )}
        <Field label={t("add.way")} isLabelHidden>
          {(control) => (
            <Select {...control} value={way} onChange={(event) => { setWay(event.target.value as Way); setMissing(null); }}>
              <option value="invite">{t("add.way_invite")}</option>
              <option value="add">{t("add.way_add")}</option>
            </Select>
          )}
        </Field>
        {missing === null && (
          <Button variant="primary" type="submit" isBusy={isBusy} disabled={!isTyped}>
            {way === "add" ? t("add.submit_add") : t("add.submit_invite")}
          </Button>
        )}
      </div>
      {missing && (
        <div className="cs-quote-line" role="group" aria-label={t("missing.title", { count: missing.seats })}>
          <div aria-live="polite" className="cs-quote">
            <p className="cs-notice-title">{t("missing.title", { count: missing.seats })}</p>
            <QuoteText quote={missing.quote} subscription={subscription} />
          </div>
          <div className="cs-actions">
            <Button variant="quiet" onClick={() => setMissing(null)}>
              {t("dialog.cancel")}
            </Button>
            <Button variant="primary" type="submit" isBusy={isBusy}>
              {way === "add"
                ? t("missing.buy_and_add", { count: missing.seats })
                : t("missing.buy_and_invite", { count: missing.seats })}
            </Button>
          </div>
        </div>
      )}
      <Failure failure={failure} />
    </form>
  );
}

function additions(addresses: string[], role: MemberRole) {
  return addresses.map((email) => ({ email, role }));
}

function quoteFor(api: Api, subscription: Subscription, way: Way, good: string[], role: MemberRole, lacking: number) {
  if (way === "add") return api.quoteSeats(subscription.id, { add: additions(good, role) });
  return api.quoteSeats(subscription.id, { total: (subscription.shared?.seats.total ?? 0) + lacking });
}

async function add(
  api: Api,
  subscription: Subscription,
  good: string[],
  role: MemberRole,
  quote: Quote | null,
  refresh: () => Promise<void>,
): Promise<Sent[]> {
  const bought = quote === null ? {} : { over_capacity: "add_seats" as const, quote_id: quote.quote_id };
  const change = api.changePeople(subscription.id, { add: additions(good, role), ...bought });
  return (await finished(api, change, refresh)).results.filter((result) => result.action === "add");
}

/** Buys what is missing, then invites one address after the other. An address that is refused stops no other. */
async function invite(
  api: Api,
  subscription: Subscription,
  good: string[],
  role: MemberRole,
  quote: Quote | null,
  lacking: number,
  refresh: () => Promise<void>,
): Promise<Sent[]> {
  if (quote !== null) {
    const total = (subscription.shared?.seats.total ?? 0) + lacking;
    const bought = await applied(api, api.setSeats(subscription.id, { total, quote_id: quote.quote_id }), refresh);
    if (isUnpaid(bought)) throw new ApiError("payment_action_required", 402);
  }
  const results: Sent[] = [];
  for (const email of good) {
    try {
      await api.invite(subscription.id, email, role);
      results.push({ email, outcome: "applied", code: null });
    } catch (error) {
      if (!(error instanceof ApiError) || error.status === 0) throw error;
      results.push({ ...error.figures, email, outcome: "refused", code: error.code });
    }
  }
  return results;
}

/** Returns the addresses that stay in the input: those that are none, and those that were refused, with the reason. */
function keptBack(addresses: Address[], results: Sent[]): Address[] {
  return addresses.flatMap((address) => {
    if (address.problem === "invalid_address") return [address];
    const result = results.find((one) => one.email?.toLowerCase() === address.text.toLowerCase());
    const isDone = result === undefined || ["applied", "unchanged", "pending"].includes(result.outcome);
    return isDone ? [] : [{ text: address.text, problem: result.code ?? "internal_error", figures: { ...result } }];
  });
}
