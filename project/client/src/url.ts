/** The view: what the page shows. It is stored in the URL, such as `?q=ann&active=true&user=42`. */

import { useMemo, useSyncExternalStore } from 'react';
import type { Filter } from './service/users';

export interface View {
  /** The text of the search field. */
  q: string;
  active: boolean | undefined;
  /** The id of the user whose panel is open; null when it is closed. */
  user: number | null;
}

const CHANGED = 'users-view';
/** The service rejects a search with fewer characters. */
export const MIN_SEARCH = 2;

export function parseView(search: string): View {
  const parameters = new URLSearchParams(search);
  const active = parameters.get('active');
  const user = parameters.get('user') ?? '';
  return {
    q: parameters.get('q') ?? '',
    active: active === 'true' ? true : active === 'false' ? false : undefined,
    user: /^[1-9]\d{0,15}$/.test(user) ? Number(user) : null,
  };
}

/** Returns the URL of a view, relative to the page. */
export function viewUrl({ q, active, user }: View): string {
  const parameters = new URLSearchParams();
  if (q) parameters.set('q', q);
  if (active !== undefined) parameters.set('active', String(active));
  if (user !== null) parameters.set('user', String(user));
  const query = parameters.toString();
  return query ? `?${query}` : location.pathname;
}

/** Returns the filter of a view. */
export function filterOf({ q, active }: View): Filter {
  const trimmed = q.trim();
  return { q: Array.from(trimmed).length < MIN_SEARCH ? '' : trimmed, active };
}

/** Show another view; `replace` adds no history entry. */
export function show(change: Partial<View>, replace = false): void {
  const url = viewUrl({ ...parseView(location.search), ...change });
  // Closing the panel goes back to the entry before it was opened, unless the page was loaded with the panel open.
  const state: unknown = replace ? history.state : { opened: change.user != null };
  if (replace) history.replaceState(state, '', url);
  else history.pushState(state, '', url);
  dispatchEvent(new Event(CHANGED));
}

/** Close the panel. */
export function closePanel(): void {
  const state = history.state as { opened?: boolean } | null;
  if (state?.opened) history.back();
  else show({ user: null }, true);
}

function subscribe(listener: () => void): () => void {
  addEventListener(CHANGED, listener);
  addEventListener('popstate', listener);
  return () => {
    removeEventListener(CHANGED, listener);
    removeEventListener('popstate', listener);
  };
}

/** Returns the view in the URL, and renders again when it changes. */
export function useView(): View {
  const search = useSyncExternalStore(subscribe, () => location.search);
  return useMemo(() => parseView(search), [search]);
}
