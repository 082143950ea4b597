import { useEffect, useRef, type KeyboardEvent } from 'react';
import type { Page } from '../service/users';
import { useNow } from '../time';
import { Rows } from './Row';

interface Props {
  pages: readonly Page[];
  total: number | undefined;
  open: number | null;
  newest: number | null;
  hasMore: boolean;
  isLoadingMore: boolean;
  /** Whether scrolling loads more users; false after a failure. */
  loadsByItself: boolean;
  onMore: () => void;
}

/** The table of users. Scrolling loads more of them, and so does a button. */
export function UserTable(props: Props) {
  const { pages, total, open, newest, hasMore, isLoadingMore, loadsByItself, onMore } = props;
  const now = useNow();
  const table = useRef<HTMLDivElement>(null);
  const end = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const pagesBefore = useRef<number>(undefined);

  useEffect(() => {
    if (!end.current || !hasMore || isLoadingMore || !loadsByItself) return;
    const observer = new IntersectionObserver((entries) => {
      // The end may have been visible only between two calls.
      if (entries.some(({ isIntersecting }) => isIntersecting)) onMore();
    }, { rootMargin: '800px' });
    observer.observe(end.current);
    return () => { observer.disconnect(); };
  }, [hasMore, isLoadingMore, loadsByItself, onMore]);

  // After a press of the button, focus the first new user: the button itself has moved down.
  useEffect(() => {
    if (pagesBefore.current === undefined || isLoadingMore) return;
    const first = table.current?.querySelectorAll('.rows')[pagesBefore.current]?.querySelector('a');
    pagesBefore.current = undefined;
    if ([button.current, document.body].includes(document.activeElement as HTMLButtonElement)) first?.focus();
  }, [pages, isLoadingMore]);

  function pressed() {
    if (isLoadingMore) return;
    pagesBefore.current = pages.length;
    onMore();
  }

  return (
    <>
      <div
        className="table"
        role="table"
        aria-label="Users"
        aria-rowcount={(total ?? -2) + 1}
        ref={table}
        onKeyDown={moveByArrows}
      >
        <div className="table-head" role="rowgroup">
          <div className="row" role="row">
            {['User', 'Email', 'Status', 'ID', 'Created'].map((name) => (
              <span key={name} className={`cell cell-${name.toLowerCase()}`} role="columnheader">{name}</span>
            ))}
          </div>
        </div>
        {pages.map(({ users }, index) => users.length > 0 && (
          <Rows
            key={index}
            users={users}
            now={now}
            open={users.some(({ id }) => id === open) ? open : null}
            newest={users.some(({ id }) => id === newest) ? newest : null}
          />
        ))}
      </div>
      {hasMore && (
        <div className="more" ref={end}>
          <button ref={button} type="button" className="button" aria-disabled={isLoadingMore} onClick={pressed}>
            {isLoadingMore ? 'Loading…' : 'Show more'}
          </button>
        </div>
      )}
    </>
  );
}

/** Move the focus between users with the arrow keys. */
function moveByArrows(event: KeyboardEvent<HTMLDivElement>) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || !(event.target instanceof HTMLAnchorElement)) return;
  const links = [...event.currentTarget.querySelectorAll<HTMLAnchorElement>('a.username')];
  const next = links[links.indexOf(event.target) + step];
  if (!next) return;
  event.preventDefault();
  next.focus();
}
