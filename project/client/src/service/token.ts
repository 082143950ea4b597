/**
 * The bearer token of this tab.
 *
 * It is kept in `sessionStorage`: reloading the page keeps it, other tabs do not see it, and closing the tab forgets it.
 */

const KEY = 'users-token';

/** A dialog that is open because the service asked for a token. */
export interface Question {
  /** The service did not accept the last token. */
  wrong: boolean;
}

interface State {
  token: string | null;
  question: Question | null;
}

let state: State = { token: stored(), question: null };
let answered: Promise<string | null> | null = null;
let settle: (token: string | null) => void = () => undefined;
/** The reader did not want to give a token: what the page loads by itself does not ask again. */
let declined = false;
const listeners = new Set<() => void>();

function stored(): string | null {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null; // storage is blocked: the token lives as long as the page
  }
}

function change(next: Partial<State>): void {
  state = { ...state, ...next };
  try {
    if (state.token === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, state.token);
  } catch {
    // As above.
  }
  listeners.forEach((listener) => { listener(); });
}

export function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => { listeners.delete(listener); };
}

export function snapshot(): State {
  return state;
}

/**
 * Ask the reader for a token; requests that ask at the same time share one dialog.
 *
 * @param wrong The service did not accept the token that was sent.
 * @param byItself The page asks without the reader having done something.
 * @returns The token, or null when the reader gives none.
 */
export function ask(wrong: boolean, byItself: boolean): Promise<string | null> {
  if (byItself && declined) return Promise.resolve(null);
  if (answered) return answered;
  answered = new Promise((resolve) => { settle = resolve; });
  change({ question: { wrong }, token: wrong ? null : state.token });
  return answered;
}

/** Close the dialog with a token, or with null for none. */
export function answer(token: string | null): void {
  declined = token === null;
  answered = null;
  change({ question: null, token: token ?? state.token });
  settle(token);
}

/** Forget the token. */
export function forget(): void {
  declined = true;
  change({ token: null });
}
