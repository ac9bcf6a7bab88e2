import { useState } from "react";
import { type Api, ApiError, type ChangeResult, type MemberRole, type Quote, type Subscription } from "../api";
import { useCoseat } from "../coseat";
import { applied, boundTo, finished, isUnpaid, useAction, useRefresh } from "../data";
import { Button } from "../ui/Button";
import { Failure } from "../ui/Failure";
import { Field, Select } from "../ui/Field";
import { AddressInput } from "./AddressInput";
import { type Address, addressesOf, joined } from "./addresses";
import { QuoteText } from "./QuoteText";
import { ROLE_KEYS } from "./labels";
import type { Rights } from "./rights";
import { type MarkTyped, useMark } from "./typed";

type Way = "invite" | "add";

/** The seats that are missing, the number of seats with them, and its price. */
interface Missing {
  seats: number;
  total: number;
  quote: Quote;
}

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
  const { isBusy, failure, run, forget } = useAction();
  const [addresses, setAddresses] = useState<Address[]>([]);
  const [text, setText] = useState("");
  const [role, setRole] = useState<MemberRole>("user");
  const [way, setWay] = useState<Way>("invite");
  const [missing, setMissing] = useState<Missing | null>(null);
  const isTyped = addresses.length > 0 || text.trim() !== "";

  useMark(markTyped, "addresses", isTyped);

  function changed(next: Address[], typed: string) {
    setAddresses(next);
    setText(typed);
    setMissing(null);
    forget();
  }

  const send = () =>
    run(async () => {
      const all = joined(addresses, addressesOf(text));
      setText("");
      setAddresses(all);
      const emails = all.filter((address) => address.problem !== "invalid_address").map((address) => address.text);
      if (emails.length === 0) return;
      const sending = { api, subscription, emails, role, refresh };
      const lacking = emails.length - freeOf(subscription);
      if (missing === null && lacking > 0 && rights.canChangeSeats) {
        setMissing(await priced(sending, way, lacking));
        return;
      }
      try {
        tell(await (way === "add" ? add(sending, missing) : invite(sending, missing)));
      } catch (error) {
        if (!(error instanceof ApiError) || error.results.length === 0) throw error;
        tell(error.results);
      } finally {
        setMissing(null);
        await refresh();
      }
    });

  /** Keeps back what was not done, and what was typed while it was sent. */
  function tell(results: Sent[]) {
    setAddresses((now) => keptBack(now, results));
    const done = results.filter(isDone).length;
    if (results.some((result) => result.outcome === "pending")) announce(t("told.adding", { count: done }));
    else if (done === 0) announce(t("told.none_added"));
    else announce(way === "add" ? t("told.added", { count: done }) : t("told.invited", { count: done }));
  }

  const bad = addresses.filter((address) => address.problem !== null).length;
  return (
    <form
      className="cs-panel cs-add"
      aria-label={t("add.title")}
      onSubmit={(event) => {
        event.preventDefault();
        if (!isBusy) void send();
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

interface Sending {
  api: Api;
  subscription: Subscription;
  emails: string[];
  role: MemberRole;
  refresh: () => Promise<void>;
}

/** Returns how many seats are free. It is negative if people are on more seats than there are. */
function freeOf({ shared }: Subscription): number {
  return (shared?.seats.available ?? 0) - (shared?.seats.over_allocated ?? 0);
}

function additions({ emails, role }: Sending) {
  return emails.map((email) => ({ email, role }));
}

async function priced(sending: Sending, way: Way, seats: number): Promise<Missing> {
  const { api, subscription } = sending;
  const total = (subscription.shared?.seats.total ?? 0) + seats;
  const quote = await api.quoteSeats(subscription.id, way === "add" ? { add: additions(sending) } : { total });
  return { seats, total, quote };
}

async function add(sending: Sending, missing: Missing | null): Promise<Sent[]> {
  const { api, subscription, refresh } = sending;
  const bought = missing === null ? {} : { over_capacity: "add_seats" as const, ...boundTo(missing.quote) };
  const change = api.changePeople(subscription.id, { add: additions(sending), ...bought });
  return (await finished(api, change, refresh)).results.filter((result) => result.action === "add");
}

/** Buys what is missing, then invites one address after the other. An address that is refused stops no other. */
async function invite({ api, subscription, emails, role, refresh }: Sending, missing: Missing | null): Promise<Sent[]> {
  if (missing !== null) {
    const change = { total: missing.total, ...boundTo(missing.quote) };
    const bought = await applied(api, api.setSeats(subscription.id, change), refresh);
    if (isUnpaid(bought)) throw new ApiError("payment_action_required", 402);
  }
  const results: Sent[] = [];
  for (const email of emails) {
    try {
      await api.invite(subscription.id, email, role);
      results.push({ email, outcome: "applied", code: null });
    } catch (error) {
      const isRefused = error instanceof ApiError && error.status >= 400 && error.status < 500;
      if (!isRefused && results.length === 0) throw error;
      const { code, figures } = error instanceof ApiError ? error : { code: "internal_error", figures: {} };
      results.push({ ...figures, email, outcome: "refused", code });
      if (!isRefused) break;
    }
  }
  return results;
}

function isDone({ outcome }: Sent): boolean {
  return ["applied", "unchanged", "pending"].includes(outcome);
}

/** Returns the addresses that stay in the input: all but those that are done, and the refused ones with the reason. */
function keptBack(addresses: Address[], results: Sent[]): Address[] {
  return addresses.flatMap((address) => {
    const result = results.find((one) => one.email?.toLowerCase() === address.text.toLowerCase());
    if (result === undefined) return [address];
    return isDone(result) ? [] : [{ text: address.text, problem: result.code ?? "internal_error", figures: { ...result } }];
  });
}
