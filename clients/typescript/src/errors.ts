import type { OperationName, Problem, ProblemCode, ProblemWith } from "./types.ts";

/** An error that the API answered. `problem` has the figures that belong to `code`. */
export class CoseatError<Code extends ProblemCode = ProblemCode> extends Error {
  override readonly name = "CoseatError";
  readonly operation: OperationName;
  readonly problem: ProblemWith<Code>;
  readonly response: Response;

  constructor(operation: OperationName, problem: ProblemWith<Code>, response: Response) {
    super(`${operation}: ${problem.detail}`);
    this.operation = operation;
    this.problem = problem;
    this.response = response;
  }

  get code(): Code {
    return this.problem.code as Code;
  }

  get status(): number {
    return this.response.status;
  }

  /** The id of the request in the service's log. */
  get requestId(): string {
    return this.problem.request_id;
  }

  /** Seconds after which the request may be sent again, if the service named them. */
  get retryAfter(): number | undefined {
    return retryAfter(this.response);
  }
}

/** An answer that is no problem document: that of a proxy, for example. */
export class UnexpectedAnswer extends Error {
  override readonly name = "UnexpectedAnswer";
  readonly operation: OperationName;
  readonly response: Response;
  readonly body: unknown;

  constructor(operation: OperationName, body: unknown, response: Response) {
    super(`${operation}: status ${response.status} without a problem document`);
    this.operation = operation;
    this.body = body;
    this.response = response;
  }
}

/** Whether an error is the API's, with this code. A code that does not exist does not compile. */
export function isProblem<Code extends ProblemCode>(error: unknown, code: Code): error is CoseatError<Code> {
  return error instanceof CoseatError && error.code === code;
}

/** Returns the error of an answer that is not a success. */
export function errorOf(operation: OperationName, body: unknown, response: Response): CoseatError | UnexpectedAnswer {
  const isDocument = typeof body === "object" && body !== null && "code" in body && "request_id" in body;
  return isDocument
    ? new CoseatError(operation, body as Problem as ProblemWith<ProblemCode>, response)
    : new UnexpectedAnswer(operation, body, response);
}

/** Returns the seconds of Retry-After. The API never sends a date. */
export function retryAfter(response: Response): number | undefined {
  const seconds = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  return Number.isNaN(seconds) ? undefined : seconds;
}
