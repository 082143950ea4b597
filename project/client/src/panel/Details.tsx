import type { User } from '../service/users';
import { exact, relative, useNow } from '../time';
import { CopyButton } from '../ui/CopyButton';
import { Email } from '../ui/texts';

/** The fields of a user, each with a button that copies it. */
export function Details({ user }: { user: User }) {
  const created = new Date(user.created_at);
  const [day, time] = user.created_at.split('T');
  return (
    <dl className="details">
      <dt>Email</dt>
      <dd><Email>{user.email}</Email><CopyButton text={user.email} what="email" /></dd>
      <dt>ID</dt>
      <dd><span className="mono">{user.id}</span><CopyButton text={String(user.id)} what="id" /></dd>
      <dt>Created</dt>
      <dd>
        <span>
          <time dateTime={created.toISOString()}>{exact(created)}</time>
          <span className="muted"> ({relative(created, useNow())})</span>
          <span className="mono muted utc">{day}<wbr />T{time}</span>
        </span>
        <CopyButton text={user.created_at} what="time" />
      </dd>
    </dl>
  );
}
