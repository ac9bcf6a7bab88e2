import { useEffect, useRef, useState } from "react";
import type { MemberState, Person, Subscription } from "../api";
import { useCoseat } from "../coseat";
import { PEOPLE_PAGE, useAction, useDebounced, usePeople } from "../data";
import { isOffline } from "../errors";
import { Button } from "../ui/Button";
import { Failure } from "../ui/Failure";
import { Select, TextInput } from "../ui/Field";
import { DownloadIcon, SearchIcon } from "../ui/icons";
import { Empty, Failed, Loading } from "../ui/States";
import { AddPeople } from "./AddPeople";
import { downloadPeople } from "./csv";
import { ROLE_KEYS, STATE_KEYS } from "./labels";
import { Leave } from "./Leave";
import { PersonRow } from "./PersonRow";
import { Remove } from "./Remove";
import { OfferTransfer } from "./Transfer";
import type { Rights } from "./rights";
import type { MarkTyped } from "./typed";

interface PeopleProps {
  subscription: Subscription;
  me: string;
  rights: Rights;
  markTyped: MarkTyped;
  onLeft: () => void;
}

type Asked = { what: "remove" | "transfer"; person: Person } | { what: "leave" } | null;

/** The people on a subscription: found on the server, page by page. */
export function People({ subscription, me, rights, markTyped, onLeft }: PeopleProps) {
  const { t } = useCoseat();
  const [search, setSearch] = useState("");
  const [role, setRole] = useState<Person["role"] | "">("");
  const [state, setState] = useState<MemberState | "">("");
  const [cursors, setCursors] = useState<string[]>([]);
  const [asked, setAsked] = useState<Asked>(null);
  const list = useRef<HTMLDivElement>(null);
  const settled = useDebounced(search.trim(), 250);
  const cursor = cursors.at(-1);
  const people = usePeople(subscription.id, {
    limit: PEOPLE_PAGE,
    ...(settled === "" ? {} : { search: settled }),
    ...(role === "" ? {} : { role }),
    ...(state === "" ? {} : { state: [state] }),
    ...(cursor === undefined ? {} : { cursor }),
  });
  const isFiltered = settled !== "" || role !== "" || state !== "";
  const filter = (change: () => void) => {
    change();
    setCursors([]);
  };

  // The last people of a page may be removed, here or elsewhere.
  const isEmptied = cursor !== undefined && !people.isPlaceholderData && people.data?.data.length === 0;
  useEffect(() => {
    if (isEmptied) setCursors((before) => before.slice(0, -1));
  }, [isEmptied, cursor]);

  function turned(next: string[]) {
    setCursors(next);
    list.current?.focus();
  }

  return (
    <div className="cs-people">
      {rights.canManage && <AddPeople {...{ subscription, rights, markTyped }} />}
      {rights.canManage && (
        <Toolbar
          {...{ search, role, state }}
          onSearch={(value) => filter(() => setSearch(value))}
          onRole={(value) => filter(() => setRole(value))}
          onState={(value) => filter(() => setState(value))}
          subscriptionId={subscription.id}
        />
      )}
      <div
        ref={list}
        className="cs-list"
        tabIndex={-1}
        role="group"
        aria-label={t("people.list")}
        aria-busy={people.isFetching}
      >
        {people.isPending && <Loading rows={4} />}
        {people.isError && (!people.data || isOffline(people.error)) && (
          <Failed error={people.error} onRetry={() => people.refetch()} />
        )}
        {people.data && people.data.data.length === 0 && !isEmptied && (
          <Empty title={isFiltered ? t("people.none_found") : t("people.none")}>
            {isFiltered && (
              <Button onClick={() => filter(() => { setSearch(""); setRole(""); setState(""); })}>
                {t("people.show_all")}
              </Button>
            )}
          </Empty>
        )}
        {people.data && people.data.data.length > 0 && (
          <ul className="cs-rows" data-stale={people.isPlaceholderData || undefined}>
            {people.data.data.map((person) => (
              <PersonRow
                key={person.customer_id ?? person.invitation_id ?? person.email}
                {...{ person, me, rights, subscription }}
                onRemove={() => setAsked({ what: "remove", person })}
                onTransfer={() => setAsked({ what: "transfer", person })}
                onLeave={() => setAsked({ what: "leave" })}
              />
            ))}
          </ul>
        )}
      </div>
      {people.data && people.data.data.length > 0 && (
        <Pages
          first={cursors.length * PEOPLE_PAGE + 1}
          shown={people.data.data.length}
          total={people.data.total_count}
          onBack={cursors.length > 0 ? () => turned(cursors.slice(0, -1)) : null}
          onNext={people.data.next_cursor === null ? null : () => turned([...cursors, people.data.next_cursor ?? ""])}
        />
      )}
      {asked?.what === "remove" && (
        <Remove person={asked.person} subscription={subscription} rights={rights} onClose={() => setAsked(null)} />
      )}
      {asked?.what === "transfer" && (
        <OfferTransfer person={asked.person} subscription={subscription} onClose={() => setAsked(null)} />
      )}
      {asked?.what === "leave" && (
        <Leave subscription={subscription} onClose={() => setAsked(null)} onLeft={onLeft} />
      )}
    </div>
  );
}

