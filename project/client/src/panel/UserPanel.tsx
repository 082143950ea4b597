import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useRef, useState, type ReactNode } from 'react';
import { replace } from '../list/cache';
import { asServiceError } from '../service/errors';
import { getUser, type Access, type Conflict, type Version } from '../service/users';
import { Icon } from '../ui/Icon';
import { Problem, Waiting } from '../ui/Notice';
import { Avatar, Status } from '../ui/texts';
import { closePanel } from '../url';
import { Details } from './Details';
import { EditForm } from './EditForm';
import { RemoveDialog } from './RemoveDialog';
import { removeLater } from './removal';

interface Props {
  id: number;
  access: Access | undefined;
  onRemovalConflict: (version: Version, conflict: Conflict) => void;
}

/** The panel of one user. It is not modal: the list beside it stays usable. */
export function UserPanel({ id, access, onRemovalConflict }: Props) {
  const client = useQueryClient();
  const heading = useRef<HTMLHeadingElement>(null);
  const [isRemoving, setIsRemoving] = useState(false);
  const key = ['user', id];
  const query = useQuery({ queryKey: key, queryFn: ({ signal }) => getUser(id, signal), refetchOnWindowFocus: false });
  const version = query.data;

  // Focus the panel, and when it closes, the user in the list.
  useEffect(() => {
    heading.current?.focus({ preventScroll: true });
    return () => {
      const isLost = document.activeElement === document.body || document.activeElement?.closest('.panel');
      if (isLost) document.getElementById(`user-${id}`)?.focus({ preventScroll: true });
    };
  }, [id]);

  function saved(next: Version) {
    client.setQueryData(key, next);
    replace(client, next.user);
  }

  function remove(removed: Version) {
    setIsRemoving(false);
    closePanel();
    removeLater(client, removed, (conflict) => { onRemovalConflict(removed, conflict); });
  }

  let content: ReactNode;
  if (version) {
    content = (
      <>
        <Details user={version.user} />
        {access?.change && <EditForm key={id} version={version} onSaved={saved} />}
        {access?.change === false && (
          <p className="note">
            Users cannot be changed or removed here, because this service has no API tokens. Its operator can allow it by setting
            {' '}<code>API_TOKENS</code>.
          </p>
        )}
        {access?.change && (
          <section className="danger">
            <p>A removed user cannot be restored.</p>
            <button type="button" className="button button-danger" onClick={() => { setIsRemoving(true); }}>Remove user…</button>
          </section>
        )}
      </>
    );
  } else if (query.error) {
    const error = asServiceError(query.error);
    content = error.kind === 'missing' ? (
      <div className="empty">
        <p className="empty-title">No user has the id {id}</p>
        <p>The user may have been removed.</p>
      </div>
    ) : (
      <Problem error={error}>
        <button type="button" className="button" onClick={() => void query.refetch()}>Try again</button>
      </Problem>
    );
  } else if (query.failureReason) {
    content = <Waiting error={asServiceError(query.failureReason)} failures={query.failureCount} />;
  } else {
    content = <p className="note" role="status">Loading the user…</p>;
  }

  return (
    <div className="panel" role="dialog" aria-labelledby="panel-title">
      <div className="panel-header">
        {version && <Avatar id={id} username={version.user.username} />}
        <div className="panel-title">
          <h2 id="panel-title" ref={heading} tabIndex={-1}><bdi>{version?.user.username ?? `User ${id}`}</bdi></h2>
          {version && <Status active={version.user.active} />}
        </div>
        <button type="button" className="icon-button" aria-label="Close panel" title="Close" onClick={closePanel}>
          <Icon name="close" />
        </button>
      </div>
      <div className="panel-content">{content}</div>
      {isRemoving && version && (
        <RemoveDialog user={version.user} onClose={() => { setIsRemoving(false); }} onRemove={() => { remove(version); }} />
      )}
    </div>
  );
}
