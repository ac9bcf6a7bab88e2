// What became of a change that the API answered with 202.
import type { Client, Schemas } from "@coseat/client";

/** An operation, as the answer to a change or a later read shows it. */
export type Operation = Schemas["AcceptedOperation"] | Schemas["OperationAnswer"];

/** How long a change that still runs is waited for, in milliseconds. */
const LONGEST_WAIT = 60_000;

/**
 * Waits for a change that still runs, at most until it waits for a payment.
 *
 * If it takes longer, or if it cannot be read, it is returned as it was accepted: its state is `running`.
 */
export async function outcome(coseat: Client, accepted: Schemas["AcceptedOperation"]): Promise<Operation> {
  if (accepted.state !== "running") return accepted;
  return coseat.waitForOperation(accepted, { signal: AbortSignal.timeout(LONGEST_WAIT) }).catch(() => accepted);
}
