import { useRef, useState, type SubmitEvent } from 'react';
import { flushSync } from 'react-dom';
import { addUser, asServiceError, type ServiceError, type User } from './api';
import { Problem } from './notices';

const FIELDS = [
  { name: 'username', label: 'Username', inputMode: 'text' },
  { name: 'email', label: 'Email', inputMode: 'email' },
] as const;

type Outcome =
  | { kind: 'none' | 'pending' }
  | { kind: 'added'; message: string }
  | { kind: 'failed'; error: ServiceError };

/** The form that adds a user. The service alone decides what is valid, and its words are shown. */
export function AddUser({ onAdded }: { onAdded: (user: User) => void }) {
  const [outcome, setOutcome] = useState<Outcome>({ kind: 'none' });
  // The fields keep their own text, so that nothing but a success empties them.
  const [errors, setErrors] = useState<Readonly<Record<string, string>>>({});
  const pending = useRef(false);
  const button = useRef<HTMLButtonElement>(null);

  async function submit(event: SubmitEvent<HTMLFormElement>) {
    event.preventDefault();
    if (pending.current) return;
    const form = event.currentTarget;
    // The Retry button is about to disappear, and with it the focus.
    if (document.activeElement?.closest('.problem')) button.current?.focus();
    pending.current = true;
    setOutcome({ kind: 'pending' });
    const typed = Object.fromEntries(new FormData(form)) as Record<'username' | 'email', string>;
    try {
      const { user, message } = await addUser(typed);
      form.reset();
      setErrors({});
      setOutcome({ kind: 'added', message: message || `${user.email} was added!` });
      onAdded(user);
    } catch (thrown) {
      const error = asServiceError(thrown);
      // The field must be marked before it gets the focus, or screen readers would not say why it did.
      flushSync(() => {
        setErrors(error.errors);
        setOutcome({ kind: 'failed', error });
      });
      form.querySelector<HTMLInputElement>('[aria-invalid="true"]')?.focus();
    } finally {
      pending.current = false;
    }
  }

  /** What was said about the last attempt is out of date once the field is edited. */
  function edited(field: string) {
    setErrors((current) => Object.fromEntries(Object.entries(current).filter(([name]) => name !== field)));
    setOutcome((current) => current.kind === 'added' ? { kind: 'none' } : current);
  }

  const busy = outcome.kind === 'pending';
  const elsewhere = outcome.kind === 'failed' && !FIELDS.some(({ name }) => name in outcome.error.errors);
  return (
    <form className="card" aria-labelledby="add-user" aria-busy={busy} noValidate onSubmit={(event) => void submit(event)}>
      <h2 id="add-user">Add a user</h2>
      {FIELDS.map(({ name, label, inputMode }) => (
        <div className="field" key={name}>
          <label htmlFor={name}>{label}</label>
          <input
            id={name}
            name={name}
            // Not type="email": browsers rewrite what is typed there.
            type="text"
            inputMode={inputMode}
            autoComplete="off"
            autoCapitalize="none"
            spellCheck={false}
            required
            readOnly={busy}
            aria-invalid={name in errors}
            aria-describedby={name in errors ? `${name}-error` : undefined}
            onChange={() => { edited(name); }}
          />
          {name in errors && <p className="field-error" id={`${name}-error`}>{errors[name]}</p>}
        </div>
      ))}
      {elsewhere && (
        <Problem error={outcome.error}>
          <button type="submit" className="quiet">Retry</button>
        </Problem>
      )}
      <button ref={button} type="submit" className="primary" aria-disabled={busy}>{busy ? 'Adding…' : 'Add user'}</button>
      <p className="added" role="status">{outcome.kind === 'added' && outcome.message}</p>
    </form>
  );
}
