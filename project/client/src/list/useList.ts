import { keepPreviousData, useInfiniteQuery, useQuery, useQueryClient } from '@tanstack/react-query';
import { countUsers, getUsers, type Filter, type Page, type User } from '../service/users';
import { totalKey, usersKey } from './cache';

/** The pages of users that match a filter, and how many match in all. */
export function useList(filter: Filter) {
  const client = useQueryClient();
  const list = useInfiniteQuery({
    queryKey: usersKey(filter),
    queryFn: ({ pageParam, signal }) => getUsers(filter, pageParam, signal),
    initialPageParam: null as string | null,
    getNextPageParam: ({ after }) => after,
    // While one types, the last result stays until the next one arrives.
    placeholderData: keepPreviousData,
    refetchOnWindowFocus: false,
    refetchOnReconnect: false,
  });
  const total = useQuery({
    queryKey: totalKey(filter),
    queryFn: ({ signal }) => countUsers(filter, signal),
    refetchOnWindowFocus: false,
    refetchOnReconnect: false,
    // The list reports what is wrong; a total that is missing only leaves its place empty.
    enabled: list.isSuccess && !list.isPlaceholderData,
  });
  const pages = list.data ? withoutRepeats(list.data.pages) : [];
  return {
    list,
    pages,
    shown: pages.reduce((sum, { users }) => sum + users.length, 0),
    total: total.data,
    /** Try again now instead of when the page would do it by itself. */
    retryNow: () => {
      void client.cancelQueries({ queryKey: usersKey(filter) }).then(() => (
        list.isFetchNextPageError || list.isFetchingNextPage ? list.fetchNextPage() : list.refetch()
      ));
    },
  };
}

/** A user who was put at the top while a page was being loaded may be on that page, too. */
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
