import { useEffect, useRef, useSyncExternalStore } from 'react';

/** The keys `/`, `n` and Escape. They have no effect while a modal dialog is open, and `/` and `n` none in a text field. */
export function useShortcuts(actions: { add: () => void; close: () => void }): void {
  const latest = useRef(actions);
  useEffect(() => { latest.current = actions; });

  useEffect(() => {
    function pressed(event: KeyboardEvent) {
      if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
      if (event.key === 'Escape') {
        latest.current.close();
        return;
      }
      if (event.target instanceof HTMLInputElement) return;
      if (event.key === '/') {
        event.preventDefault();
        const search = document.getElementById('search') as HTMLInputElement | null;
        search?.focus();
        search?.select();
      } else if (event.key === 'n') {
        event.preventDefault();
        latest.current.add();
      }
    }
    addEventListener('keydown', pressed);
    return () => { removeEventListener('keydown', pressed); };
  }, []);
}

const NARROW = '(max-width: 40rem)';

/** Whether the screen is so narrow that the panel covers the list. */
export function useNarrowScreen(): boolean {
  return useSyncExternalStore((listener) => {
    const query = matchMedia(NARROW);
    query.addEventListener('change', listener);
    return () => { query.removeEventListener('change', listener); };
  }, () => matchMedia(NARROW).matches);
}
