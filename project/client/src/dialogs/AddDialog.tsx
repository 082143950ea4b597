import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useRef, useState } from 'react';
import { flushSync } from 'react-dom';
import { insert } from '../list/cache';
import { asServiceError } from '../service/errors';
import { addUser, findByEmail, type User } from '../service/users';
import { Dialog } from '../ui/Dialog';
import { Field, focusFirstError } from '../ui/Field';
import { Problem, Waiting } from '../ui/Notice';
import { toast } from '../ui/toasts';

const EMPTY = { username: '', email: '' };

/** The dialog that adds a user. */
export function AddDialog({ onAdded, onClose }: { onAdded: (user: User) => void; onClose: () => void }) {
  const client = useQueryClient();
  const form = useRef<HTMLFormElement>(null);
  const [typed, setTyped] = useState(EMPTY);
  const [errors, setErrors] = useState<Readonly<Record<string, string>>>({});
  /** An attempt failed, and the user may have been added. */
  const maybeAdded = useRef(false);

  const adding = useMutation({
    mutationFn: async () => {
      try {
        return await addUser(typed);
      } catch (thrown) {
        const { kind, errors: { email } } = asServiceError(thrown);
        if (kind === 'busy' || kind === 'unreachable') maybeAdded.current = true;
        const user = email && maybeAdded.current ? await findByEmail(typed.email) : undefined;
        if (user?.username !== typed.username.trim()) throw thrown;
        return { user, message: `${user.email} was added!` };
      }
    },
    onSuccess: ({ user, message }) => {
      insert(client, user);
      toast(message);
      onAdded(user);
    },
    onError: (thrown) => {
      // Mark the field before it gets the focus, so that screen readers read the error.
      flushSync(() => { setErrors(asServiceError(thrown).errors); });
      focusFirstError(form.current);
    },
  });

  function edit(name: keyof typeof EMPTY, value: string) {
    setTyped((current) => ({ ...current, [name]: value }));
    setErrors((current) => Object.fromEntries(Object.entries(current).filter(([field]) => field !== name)));
    // The form now has another user than the one that was sent.
    maybeAdded.current = false;
  }

  const failure = adding.error && asServiceError(adding.error);
  const isElsewhere = failure && !('username' in failure.errors || 'email' in failure.errors) && failure.kind !== 'token';
  return (
    <Dialog title="Add a user" onClose={onClose}>
      <form
        ref={form}
        noValidate
        aria-busy={adding.isPending}
        onSubmit={(event) => {
          event.preventDefault();
          if (!adding.isPending) adding.mutate();
        }}
      >
        <Field
          label="Username" name="username" value={typed.username} error={errors.username} readOnly={adding.isPending}
          onChange={(value) => { edit('username', value); }}
        />
        <Field
          label="Email" name="email" inputMode="email" value={typed.email} error={errors.email} readOnly={adding.isPending}
          onChange={(value) => { edit('email', value); }}
        />
        {adding.isPending && adding.failureReason && (
          <Waiting error={asServiceError(adding.failureReason)} failures={adding.failureCount} />
        )}
        {isElsewhere && <Problem error={failure} />}
        <footer className="dialog-footer">
          <button type="button" className="button" onClick={onClose}>Cancel</button>
          <button type="submit" className="button button-primary" aria-disabled={adding.isPending}>
            {adding.isPending ? 'Adding…' : isElsewhere ? 'Try again' : 'Add user'}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
