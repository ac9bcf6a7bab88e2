import { keepPreviousData, useInfiniteQuery, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { type Api, ApiError, type ChangeResult, type Operation, type Payment, type PeopleQuery, type Quote } from "./api";
import { useCoseat } from "./coseat";

/** Keys of what is cached. Everything of one subscription is below `["shared", id]`, so that one event refreshes it. */
export const keys = {
  mine: ["mine"] as const,
  subscriptions: ["mine", "subscriptions"] as const,
  shared: (id: string) => ["shared", id] as const,
};

/**
 * The customer of the person, who is created at the first visit. That request may link them to their seat, so that what
 * is theirs is read after it.
 */
export function useMe() {
  const { api } = useCoseat();
  return useQuery({ queryKey: ["me"], queryFn: () => api.ensureCustomer(), staleTime: 60_000 });
}

export function useSubscriptions() {
  const { api } = useCoseat();
  return useQuery({ queryKey: keys.subscriptions, queryFn: () => api.subscriptions(), enabled: useMe().isSuccess });
}

export function useProducts() {
  const { api } = useCoseat();
  return useQuery({ queryKey: ["products"], queryFn: () => api.products() });
}

export function useInvoices() {
  const { api } = useCoseat();
  return useInfiniteQuery({
    queryKey: [...keys.mine, "invoices"],
    queryFn: ({ pageParam }) => api.invoices(pageParam),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next_cursor ?? undefined,
  });
}

export function usePaymentMethods() {
  const { api } = useCoseat();
  return useQuery({ queryKey: [...keys.mine, "methods"], queryFn: () => api.paymentMethods(), enabled: useMe().isSuccess });
}

export function useLookup(secret: string) {
  const { api } = useCoseat();
  return useQuery({ queryKey: ["lookup", secret], queryFn: () => api.lookUpInvitation(secret) });
}

export function useSharedSubscription(id: string) {
  const { api } = useCoseat();
  return useQuery({
    queryKey: [...keys.shared(id), "subscription"],
    queryFn: () => api.sharedSubscription(id),
    enabled: useMe().isSuccess,
  });
}

/** People on one page of a subscription's list. */
export const PEOPLE_PAGE = 20;

export function usePeople(id: string, query: PeopleQuery) {
  const { api } = useCoseat();
  return useQuery({
    queryKey: [...keys.shared(id), "people", query],
    queryFn: () => api.people(id, query),
    placeholderData: keepPreviousData,
  });
}

export function useTransfer(id: string) {
  const { api } = useCoseat();
  return useQuery({ queryKey: [...keys.shared(id), "transfer"], queryFn: () => api.transfer(id) });
}

export function useHistory(id: string) {
  const { api } = useCoseat();
  return useInfiniteQuery({
    queryKey: [...keys.shared(id), "history"],
    queryFn: ({ pageParam }) => api.history(id, pageParam),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next_cursor ?? undefined,
  });
}

export function useInvitations(id: string) {
  const { api } = useCoseat();
  return useInfiniteQuery({
    queryKey: [...keys.shared(id), "invitations"],
    queryFn: ({ pageParam }) => api.invitations(id, pageParam),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next_cursor ?? undefined,
  });
}

/** Returns a function that reads a subscription, its people and the lists it is in again. */
export function useRefresh(id?: string) {
  const queries = useQueryClient();
  return async () => {
    await Promise.all([
      queries.invalidateQueries({ queryKey: id === undefined ? ["shared"] : keys.shared(id) }),
      queries.invalidateQueries({ queryKey: keys.mine }),
    ]);
  };
}

const GATHERED_FOR = 120;
const PAUSE = 5_000;

/**
 * Reads everything of a subscription again when its event stream reports a change. Events that come within 120 ms make
 * one read.
 */
export function useLive(id: string) {
  const { api } = useCoseat();
  const refresh = useRef<() => Promise<void>>(async () => {});
  refresh.current = useRefresh(id);
  useEffect(() => {
    const stopping = new AbortController();
    void follow(api, id, stopping.signal, () => refresh.current());
    return () => stopping.abort();
  }, [api, id]);
}

async function follow(api: Api, id: string, signal: AbortSignal, refresh: () => Promise<void>) {
  let gathering: number | undefined;
  const changed = () => {
    gathering ??= window.setTimeout(() => {
      gathering = undefined;
      void refresh();
    }, GATHERED_FOR);
  };
  while (!signal.aborted) {
    // A stream is refused to a person who lost their seat, or whose place in it is too old. Reading again shows which.
    await api.follow(id, signal, changed).catch(changed);
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
}

export function useOnline(): boolean {
  const [isOnline, setOnline] = useState(navigator.onLine);
  useEffect(() => {
    const update = () => setOnline(navigator.onLine);
    window.addEventListener("online", update);
    window.addEventListener("offline", update);
    return () => {
      window.removeEventListener("online", update);
      window.removeEventListener("offline", update);
    };
  }, []);
  return isOnline;
}

/** Returns `value` once it has not changed for `milliseconds`. */
export function useDebounced<T>(value: T, milliseconds: number): T {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), milliseconds);
    return () => clearTimeout(timer);
  }, [value, milliseconds]);
  return settled;
}

