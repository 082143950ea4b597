/** The users service: every request of the page is made here. */

export interface User {
  id: number;
  username: string;
  email: string;
  active: boolean;
  /** The moment of creation: RFC 3339 in UTC, with microseconds. */
  created_at: string;
}

export interface Page {
  users: User[];
  /** What `getMoreUsers` takes to get the page after this one; null on the last page. */
  next: string | null;
}

/** A request that failed, told in words for the reader of the page. */
export class ServiceError extends Error {
  /** A cause or a way out, in a sentence; '' when the message says it all. */
  readonly hint: string;
  /** For each wrong field, what the service says is wrong with it. */
  readonly errors: Readonly<Record<string, string>>;

  constructor(message: string, hint = '', errors: Record<string, string> = {}) {
    super(message);
    this.name = 'ServiceError';
    this.hint = hint;
    this.errors = errors;
  }
}

/** Whatever was thrown, as something that can be shown. */
export function asServiceError(thrown: unknown): ServiceError {
  return thrown instanceof ServiceError ? thrown : new ServiceError('Something went wrong on this page.', String(thrown));
}

/** The body of every answer of the service, errors included. */
interface Envelope<Data> {
  message?: string;
  data?: Data;
  errors?: Record<string, string>;
}

const SERVICE_URL = (import.meta.env.REACT_APP_USERS_SERVICE_URL ?? '').trim().replace(/\/+$/, '');
const PAGE_SIZE = 50;
const TIMEOUT_SECONDS = 10;
const UNREACHABLE = 'The users service cannot be reached.';

/**
 * Get the newest users, or those that have an email.
 *
 * @param email The address to look up, in any letter case; '' for everybody.
 * @param signal Aborts the request; the promise is then rejected with the signal's reason.
 * @throws {ServiceError} The service can't be reached, or refuses.
 */
export function getUsers(email: string, signal: AbortSignal): Promise<Page> {
  const query = new URLSearchParams({ limit: String(PAGE_SIZE) });
  if (email) query.set('email', email);
  return getPage(`?${query}`, signal);
}

/**
 * Get the page that follows another.
 *
 * @param next The `next` of that page.
 * @throws {ServiceError} The service can't be reached, or refuses.
 */
export async function getMoreUsers(next: string): Promise<Page> {
  // Only the query is taken: behind a proxy the service need not know under which path it is mounted.
  return getPage(new URL(next, location.origin).search);
}

/**
 * Add a user.
 *
 * @param typed The username and the email, as they were typed: what is valid is the service's to say.
 * @returns The user as the service keeps it, and the service's message about it.
 * @throws {ServiceError} The service can't be reached, or refuses; `errors` then tells the wrong fields.
 */
export async function addUser(typed: Pick<User, 'username' | 'email'>): Promise<{ user: User; message: string }> {
  const { data, message = '' } = await request<User>('', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(typed),
  });
  if (typeof data?.id !== 'number') throw notTheService();
  return { user: data, message };
}

async function getPage(query: string, signal?: AbortSignal): Promise<Page> {
  const { data } = await request<{ users: User[]; next?: string }>(query, {}, signal);
  if (!Array.isArray(data?.users)) throw notTheService();
  return { users: data.users, next: data.next ?? null };
}

async function request<Data>(query: string, init: RequestInit, signal?: AbortSignal): Promise<Envelope<Data>> {
  const timeout = AbortSignal.timeout(TIMEOUT_SECONDS * 1000);
  let response: Response;
  let body: string;
  try {
    response = await fetch(`${SERVICE_URL}/users${query}`, {
      ...init,
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    body = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ServiceError(UNREACHABLE, timeout.aborted
      ? `It did not answer within ${TIMEOUT_SECONDS} seconds.`
      : 'Check your connection, or try again in a moment.');
  }
  const envelope = parse<Data>(body);
  // 502 and 504 come from a web server before a service that is down, 503 from a service without its database.
  if ([502, 503, 504].includes(response.status)) {
    throw new ServiceError(UNREACHABLE, 'It is not ready to answer. Try again in a moment.');
  }
  if (!envelope) throw notTheService();
  if (!response.ok) throw refusal(envelope);
  return envelope;
}

function parse<Data>(body: string): Envelope<Data> | null {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === 'object' ? value : null;
  } catch {
    return null;
  }
}

function refusal({ message, errors }: Envelope<unknown>): ServiceError {
  // An address that is taken is told in the message alone; it belongs to the email all the same.
  if (message && !errors && /email/i.test(message)) return new ServiceError(message, '', { email: message });
  const fields: Record<string, string> = {};
  for (const [field, words] of Object.entries(errors ?? {})) fields[field] = sentence(field, words);
  return new ServiceError(message ?? 'The users service refused.', Object.values(fields).join(' '), fields);
}

/** The service says 'is required' of a field; the reader sees 'Username is required.'. */
function sentence(field: string, words: string): string {
  const text = `${field} ${words}`;
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.');
}

function notTheService(): ServiceError {
  return new ServiceError('That was no answer of the users service.', 'Something else answers at its address.');
}
