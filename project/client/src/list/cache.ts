/** Changes the loaded lists, without fetching them again. */

import type { InfiniteData, QueryClient } from '@tanstack/react-query';
import type { Filter, Page, User } from '../service/users';

type Pages = InfiniteData<Page, string | null>;
export const usersKey = (filter: Filter) => ['users', filter] as const;
export const totalKey = (filter: Filter) => ['total', filter] as const;

/** Whether a user matches a filter, by the rules of the service. */
export function matches({ q, active }: Filter, user: User): boolean {
  if (active !== undefined && user.active !== active) return false;
  const prefix = fold(q);
  return [user.username, user.email].some((text) => fold(text).startsWith(prefix));
}

/** Returns a text with its ASCII letters in lower case. */
function fold(text: string): string {
  return text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
}

/** Whether `one` is above `other` in the list: newest first, of equal times the higher id first. */
function isAbove(one: User, other: User): boolean {
  return one.created_at === other.created_at ? one.id > other.id : one.created_at > other.created_at;
}

/** Returns the pages with a user in the right place. A user below the loaded pages is left out. */
export function withUser(pages: readonly Page[], user: User): Page[] {
  const rest = withoutUser(pages, user.id);
  const isLast = (index: number) => index === rest.length - 1;
  const target = rest.findIndex(({ users, after }, index) => (
    users.some((one) => isAbove(user, one)) || (isLast(index) && after === null)
  ));
  return rest.map((page, index) => {
    if (index !== target) return page;
    const place = page.users.findIndex((one) => isAbove(user, one));
    return { ...page, users: page.users.toSpliced(place < 0 ? page.users.length : place, 0, user) };
  });
}

/** Returns the pages without a user. */
export function withoutUser(pages: readonly Page[], id: number): Page[] {
  return pages.map((page) => (
    page.users.some((one) => one.id === id) ? { ...page, users: page.users.filter((one) => one.id !== id) } : page
  ));
}

/** Insert a user who was added, or whose removal was undone, into the lists. */
export function insert(client: QueryClient, user: User): void {
  update(client, (pages, filter) => matches(filter, user) ? withUser(pages, user) : pages);
  count(client, user, 1);
}

/** Remove a user from the lists. */
export function remove(client: QueryClient, user: User): void {
  update(client, (pages) => withoutUser(pages, user.id));
  count(client, user, -1);
}

/** Replace a changed user in the lists, in the same place, even if the user no longer matches the filter. */
export function replace(client: QueryClient, user: User): void {
  update(client, (pages) => pages.map((page) => (
    page.users.some(({ id }) => id === user.id)
      ? { ...page, users: page.users.map((one) => one.id === user.id ? user : one) }
      : page
  )));
  void client.invalidateQueries({ queryKey: ['total'] });
}

/** Fetch the list again from its start. */
export function refresh(client: QueryClient, filter: Filter): void {
  client.setQueryData<Pages>(usersKey(filter), (data) => (
    data && { pages: data.pages.slice(0, 1), pageParams: data.pageParams.slice(0, 1) }
  ));
  void client.invalidateQueries({ queryKey: ['users'] });
  void client.invalidateQueries({ queryKey: ['total'] });
}

function update(client: QueryClient, change: (pages: readonly Page[], filter: Filter) => readonly Page[]): void {
  for (const [key, data] of client.getQueriesData<Pages>({ queryKey: ['users'] })) {
    if (data) client.setQueryData<Pages>(key, { ...data, pages: [...change(data.pages, key[1] as Filter)] });
  }
}

function count(client: QueryClient, user: User, difference: number): void {
  for (const [key, total] of client.getQueriesData<number>({ queryKey: ['total'] })) {
    if (total !== undefined && matches(key[1] as Filter, user)) client.setQueryData<number>(key, total + difference);
  }
}