interface ToolbarProps {
  search: string;
  role: Person["role"] | "";
  state: MemberState | "";
  subscriptionId: string;
  onSearch: (search: string) => void;
  onRole: (role: Person["role"] | "") => void;
  onState: (state: MemberState | "") => void;
}

function Toolbar({ search, role, state, subscriptionId, onSearch, onRole, onState }: ToolbarProps) {
  const coseat = useCoseat();
  const { api, t, announce } = coseat;
  const { isBusy, failure, run } = useAction();
  const download = () =>
    run(async () => {
      const count = await downloadPeople(api, subscriptionId, coseat);
      announce(t("told.downloaded", { count }));
    });

  return (
    <div className="cs-toolbar" role="search" aria-label={t("people.search")}>
      <span className="cs-search">
        <SearchIcon />
        <TextInput
          type="search"
          aria-label={t("people.search")}
          placeholder={t("people.search")}
          value={search}
          onChange={(event) => onSearch(event.target.value)}
          onKeyDown={(event) => {
            // Escape clears the search first; the next one is the dialog's.
            if (event.key === "Escape" && search !== "") {
              event.stopPropagation();
              event.nativeEvent.stopImmediatePropagation();
              onSearch("");
            }
          }}
        />
      </span>
      <Select aria-label={t("filter.role")} value={role} onChange={(event) => onRole(event.target.value as typeof role)}>
        <option value="">{t("filter.all_roles")}</option>
        {Object.entries(ROLE_KEYS).map(([value, key]) => (
          <option key={value} value={value}>
            {t(key)}
          </option>
        ))}
      </Select>
      <Select aria-label={t("filter.state")} value={state} onChange={(event) => onState(event.target.value as typeof state)}>
        <option value="">{t("filter.all_states")}</option>
        {Object.entries(STATE_KEYS).map(([value, key]) => (
          <option key={value} value={value}>
            {t(key)}
          </option>
        ))}
      </Select>
      <Button variant="quiet" isBusy={isBusy} onClick={() => void download()}>
        <DownloadIcon />
        {t("people.csv")}
      </Button>
      <Failure failure={failure} />
    </div>
  );
}

interface PagesProps {
  first: number;
  shown: number;
  total: number | null;
  onBack: (() => void) | null;
  onNext: (() => void) | null;
}

function Pages({ first, shown, total, onBack, onNext }: PagesProps) {
  const { t } = useCoseat();
  return (
    <div className="cs-pages">
      <p aria-live="polite">{t("people.range", { first, last: first + shown - 1, total: total ?? shown })}</p>
      {(onBack || onNext) && (
        <div className="cs-actions">
          <Button variant="quiet" disabled={!onBack} onClick={onBack ?? undefined}>
            {t("people.back")}
          </Button>
          <Button variant="quiet" disabled={!onNext} onClick={onNext ?? undefined}>
            {t("people.next")}
          </Button>
        </div>
      )}
    </div>
  );
}
