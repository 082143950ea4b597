import { useMutation } from '@tanstack/react-query';
import { useRef, useState } from 'react';
import { flushSync } from 'react-dom';
import { asServiceError } from '../service/errors';
import { changeUser, Conflict, type Changes, type Version } from '../service/users';
import { Field, focusFirstError } from '../ui/Field';
import { Problem, Waiting } from '../ui/Notice';
import { toast } from '../ui/toasts';
import { ConflictDialog } from './ConflictDialog';

interface Props {
  version: Version;
  onSaved: (version: Version) => void;
}

/** The form that changes the username and the email, and activates or deactivates the user. */
export function EditForm({ version, onSaved }: Props) {
  const { user, etag } = version;
  const form = useRef<HTMLFormElement>(null);
  const [typed, setTyped] = useState({ username: user.username, email: user.email });
  const [errors, setErrors] = useState<Readonly<Record<string, string>>>({});

  const saving = useMutation({
    mutationFn: ({ changes, over = etag }: { changes: Changes; over?: string }) => changeUser(user.id, over, changes),
    onSuccess: (next, { changes }) => {
      onSaved(next);
      setErrors({});
      // Keep typed text that was not sent.
      setTyped((current) => ({
        username: 'username' in changes ? next.user.username : current.username,
        email: 'email' in changes ? next.user.email : current.email,
      }));
      toast(done(changes, next));
    },
    onError: (thrown) => {
      if (thrown instanceof Conflict) return;
      flushSync(() => { setErrors(asServiceError(thrown).errors); });
      focusFirstError(form.current);
    },
  });

  const changes: Changes = {
    ...(typed.username !== user.username && { username: typed.username }),
    ...(typed.email !== user.email && { email: typed.email }),
  };
  const isChanged = Object.keys(changes).length > 0;
  const isToggling = saving.isPending && Object.keys(saving.variables.changes).join() === 'active';
  const conflict = saving.error instanceof Conflict ? saving.error : null;
  const failure = saving.error && !conflict ? asServiceError(saving.error) : null;
  const isElsewhere = failure && Object.keys(failure.errors).length === 0 && failure.kind !== 'token';

  function edit(name: keyof typeof typed, value: string) {
    setTyped((current) => ({ ...current, [name]: value }));
    setErrors((current) => Object.fromEntries(Object.entries(current).filter(([field]) => field !== name)));
  }

  function reset(to: Version) {
    setTyped({ username: to.user.username, email: to.user.email });
    setErrors({});
    saving.reset();
  }

  return (
    <form
      ref={form}
      className="edit"
      noValidate
      aria-label="Edit user"
      aria-busy={saving.isPending}
      onSubmit={(event) => {
        event.preventDefault();
        if (isChanged && !saving.isPending) saving.mutate({ changes });
      }}
    >
      <Field
        label="Username" name="username" value={typed.username} error={errors.username} readOnly={saving.isPending}
        onChange={(value) => { edit('username', value); }}
      />
      <Field
        label="Email" name="email" inputMode="email" value={typed.email} error={errors.email} readOnly={saving.isPending}
        onChange={(value) => { edit('email', value); }}
      />
      {saving.isPending && saving.failureReason && (
        <Waiting error={asServiceError(saving.failureReason)} failures={saving.failureCount} />
      )}
      {isElsewhere && <Problem error={failure} />}
      <div className="edit-actions">
        <button type="submit" className="button button-primary" aria-disabled={!isChanged || saving.isPending}>
          {saving.isPending && !isToggling ? 'Saving…' : 'Save changes'}
        </button>
        {isChanged && <button type="button" className="button" onClick={() => { reset(version); }}>Discard</button>}
        <button
          type="button"
          className="button toggle"
          aria-disabled={saving.isPending}
          onClick={() => { if (!saving.isPending) saving.mutate({ changes: { active: !user.active } }); }}
        >
          {isToggling ? 'Saving…' : user.active ? 'Deactivate' : 'Activate'}
        </button>
      </div>
      {conflict && (
        <ConflictDialog
          mine={{ ...user, ...saving.variables?.changes }}
          seen={user}
          current={conflict.current.user}
          saveLabel="Save my version"
          onSave={(mine) => { saving.mutate({ changes: mine, over: conflict.current.etag }); }}
          onKeep={() => { onSaved(conflict.current); reset(conflict.current); }}
          onClose={() => { saving.reset(); }}
        />
      )}
    </form>
  );
}

function done(changes: Changes, { user }: Version): string {
  if (Object.keys(changes).join() === 'active') return `${user.username} was ${user.active ? 'activated' : 'deactivated'}.`;
  return `${user.username} was saved.`;
}
