/** Short messages at the edge of the screen. */

import { useSyncExternalStore } from 'react';

export interface Toast {
  id: number;
  text: string;
  kind: 'success' | 'failure';
  /** A button, for as long as the message is shown. */
  action?: {
    label: string;
    onPress: () => void;
    /** The button gets the focus: there is little time to reach it with the keyboard. */
    hasFocus?: boolean;
  };
}

const SECONDS = 6;
let toasts: readonly Toast[] = [];
let last = 0;
const listeners = new Set<() => void>();

function set(next: readonly Toast[]): void {
  toasts = next;
  listeners.forEach((listener) => { listener(); });
}

/**
 * Show a message.
 *
 * @param seconds How long it is shown. Failures are shown until they are closed.
 * @returns Its id, for `dismiss`.
 */
export function toast(text: string, options: Partial<Omit<Toast, 'id' | 'text'>> & { seconds?: number } = {}): number {
  const { seconds, kind = 'success', ...rest } = options;
  const id = ++last;
  set([...toasts.slice(-2), { id, text, kind, ...rest }]);
  if (kind === 'success') setTimeout(() => { dismiss(id); }, (seconds ?? SECONDS) * 1000);
  return id;
}

/** Close a message, if it is still shown. */
export function dismiss(id: number): void {
  if (toasts.some((one) => one.id === id)) set(toasts.filter((one) => one.id !== id));
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => { listeners.delete(listener); };
}

/** The messages that are shown, oldest first. */
export function useToasts(): readonly Toast[] {
  return useSyncExternalStore(subscribe, () => toasts);
}
