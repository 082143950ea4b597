import { useQueryClient } from '@tanstack/react-query';
import { useCallback } from 'react';
import { asServiceError } from '../service/errors';
import { requestToken } from '../service/token';
import { Empty, Problem, Skeleton, Waiting } from '../ui/Notice';
import { toast } from '../ui/toasts';
import { filterOf, show, type View } from '../url';
import { refresh } from './cache';
import { download, toCsv } from './csv';
import { Toolbar } from './Toolbar';
import { useList } from './useList';
import { UserTable } from './UserTable';

/** The toolbar, and the users who match. */
export function UserList({ view, newest }: { view: View; newest: number | null }) {
  const client = useQueryClient();
  const filter = filterOf(view);
  const { list, pages, shown, total, retryNow } = useList(filter);
  const { fetchNextPage } = list;
  const onMore = useCallback(() => { void fetchNextPage(); }, [fetchNextPage]);

  function exportShown() {
    const users = pages.flatMap((page) => page.users);
    download('users.csv', toCsv(users));
    const all = total === undefined || total === users.length ? '' : ` of ${total.toLocaleString()}`;
    toast(`Exported ${users.length.toLocaleString()}${all} ${users.length === 1 ? 'user' : 'users'}.`);
  }

  const isStale = list.isPlaceholderData;
  // Between two attempts, show the reason for the delay.
  const waiting = list.failureReason && list.isFetching
    ? <Waiting error={asServiceError(list.failureReason)} failures={list.failureCount} onRetry={retryNow} />
    : null;
  const failed = list.error && !list.isFetching ? <Failure error={list.error} onRetry={retryNow} /> : null;
  return (
    <section aria-label="Users" className="users">
      <Toolbar view={view} shown={isStale ? 0 : shown} onExport={exportShown} onRefresh={() => { refresh(client, filter); }} />
      <p className="summary" role="status">
        {list.isLoading || isStale ? (waiting ? '' : 'Loading users…') : failed && shown === 0 ? '' : summary(filter.q, shown, total)}
      </p>
      {isStale && (waiting ?? failed)}
      <div className={isStale ? 'stale' : undefined} aria-busy={list.isLoading || isStale}>
        {shown > 0 ? (
          <UserTable
            pages={pages}
            total={isStale ? undefined : total}
            open={view.user}
            newest={newest}
            hasMore={list.hasNextPage && !isStale}
            isLoadingMore={list.isFetchingNextPage}
            loadsByItself={!list.isError}
            onMore={onMore}
          />
        ) : !isStale && (waiting ?? failed ?? (
          list.isLoading ? <Skeleton /> : <NoUsers view={view} q={filter.q} />
        ))}
      </div>
      {shown > 0 && !isStale && (waiting ?? failed)}
    </section>
  );
}

function Failure({ error: thrown, onRetry }: { error: Error; onRetry: () => void }) {
  const error = asServiceError(thrown);
  if (error.kind === 'closed') return <Problem error={error} />;
  if (error.kind !== 'token') {
    return <Problem error={error}><button type="button" className="button" onClick={onRetry}>Try again</button></Problem>;
  }
  async function enterToken() {
    if (await requestToken(false, false) !== null) onRetry();
  }
  return (
    <Problem error={error}>
      <button type="button" className="button" onClick={() => void enterToken()}>Enter a token</button>
    </Problem>
  );
}

function NoUsers({ view, q }: { view: View; q: string }) {
  if (!q && view.active === undefined) return <Empty title="No users yet"><p>The first user you add appears here.</p></Empty>;
  const kind = view.active === undefined ? '' : view.active ? 'active ' : 'inactive ';
  return (
    <Empty title={q ? `No ${kind}user matches “${q}”` : `There are no ${kind}users`}>
      {q && <p>The search finds usernames and emails that begin with what you type.</p>}
      <button type="button" className="button" onClick={() => { show({ q: '', active: undefined }); }}>Show all users</button>
    </Empty>
  );
}

/** Returns the line with the number of users, which screen readers announce when it changes. */
function summary(q: string, shown: number, total: number | undefined): string {
  const number = Math.max(total ?? 0, shown);
  const users = `${number.toLocaleString()}${total === undefined && shown > 0 ? '+' : ''} ${number === 1 ? 'user' : 'users'}`;
  const matching = q ? `${users} matching “${q}”` : users;
  return total !== undefined && shown < total && shown > 0 ? `${matching}, ${shown.toLocaleString()} loaded` : matching;
}

