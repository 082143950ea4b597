/**
 * The bearer token of this tab.
 *
 * It is in `sessionStorage`: it survives a reload, is not visible to other tabs, and ends with the tab.
 */

const KEY = 'users-token';

/** The dialog for a token, which is open because the service requires one. */
export interface Prompt {
  /** The service did not accept the last token. */
  wrong: boolean;
}

interface State {
  token: string | null;
  prompt: Prompt | null;
}

let state: State = { token: stored(), prompt: null };
let pending: Promise<string | null> | null = null;
let settle: (token: string | null) => void = () => undefined;
/** The reader closed the dialog without a token. Requests that the page sends by itself do not open it again. */
let declined = false;
const listeners = new Set<() => void>();

function stored(): string | null {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null; // storage is blocked: the token ends with the page
  }
}

function change(next: Partial<State>): void {
  state = { ...state, ...next };
  try {
    if (state.token === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, state.token);
  } catch {
    // Storage is blocked, as in the function above.
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
 * Open the dialog for a token. Requests that need one at the same time share one dialog.
 *
 * @param wrong The service did not accept the token that was sent.
 * @param byItself The page sends the request by itself, not for an action of the reader.
 * @returns The token, or null if the reader enters none.
 */
export function requestToken(wrong: boolean, byItself: boolean): Promise<string | null> {
  if (byItself && declined) return Promise.resolve(null);
  if (pending) return pending;
  pending = new Promise((resolve) => { settle = resolve; });
  change({ prompt: { wrong }, token: wrong ? null : state.token });
  return pending;
}

/** Close the dialog with a token, or with null for none. */
export function submitToken(token: string | null): void {
  declined = token === null;
  pending = null;
  change({ prompt: null, token: token ?? state.token });
  settle(token);
}

/** Forget the token. */
export function forget(): void {
  declined = true;
  change({ token: null });
}
