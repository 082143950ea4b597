/** Removing a user. The request is sent after some seconds, in which the reader can undo the removal. */

import type { QueryClient } from '@tanstack/react-query';
import { insert, remove } from '../list/cache';
import { asServiceError } from '../service/errors';
import { retryDelay } from '../service/queries';
import { Conflict, removeUser, type Version } from '../service/users';
import { toast } from '../ui/toasts';
import { show } from '../url';

export const UNDO_SECONDS = 5;
/** The number of removals that are not finished. Closing the tab would lose them. */
let pending = 0;

function setPending(difference: number): void {
  pending += difference;
  if (pending > 0) addEventListener('beforeunload', warn);
  else removeEventListener('beforeunload', warn);
}

function warn(event: Event): void {
  event.preventDefault();
}

/**
 * Remove a user from the lists now, and from the service later unless the reader undoes it.
 *
 * @param onConflict Called if another client has changed the user.
 */
export function removeLater(client: QueryClient, version: Version, onConflict: (conflict: Conflict) => void): void {
  const { user } = version;
  remove(client, user);
  setPending(1);
  const timer = setTimeout(() => {
    void send(client, version, onConflict).finally(() => { setPending(-1); });
  }, UNDO_SECONDS * 1000);
  toast(`${user.username} is being removed.`, {
    seconds: UNDO_SECONDS,
    action: {
      label: 'Undo',
      hasFocus: true,
      onPress: () => {
        clearTimeout(timer);
        setPending(-1);
        insert(client, user);
        toast(`${user.username} was not removed.`);
        focusUser(user.id);
      },
    },
  });
}

/** Focus a user in the list. The row is rendered within a few frames. */
function focusUser(id: number, frames = 60): void {
  const link = document.getElementById(`user-${id}`);
  if (link) link.focus();
  else if (frames > 0) requestAnimationFrame(() => { focusUser(id, frames - 1); });
}

async function send(client: QueryClient, { user, etag }: Version, onConflict: (conflict: Conflict) => void): Promise<void> {
  for (let failures = 1; ; failures += 1) {
    try {
      await removeUser(user.id, etag);
      toast(`${user.username} was removed.`);
      return;
    } catch (thrown) {
      if (thrown instanceof Conflict) {
        insert(client, thrown.current.user);
        onConflict(thrown);
        return;
      }
      const error = asServiceError(thrown);
      if (error.kind === 'busy') {
        await new Promise((resolve) => { setTimeout(resolve, retryDelay(failures, error)); });
        continue;
      }
      insert(client, user);
      toast(`${user.username} was not removed. ${error.message} ${error.hint}`.trim(), {
        kind: 'failure',
        action: { label: 'Open', onPress: () => { show({ user: user.id }); } },
      });
      return;
    }
  }
}
