export { createClient, etagOf, responseOf } from "./client.ts";
export type { CallOptions, Client, ClientOptions, Operation, Pages, WaitOptions } from "./client.ts";
export { CoseatError, isProblem, UnexpectedAnswer } from "./errors.ts";
export type { components, operations, paths } from "./generated/schema.ts";
export type { StreamOptions } from "./stream.ts";
export type { Token, TransportOptions } from "./transport.ts";
export type {
  Answer,
  Event,
  Input,
  Item,
  ListName,
  ListPage,
  OperationName,
  Problem,
  ProblemCode,
  ProblemOf,
  ProblemWith,
  Schemas,
  WebhookEvent,
} from "./types.ts";
export { verifyWebhook, WebhookSignatureError } from "./webhooks.ts";
export type { VerifyOptions, WebhookHeaders } from "./webhooks.ts";
