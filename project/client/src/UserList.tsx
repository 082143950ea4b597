import { memo, useEffect, useRef } from 'react';
import type { ServiceError, User } from './api';
import { Problem } from './notices';

// Without a locale and a zone: the reader's own.
const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });
const LANGUAGE = MOMENT.resolvedOptions().locale;

interface Props {
  users: User[];
  /** Whether there is a page after these users. */
  hasMore: boolean;
  more: 'idle' | 'loading' | ServiceError;
  /** The id of the user who was just added. */
  newest: number | null;
  onMore: () => void;
}

/** The users, and the button that appends the next page. Memoized, as there may be thousands of rows. */
export const UserList = memo(function UserList({ users, hasMore, more, newest, onMore }: Props) {
  const list = useRef<HTMLOListElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const lastBefore = useRef<User>(undefined);

  // Who asked for more wants to go on reading with the first user who came, and does not stay on a button
  // that has moved down or gone; unless the focus has been moved elsewhere meanwhile.
  useEffect(() => {
    if (!lastBefore.current || more !== 'idle') return;
    const first = list.current?.children[users.indexOf(lastBefore.current) + 1];
    const free = [button.current, document.body, null].includes(document.activeElement as HTMLButtonElement | null);
    if (free && first instanceof HTMLElement) first.focus({ preventScroll: true });
    lastBefore.current = undefined;
  }, [users, more]);

  function showMore() {
    lastBefore.current = users.at(-1);
    onMore();
  }

  return (
    <>
      {/* Safari takes a list without markers for no list, unless the role says it again. */}
      <ol className="users" role="list" aria-label="Users" ref={list}>
        {users.map((user) => <Row key={user.id} user={user} isNew={user.id === newest} />)}
      </ol>
      {hasMore && (
        <div className="more">
          {typeof more === 'object' && <Problem error={more} />}
          <button ref={button} type="button" className="quiet" aria-disabled={more === 'loading'} onClick={showMore}>
            {more === 'idle' ? 'Show more' : more === 'loading' ? 'Loading…' : 'Retry'}
          </button>
        </div>
      )}
    </>
  );
});

const Row = memo(function Row({ user, isNew }: { user: User; isNew: boolean }) {
  return (
    <li className={isNew ? 'user user-new' : 'user'} tabIndex={-1}>
      <span className="monogram" data-tint={user.id % 5} aria-hidden="true">{initial(user.username)}</span>
      <span className="who">
        {/* A name in another script must not turn the row around. */}
        <strong><bdi>{user.username}</bdi></strong>
        <span className="email">{user.email}</span>
      </span>
      <Moment utc={user.created_at} />
    </li>
  );
});

/** A moment in the reader's own zone and language, with the exact UTC on hover. */
function Moment({ utc }: { utc: string }) {
  const date = new Date(utc);
  if (Number.isNaN(date.getTime())) return <span className="moment">{utc}</span>;
  // HTML allows at most milliseconds in `datetime`; the title has all that the service says.
  return (
    <time className="moment" lang={LANGUAGE} dateTime={date.toISOString()} title={utc.replace('T', ' ').replace('Z', ' UTC')}>
      {MOMENT.format(date)}
    </time>
  );
}

/** The first letter a reader sees, which may be several code points. */
function initial(name: string): string {
  const [first] = new Intl.Segmenter().segment(name);
  return first?.segment.toLocaleUpperCase() ?? '';
}
