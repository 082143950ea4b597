/** The requests about users. Each function throws a `ServiceError` if the request fails. */

import type { components } from '../contract';
import { exchange, service, SERVICE_URL } from './client';
import { foreign, ServiceError } from './errors';

export type User = components['schemas']['User'];
export type Changes = Partial<Pick<User, 'username' | 'email' | 'active'>>;

/** A user, and the entity tag of this version. */
export interface Version {
  user: User;
  etag: string;
}

/** Which users the list shows. */
export interface Filter {
  /** The prefix of a username or an email; '' for all users. */
  q: string;
  /** Only active users, only inactive ones, or undefined for both. */
  active: boolean | undefined;
}

export interface Page {
  users: User[];
  /** The cursor of the next page; null on the last one. */
  after: string | null;
}

const PAGE_SIZE = 50;

/** Returns a page of the users, newest first; `after` is the cursor of the previous page. */
export async function getUsers(filter: Filter, after: string | null, signal: AbortSignal): Promise<Page> {
  const query = { ...parameters(filter), limit: PAGE_SIZE, ...(after !== null && { after }) };
  const { data } = await service.GET('/users', { params: { query }, signal });
  if (!data) throw foreign();
  const { users, next } = data.data;
  // Use only the cursor of the URL: behind a proxy the service may not know its own path prefix.
  return { users, after: next ? new URL(next, location.origin).searchParams.get('after') : null };
}

/** Returns how many users match. */
export async function countUsers(filter: Filter, signal: AbortSignal): Promise<number> {
  const query = { ...parameters(filter), limit: 1, count: true };
  const { data } = await service.GET('/users', { params: { query }, signal });
  if (data?.data.total === undefined) throw foreign();
  return data.data.total;
}

function parameters({ q, active }: Filter) {
  return { ...(q && { q }), ...(active !== undefined && { active }) };
}

/** Returns a user; throws a `ServiceError` of the kind `missing` when there is none with this id. */
export async function getUser(id: number, signal?: AbortSignal): Promise<Version> {
  const init = { params: { path: { user_id: id } }, ...(signal && { signal }), cache: 'no-cache' as const };
  const { data, response } = await service.GET('/users/{user_id}', init);
  return version(data, response);
}

/** Returns the user who has an email, or undefined. */
export async function findByEmail(email: string): Promise<User | undefined> {
  const { data } = await service.GET('/users', { params: { query: { email } } });
  return data?.data.users[0];
}

/** Add a user. The service validates the fields. Returns the user and the message of the service. */
export async function addUser(body: { username: string; email: string }): Promise<{ user: User; message: string }> {
  const { data } = await service.POST('/users', { body });
  if (!data) throw foreign();
  return { user: data.data, message: data.message };
}

/** Another client has changed the user; `current` is the stored version. */
export class Conflict extends Error {
  constructor(readonly current: Version) {
    super('The user has changed since it was read.');
  }
}

/**
 * Change a user if the stored version still has this entity tag.
 *
 * @throws {Conflict} Another client has changed the user in another way. The same change is a success.
 */
export async function changeUser(id: number, etag: string, body: Changes): Promise<Version> {
  const header = { 'If-Match': etag };
  try {
    const { data, response } = await service.PATCH('/users/{user_id}', { params: { path: { user_id: id }, header }, body });
    return version(data, response);
  } catch (error) {
    const current = await currentVersion(id, error);
    const names = Object.keys(body) as (keyof Changes)[];
    if (names.every((name) => current.user[name] === body[name])) return current;
    throw new Conflict(current);
  }
}

/**
 * Remove a user if the stored version still has this entity tag. It is a success if the user no longer exists.
 *
 * @throws {Conflict} Another client has changed the user.
 */
export async function removeUser(id: number, etag: string): Promise<void> {
  try {
    const header = { 'If-Match': etag };
    await service.DELETE('/users/{user_id}', { params: { path: { user_id: id }, header } });
  } catch (error) {
    if (error instanceof ServiceError && error.kind === 'missing') return;
    throw new Conflict(await currentVersion(id, error));
  }
}

/** Returns the stored version of the user if `error` is a 412. Throws `error` otherwise. */
async function currentVersion(id: number, error: unknown): Promise<Version> {
  if (error instanceof ServiceError && error.kind === 'changed') return getUser(id);
  throw error;
}

function version(data: { data: User } | undefined, response: Response): Version {
  const etag = response.headers.get('ETag');
  if (!data || !etag) throw foreign();
  return { user: data.data, etag };
}

/** Which changes the service allows to this page. */
export interface Access {
  change: boolean;
  add: boolean;
}

/**
 * Find out whether the service has tokens, with requests that change nothing.
 *
 * A service with tokens responds with 401, and the page requests one when it is needed. A service without tokens
 * responds with 403 to every request that requires one.
 */
export async function probe(): Promise<Access> {
  const change = await statusOf('PATCH', '/users/0') !== 403;
  return { change, add: change || await statusOf('POST', '/users') !== 403 };
}

async function statusOf(method: string, path: string): Promise<number> {
  const headers = { 'Content-Type': 'application/json' };
  const address = new URL(`${SERVICE_URL}${path}`, location.href);
  return (await exchange(new Request(address, { method, headers, body: '{}' }))).status;
}
