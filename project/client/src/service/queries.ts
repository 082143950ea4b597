/** The settings of TanStack Query: which requests it retries, and when. */

import { QueryClient } from '@tanstack/react-query';
import { ServiceError } from './errors';

/** Returns the delay before a retry in milliseconds: `Retry-After`, else an exponential backoff up to 30 s. */
export function retryDelay(failures: number, error: Error): number {
  const seconds = error instanceof ServiceError ? error.retryAfter : undefined;
  return (seconds ?? Math.min(2 ** failures, 30)) * 1000;
}

/** Whether a retry may succeed. */
function isTemporary(error: Error): boolean {
  return error instanceof ServiceError && (error.kind === 'busy' || error.kind === 'unreachable');
}

/**
 * Whether a change is retried automatically. The response must have `Retry-After`, which shows that it comes from the
 * service. No change is made twice: emails are unique, and changes have `If-Match`.
 */
function isRetried(error: Error): boolean {
  return error instanceof ServiceError && isTemporary(error) && error.retryAfter !== undefined;
}

/** Returns the query client of the page. */
export function makeQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      // The service may be reachable even if the browser reports that it is offline.
      queries: {
        networkMode: 'always',
        retry: (_, error) => isTemporary(error),
        retryDelay,
        // Loaded users are not fetched again. If-Match detects changes of others, and Refresh fetches them again.
        staleTime: Infinity,
        // Lists that are no longer shown are fetched again when they are shown.
        gcTime: 0,
      },
      mutations: { networkMode: 'always', retry: (_, error) => isRetried(error), retryDelay },
    },
  });
}
