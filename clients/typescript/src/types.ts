// What the generated schema says, by the names of the operations.
import type { OPERATIONS } from "./generated/operations.ts";
import type { components, operations, webhooks } from "./generated/schema.ts";

export type Schemas = components["schemas"];

/** The name of an operation: the API's operationId. */
export type OperationName = keyof typeof OPERATIONS;

type Part<Source, Key extends string> = Source extends { [K in Key]: infer Value } ? Value : never;
type Json<Content> = Content extends { content: { "application/json": infer Body } } ? Body : never;
type Problems<Content> = Content extends { content: { "application/problem+json": infer Body } } ? Body : never;
// Nothing, and an object without fields, add no fields.
type Given<Value> = [NonNullable<Value>] extends [never]
  ? unknown
  : string extends keyof NonNullable<Value>
    ? unknown
    : NonNullable<Value>;
type Flat<Value> = { [K in keyof Value]: Value[K] };

type PathOf<Name extends OperationName> = Part<operations[Name]["parameters"], "path">;
// A client of an end user speaks of that user unless it names another customer.
type Addressed<Path> = Path extends { customer_id: infer Id }
  ? Omit<Path, "customer_id"> & { customer_id?: Id }
  : Path;
type QueryOf<Name extends OperationName> = operations[Name]["parameters"] extends { query?: infer Query } ? Query : never;
type BodyOf<Name extends OperationName> = operations[Name] extends { requestBody: infer Required }
  ? Json<Required>
  : operations[Name] extends { requestBody?: infer Optional }
    ? Partial<Json<NonNullable<Optional>>>
    : never;

/** What an operation takes: its path's ids, its query and the fields of its body, in one object. */
export type Input<Name extends OperationName> = Flat<
  Given<Addressed<PathOf<Name>>> & Given<QueryOf<Name>> & Given<BodyOf<Name>>
>;

type Responses<Name extends OperationName> = operations[Name]["responses"];
type Good = 200 | 201 | 202;

/** What an operation answers. `undefined` for a 204. */
export type Answer<Name extends OperationName> =
  | { [Status in keyof Responses<Name> & Good]: Json<Responses<Name>[Status]> }[keyof Responses<Name> & Good]
  | (204 extends keyof Responses<Name> ? undefined : never);

/** A page of a list. */
export interface ListPage<Item> {
  data: Item[];
  has_more: boolean;
  next_cursor: string | null;
}

/** The names of the operations that answer a page of a list. */
export type ListName = {
  [Name in OperationName]: (typeof OPERATIONS)[Name] extends readonly [string, string, boolean, string] ? Name : never;
}[OperationName];

/** An item of a list that an operation answers. */
export type Item<Name extends ListName> = Answer<Name> extends ListPage<infer Entry> ? Entry : never;

/** An event of the feed and of the streams, by its `type`. */
export type Event = Schemas["EventPage"]["data"][number];

type Posted<Webhook> = Webhook extends { post: { requestBody?: infer Body } } ? Json<NonNullable<Body>> : never;

/** An event as it is posted to a webhook endpoint, by its `type`. `endpoint.test` is one of them. */
export type WebhookEvent = { [Type in keyof webhooks]: Posted<webhooks[Type]> }[keyof webhooks];

/** The problems that an operation may answer, its figures included. */
export type ProblemOf<Name extends OperationName> = {
  [Status in keyof Responses<Name>]: Problems<Responses<Name>[Status]>;
}[keyof Responses<Name>];

// `acceptInvitation` reports a lack of seats without figures.
type NoFigures = Schemas["NoSeatFreeProblem"] & { total?: undefined; used?: undefined; required?: undefined };

/** A problem that some operation may answer. Its `code` tells its figures. */
export type Problem = Schemas["AnyProblem"] | NoFigures;

/** A code of a problem. */
export type ProblemCode = Problem["code"];

/** The problem that a code names, with its figures. */
export type ProblemWith<Code extends ProblemCode> = Problem extends infer Any
  ? Any extends { code: infer Own }
    ? Code extends Own
      ? Any & { code: Code }
      : never
    : never
  : never;
