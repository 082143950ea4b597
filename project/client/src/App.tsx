import { useRef, useState, type SubmitEvent } from 'react';
import { AddUser } from './AddUser';
import type { User } from './api';
import { Empty, Problem, Skeleton } from './notices';
import { UserList } from './UserList';
import { useUsers } from './useUsers';

const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

export function App() {
  const { question: { email }, loading, answered, users, next, problem, more, ask, showMore, prepend } = useUsers();
  const [newest, setNewest] = useState<number | null>(null);
  const [text, setText] = useState('');
  const status = useRef<HTMLParagraphElement>(null);

  /** Ask again or for everybody, with the focus in safety: the button that was pressed will go. */
  function askFromButton(address: string) {
    status.current?.focus({ preventScroll: true });
    setText(address);
    ask(address);
  }

  function lookUp(event: SubmitEvent) {
    event.preventDefault();
    const address = text.trim();
    if (address || email) ask(address);
  }

  function added(user: User) {
    setNewest(user.id);
    setText('');
    prepend(user);
  }

  const showEverybody = <button type="button" className="quiet" onClick={() => { askFromButton(''); }}>Show everybody</button>;
  return (
    <div className="page">
      <header>
        <h1>All Users</h1>
      </header>
      <main>
        <AddUser onAdded={added} />
        <section className="everybody" aria-labelledby="users">
          <h2 id="users" className="visually-hidden">Users</h2>
          <form className="look-up" role="search" noValidate onSubmit={lookUp}>
            <label htmlFor="look-up">Look up by email</label>
            <div className="look-up-line">
              <input
                id="look-up"
                type="search"
                inputMode="email"
                autoComplete="off"
                autoCapitalize="none"
                spellCheck={false}
                value={text}
                onChange={(event) => { setText(event.target.value); }}
              />
              <button type="submit" className="quiet">Look up</button>
              {email && showEverybody}
            </div>
          </form>
          <p className="status" role="status" tabIndex={-1} ref={status}>
            {loading ? (email ? `Looking up ${email}…` : 'Loading users…') : summary(users.length, email, next !== null, problem !== null)}
          </p>
          <div className={loading && users.length > 0 ? 'stale' : undefined} aria-busy={loading}>
            {loading && users.length === 0 ? (
              <Skeleton />
            ) : problem ? (
              <Problem error={problem}>
                <button type="button" className="quiet" onClick={() => { askFromButton(email); }}>Retry</button>
              </Problem>
            ) : users.length > 0 ? (
              <UserList users={users} hasMore={next !== null} more={more} newest={newest} onMore={showMore} />
            ) : answered?.email ? (
              <Empty title="Nobody has this email">
                No user has the address <q>{answered.email}</q>. Look for a slip in it, or go back to everybody.
              </Empty>
            ) : (
              <Empty title="No users yet">The first one you add will stand here.</Empty>
            )}
          </div>
        </section>
      </main>
      <footer>
        Times are in your time zone, {ZONE}. <span className="hover-only">Point at one for the exact UTC.</span>
      </footer>
    </div>
  );
}

/** What is on the page, in a line that screen readers read out whenever it changes. */
function summary(count: number, email: string, hasMore: boolean, failed: boolean): string {
  if (failed) return '';
  if (email) return count === 0 ? 'Nobody found' : `${count === 1 ? '1 user' : `${count} users`} with the email ${email}`;
  if (count <= 1) return count === 0 ? '0 users' : '1 user';
  return hasMore ? `The newest ${count.toLocaleString()} users` : `All ${count.toLocaleString()} users, newest first`;
}
