import { vi } from 'vitest';
import type { User } from './service/users';

/** A user as the service returns it. The higher the id, the newer. */
export function user(id: number, change: Partial<User> = {}): User {
  const second = String(id % 60).padStart(2, '0');
  return {
    id, username: `user ${id}`, email: `user${id}@example.com`, active: false, created_at: `2026-11-22T16:13:${second}.482913Z`,
    ...change,
  };
}

/** Replace `fetch`: each request gets the next of these responses, or the error that it throws. */
export function respondWith(...responses: (() => Response)[]): Request[] {
  const requests: Request[] = [];
  vi.stubGlobal('fetch', (request: Request) => {
    requests.push(request);
    return new Promise<Response>((resolve) => { resolve((responses.shift() ?? refuseConnection)()); });
  });
  return requests;
}

/** A response of the service with this body. */
export function json(status: number, body: unknown, headers: Record<string, string> = {}): () => Response {
  return () => new Response(JSON.stringify(body), { status, headers: { 'Content-Type': 'application/json', ...headers } });
}

/** Fails as `fetch` does if nothing listens at the address of the service. */
export function refuseConnection(): never {
  throw new TypeError('Failed to fetch');
}
