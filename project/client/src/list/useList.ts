import { keepPreviousData, useInfiniteQuery, useQuery, useQueryClient } from '@tanstack/react-query';
import { countUsers, getUsers, type Filter, type Page, type User } from '../service/users';
import { totalKey, usersKey } from './cache';

/** The loaded pages of users that match a filter, and the number of all users that match. */
export function useList(filter: Filter) {
  const client = useQueryClient();
  const list = useInfiniteQuery({
    queryKey: usersKey(filter),
    queryFn: ({ pageParam, signal }) => getUsers(filter, pageParam, signal),
    initialPageParam: null as string | null,
    getNextPageParam: ({ after }) => after,
    // While the reader types, keep the last result until the next one arrives.
    placeholderData: keepPreviousData,
    refetchOnWindowFocus: false,
    refetchOnReconnect: false,
  });
  const total = useQuery({
    queryKey: totalKey(filter),
    queryFn: ({ signal }) => countUsers(filter, signal),
    refetchOnWindowFocus: false,
    refetchOnReconnect: false,
    // Errors are shown for the list only. If the total is missing, its place is empty.
    enabled: list.isSuccess && !list.isPlaceholderData,
  });
  const pages = list.data ? withoutRepeats(list.data.pages) : [];
  return {
    list,
    pages,
    shown: pages.reduce((sum, { users }) => sum + users.length, 0),
    total: total.data,
    /** Retry now, instead of waiting for the next automatic retry. */
    retryNow: () => {
      void client.cancelQueries({ queryKey: usersKey(filter) }).then(() => (
        list.isFetchNextPageError || list.isFetchingNextPage ? list.fetchNextPage() : list.refetch()
      ));
    },
  };
}

/** Removes repeated users: a user inserted while a page was loading may also be on that page. */
function withoutRepeats(pages: readonly Page[]): readonly Page[] {
  const seen = new Set<number>();
  const isNew = ({ id }: User) => {
    const known = seen.has(id);
    seen.add(id);
    return !known;
  };
  return pages.map((page) => {
    const users = page.users.filter(isNew);
    return users.length === page.users.length ? page : { ...page, users };
  });
}
