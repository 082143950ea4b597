/** How TanStack Query fetches for this page: what it repeats, and when. */

import { QueryClient } from '@tanstack/react-query';
import { ServiceError } from './errors';

/** How long to wait before trying again, in milliseconds: as the service says, else longer each time up to 30 s. */
export function retryDelay(failures: number, error: Error): number {
  const seconds = error instanceof ServiceError ? error.retryAfter : undefined;
  return (seconds ?? Math.min(2 ** failures, 30)) * 1000;
}

/** Whether trying the same again may help. */
function isTemporary(error: Error): boolean {
  return error instanceof ServiceError && (error.kind === 'busy' || error.kind === 'unreachable');
}

/**
 * Whether a change may be sent again without asking. The service must have said when: then it is running, and no change
 * is made twice, as an email is unique and a change names the state that it starts from.
 */
function mayBeRepeated(error: Error): boolean {
  return error instanceof ServiceError && isTemporary(error) && error.retryAfter !== undefined;
}

/** Returns what the components fetch with. */
export function makeQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      // What the browser believes about the network says nothing about the service.
      queries: {
        networkMode: 'always',
        retry: (_, error) => isTemporary(error),
        retryDelay,
        // What is shown was read once: a change by somebody else is noticed by If-Match, and Refresh reads again.
        staleTime: Infinity,
        // What is no longer shown is read again when it is.
        gcTime: 0,
      },
      mutations: { networkMode: 'always', retry: (_, error) => mayBeRepeated(error), retryDelay },
    },
  });
}
