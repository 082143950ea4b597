import '@testing-library/jest-dom/vitest';
import { cleanup } from '@testing-library/react';
import axe from 'axe-core';
import { afterEach, expect, vi } from 'vitest';
import type { User } from './api';

afterEach(cleanup);

/** A user as the service tells it. The higher the id, the newer. */
export function user(id: number, change: Partial<User> = {}): User {
  const second = String(id % 60).padStart(2, '0');
  return {
    id,
    username: `user ${id}`,
    email: `user${id}@example.com`,
    active: false,
    created_at: `2026-11-22T16:13:${second}.482913Z`,
    ...change,
  };
}

/**
 * Put a users service in the place of the network.
 *
 * @param count How many users it has.
 * @param limit The longest page it gives, so that few users make several pages.
 */
export function serviceWith(count: number, limit = 50) {
  const users = Array.from({ length: count }, (_, index) => user(count - index));
  let gate: Promise<void> | null = null;
  const service = {
    users,
    /** Every request so far, as `METHOD URL`. */
    requests: [] as string[],
    /** The options of the last request. */
    init: {} as RequestInit,
    /** When set, what every request gets instead of an answer of the service. */
    instead: null as (() => Response) | null,
    /** Keep the answers to all requests from now on, until the function that comes back is called. */
    hold(): () => void {
      let release: (() => void) | undefined;
      gate = new Promise((resolve) => { release = resolve; });
      return () => { gate = null; release?.(); };
    },
  };

  async function answer(input: string, init: RequestInit = {}): Promise<Response> {
    service.requests.push(`${init.method ?? 'GET'} ${input}`);
    service.init = init;
    // The answer is made when the request arrives, and only its delivery is late, as on a slow line.
    const response = service.instead ?? respond(input, init);
    const aborted = new Promise<never>((_, reject) => {
      init.signal?.addEventListener('abort', () => { reject(init.signal?.reason as Error); });
    });
    await Promise.race([gate, aborted]);
    init.signal?.throwIfAborted();
    return response();
  }

  function respond(input: string, init: RequestInit): () => Response {
    const { searchParams } = new URL(input, location.origin);
    if (init.method === 'POST') return add(JSON.parse(init.body as string) as User);
    const email = searchParams.get('email');
    if (email !== null) return json(200, { status: 'success', data: { users: users.filter((one) => one.email === email) } });
    const after = Number(searchParams.get('after') ?? Infinity);
    const rest = users.filter(({ id }) => id < after);
    const page = rest.slice(0, limit);
    const next = rest.length > limit ? { next: `/users?limit=${limit}&after=${page.at(-1)?.id}` } : {};
    return json(200, { status: 'success', data: { users: page, ...next } });
  }

  function add({ username, email }: User): () => Response {
    const errors = {
      ...(!username.trim() && { username: 'is required' }),
      ...(!email.includes('@') && { email: 'is not a valid email address' }),
    };
    if (Object.keys(errors).length > 0) return json(400, { status: 'fail', message: 'Invalid payload.', errors });
    if (users.some((one) => one.email === email)) {
      return json(400, { status: 'fail', message: 'Sorry. That email already exists.' });
    }
    const added = user(users.length + 1, { username, email });
    users.unshift(added);
    return json(201, { status: 'success', message: `${email} was added!`, data: added });
  }

  vi.stubGlobal('fetch', answer);
  return service;
}

/** An answer of the service with this body. */
export function json(status: number, body: unknown): () => Response {
  return () => new Response(JSON.stringify(body), { status, headers: { 'Content-Type': 'application/json' } });
}

/** What happens when nothing listens at the service's address. */
export function refuseConnection(): never {
  throw new TypeError('Failed to fetch');
}

/** Expect that axe finds nothing; colours need a real browser. */
export async function expectAccessible() {
  const { violations } = await axe.run(document.body, { rules: { 'color-contrast': { enabled: false } } });
  expect(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(', ')}`)).toEqual([]);
}
