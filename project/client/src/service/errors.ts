/** The kind of a failure, by which the page chooses the buttons that it shows. */
export type Kind =
  /** The service rejected the request; `errors` may name the fields. */
  | 'rejected'
  /** The service requires a token, and the reader entered none. */
  | 'token'
  /** The service requires a token, and has none configured. */
  | 'closed'
  | 'missing'
  /** The user has changed since it was read. */
  | 'changed'
  /** The service is overloaded or unavailable; a retry may succeed. */
  | 'busy'
  | 'unreachable'
  /** The response comes from another service. */
  | 'foreign';

interface Details {
  /** The cause, or what to do, as a sentence. */
  hint?: string;
  /** The error of each wrong field. */
  errors?: Record<string, string>;
  /** The seconds of `Retry-After`. */
  retryAfter?: number | undefined;
}

/** The error of a failed request. Its texts are for the reader of the page. */
export class ServiceError extends Error {
  readonly kind: Kind;
  readonly hint: string;
  readonly errors: Readonly<Record<string, string>>;
  readonly retryAfter: number | undefined;

  constructor(kind: Kind, message: string, { hint = '', errors = {}, retryAfter }: Details = {}) {
    super(message);
    this.name = 'ServiceError';
    this.kind = kind;
    this.hint = hint;
    this.errors = errors;
    this.retryAfter = retryAfter;
  }
}

const UNREACHABLE = 'The users service cannot be reached.';

/** Returns the error of a request that got no response. */
export function noResponse(timedOutAfter?: number): ServiceError {
  return new ServiceError('unreachable', UNREACHABLE, {
    hint: timedOutAfter ? `It did not respond within ${timedOutAfter} seconds.` : 'Check your connection.',
  });
}

/** Returns the error for a response that does not come from the users service. */
export function foreign(): ServiceError {
  return new ServiceError('foreign', 'The response did not come from the users service.', {
    hint: 'Another service uses its address. The operator of this page can correct the address.',
  });
}

/**
 * Returns the error for a response that is not a success.
 *
 * @param status The HTTP status, 400 or above.
 * @param retryAfter The header `Retry-After`.
 * @param body The JSON object of the response; null when it has none.
 */
export function fromResponse(status: number, retryAfter: string | null, body: Failure | null): ServiceError {
  const seconds = retryAfter && /^\d{1,5}$/.test(retryAfter) ? Math.max(1, Number(retryAfter)) : undefined;
  if (status === 429) {
    return new ServiceError('busy', 'The users service is receiving too many requests.', { retryAfter: seconds ?? 5 });
  }
  if (status === 502 || status === 504) return new ServiceError('unreachable', UNREACHABLE, { retryAfter: seconds });
  if (status === 503) {
    return new ServiceError('busy', 'The users service is not available at the moment.', { retryAfter: seconds ?? 2 });
  }
  if (!body || typeof body.message !== 'string') return foreign();
  if (status === 403) {
    return new ServiceError('closed', 'This service has no API tokens, so this cannot be done here.', {
      hint: 'Its operator can allow it by setting API_TOKENS.',
    });
  }
  if (status === 404) return new ServiceError('missing', body.message);
  if (status === 412) return new ServiceError('changed', body.message);
  if (status >= 500) {
    return new ServiceError('rejected', 'The users service failed.', { hint: 'Its log has the details.' });
  }
  // For an email that is taken, the service sends a message and no `errors`.
  const errors = body.message.includes('email already exists') ? { email: body.message } : sentences(body.errors ?? {});
  return new ServiceError('rejected', body.message, { errors });
}

/** The parts of an error response that the page reads. */
export interface Failure {
  status?: unknown;
  message?: unknown;
  errors?: Record<string, string>;
}

/** Makes sentences of the service's errors: of `username: is required`, 'Username is required.'. */
function sentences(errors: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(errors).map(([field, words]) => [
    field, `${field.charAt(0).toUpperCase()}${field.slice(1)} ${words}.`,
  ]));
}

/** Returns a thrown value as a `ServiceError`. */
export function asServiceError(thrown: unknown): ServiceError {
  if (thrown instanceof ServiceError) return thrown;
  return new ServiceError('foreign', 'Something went wrong on this page.', { hint: String(thrown) });
}
