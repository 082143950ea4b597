import { memo, type MouseEvent } from 'react';
import type { User } from '../service/users';
import { exact, relative } from '../time';
import { CopyButton } from '../ui/CopyButton';
import { Avatar, Email, Status } from '../ui/texts';
import { parseView, show, viewUrl } from '../url';

interface Props {
  user: User;
  /** How long ago the user was created, in words. */
  created: string;
  isOpen: boolean;
  isNew: boolean;
}

/** A user in the list. Memoized, because there may be thousands of rows. */
export const Row = memo(function Row({ user, created, isOpen, isNew }: Props) {
  const { id, username, email, active } = user;

  /** Open the panel, unless the reader wants the link in another tab. */
  function open(event: MouseEvent) {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    // A change from one user to another adds no history entry, so that Back closes the panel.
    show({ user: id }, parseView(location.search).user !== null);
  }

  const date = new Date(user.created_at);
  return (
    <div className={`row${isOpen ? ' row-open' : ''}${isNew ? ' row-new' : ''}`} role="row">
      <span className="cell cell-user" role="cell">
        <Avatar id={id} username={username} />
        <a
          className="username"
          id={`user-${id}`}
          href={viewUrl({ ...parseView(location.search), user: id })}
          title={username}
          aria-current={isOpen || undefined}
          onClick={open}
        >
          <bdi>{username}</bdi>
        </a>
      </span>
      <span className="cell cell-email" role="cell" title={email}>
        <Email>{email}</Email>
        <CopyButton text={email} what="email" inTabOrder={false} />
      </span>
      <span className="cell cell-status" role="cell"><Status active={active} /></span>
      <span className="cell cell-id" role="cell">
        <span><span className="hash" aria-hidden="true">#</span>{id}</span>
        <CopyButton text={String(id)} what="id" inTabOrder={false} />
      </span>
      <span className="cell cell-created" role="cell">
        {/* It is above the link, so that hovering shows the exact time. */}
        <time dateTime={date.toISOString()} data-exact={exact(date)} onClick={open}>{created}</time>
      </span>
    </div>
  );
});

/** The rows of one page. The browser skips the layout of pages that are far outside the screen. */
export const Rows = memo(function Rows({ users, now, open, newest }: {
  users: readonly User[];
  now: number;
  /** The id of the user whose panel is open, if it is on this page. */
  open: number | null;
  newest: number | null;
}) {
  return (
    <div className="rows" role="rowgroup">
      {users.map((user) => (
        <Row
          key={user.id}
          user={user}
          created={relative(new Date(user.created_at), now)}
          isOpen={user.id === open}
          isNew={user.id === newest}
        />
      ))}
    </div>
  );
});