const SETTLES_AFTER = 250;

/**
 * Returns the exact price of `change` once it has not been edited for 250 ms, and nothing for null. It is read again with
 * everything of the subscription, and after a change that failed: an expired price is not sent twice. Nothing is sent
 * while `isReading`. While the change runs (`isBusy`), the price that it was sent with stays.
 */
export function useQuote<Change>(id: string, change: Change | null, isBusy: boolean, read: (change: Change) => Promise<Quote>) {
  const wanted = JSON.stringify(change);
  const asked = useDebounced(wanted, SETTLES_AFTER);
  const isCurrent = change !== null && asked === wanted;
  const { data, error, isFetching } = useQuery({
    queryKey: [...keys.shared(id), "quote", asked],
    queryFn: () => read(JSON.parse(asked) as Change),
    enabled: isCurrent && !isBusy,
    staleTime: 0,
    gcTime: 0,
  });
  // While others change the subscription, the price that is shown stays good. One that was sent is read again first.
  const sent = useRef<Quote>(undefined);
  if (isBusy) sent.current = data;
  const isReading = change !== null && (!isCurrent || (isFetching && (data === undefined || data === sent.current)));
  return { quote: isCurrent && error === null ? data : undefined, problem: isCurrent && !isFetching ? error : null, isReading };
}

/** Returns what binds a change to the price that was shown. */
export function boundTo(quote: Quote): { quote_id: string; forgo_credit?: true } {
  return { quote_id: quote.quote_id, ...(quote.credit_forgone > 0 ? { forgo_credit: true } : {}) };
}

type Answer = { pending: boolean; operation_id: string | null };

/** Waits for a change, also if it is not done at once. Until then `refresh` shows what is in progress. */
export async function finished<T extends Answer>(api: Api, call: Promise<T>, refresh: () => Promise<void>): Promise<T | Operation> {
  const answer = await call;
  if (!answer.pending || answer.operation_id === null) return answer;
  void refresh();
  return api.finished(answer.operation_id);
}

/** Runs one change at a time and keeps its failure until the next one. */
export function useAction() {
  const [isBusy, setBusy] = useState(false);
  const [failure, setFailure] = useState<unknown>(null);
  async function run(action: () => Promise<void>) {
    setBusy(true);
    setFailure(null);
    try {
      await action();
    } catch (error) {
      setFailure(error);
    } finally {
      setBusy(false);
    }
  }
  return { isBusy, failure, run, forget: () => setFailure(null) };
}

const PAID: readonly (string | null)[] = ["succeeded", "processing"];

/** Whether a change waits for a payment that the person has to make. */
export function isUnpaid(answer: { payment: Payment | null }): boolean {
  return answer.payment !== null && !PAID.includes(answer.payment.status);
}

/** Returns what a change became. Raises the first refusal of its results. */
export async function applied<T extends Answer>(api: Api, call: Promise<T>, refresh: () => Promise<void>): Promise<T | Operation> {
  const answer = await finished(api, call, refresh);
  const results = "results" in answer ? (answer.results as ChangeResult[]) : [];
  const refused = results.find((result) => result.code !== null);
  if (refused?.code) throw new ApiError(refused.code, 409, refused);
  return answer;
}
