// What the generated clients must and must not compile. It is not run.
import type { components, paths } from "@coseat/client";
import createFetchClient from "openapi-fetch";
import * as sdk from "../generated/hey/sdk.gen.ts";

const path = { subscription_id: "sub_1" };

export async function byOpenapiFetch(): Promise<void> {
  const client = createFetchClient<paths>({ baseUrl: "https://billing.example.com" });
  const body = { total: 3 };
  const { data, error } = await client.PUT("/v1/shared-subscriptions/{subscription_id}/seats", { params: { path }, body });
  if (data !== undefined) data.pending satisfies boolean;
  if (error?.code === "seats_in_use") error.requested satisfies number | undefined;
  // @ts-expect-error -- a code that does not exist
  if (error?.code === "seats_in_used") return;
  // @ts-expect-error -- a field that the body does not have
  await client.PUT("/v1/shared-subscriptions/{subscription_id}/seats", { params: { path }, body: { totals: 3 } });
}

export async function byHeyApi(): Promise<void> {
  const { data, error } = await sdk.setSeats({ path, body: { total: 3 } });
  if (data !== undefined) data.pending satisfies boolean;
  if (error?.code === "seats_in_use") error.requested satisfies number | undefined;
  // @ts-expect-error -- a code that does not exist
  if (error?.code === "seats_in_used") return;
  // @ts-expect-error -- a field that the body does not have
  await sdk.setSeats({ path, body: { totals: 3 } });
}

export function figures(problem: components["schemas"]["AnyProblem"]): string | undefined {
  switch (problem.code) {
    case "seat_limit_reached":
      return `${problem.used} of ${problem.total}, ${problem.required} needed`;
    case "card_declined":
      return problem.decline_code ?? undefined;
    case "already_subscribed":
      return problem.subscription_id;
    case "unauthenticated":
      return problem.reason ?? undefined;
    case "end_ambiguous":
      return problem.latest;
    default:
      return undefined;
  }
}
