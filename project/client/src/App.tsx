import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState, useSyncExternalStore } from 'react';
import { AddDialog } from './dialogs/AddDialog';
import { TokenDialog } from './dialogs/TokenDialog';
import { UserList } from './list/UserList';
import { ConflictDialog } from './panel/ConflictDialog';
import { removeLater } from './panel/removal';
import { UserPanel } from './panel/UserPanel';
import { probe, type Conflict, type Version } from './service/users';
import { forget, snapshot, subscribe } from './service/token';
import { Icon } from './ui/Icon';
import { Toasts } from './ui/Toasts';
import { toast } from './ui/toasts';
import { closePanel, show, useView } from './url';
import { useNarrowScreen, useShortcuts } from './useShortcuts';

/** The page: the list, the panel of a user, and the dialogs. */
export function App() {
  const client = useQueryClient();
  const view = useView();
  const { token, prompt } = useSyncExternalStore(subscribe, snapshot);
  const [isAdding, setIsAdding] = useState(false);
  const [newest, setNewest] = useState<number | null>(null);
  const [conflict, setConflict] = useState<{ seen: Version; current: Version } | null>(null);
  const isNarrow = useNarrowScreen();
  const probed = useQuery({
    queryKey: ['access'], queryFn: probe, enabled: token === null, retry: false, gcTime: Infinity, refetchOnWindowFocus: false,
  });
  // With a token, or if the probe failed, all buttons are shown.
  const access = token !== null || probed.isError ? { change: true, add: true } : probed.data;
  const isPanelOpen = view.user !== null;

  useShortcuts({ add: () => { if (access?.add) setIsAdding(true); }, close: () => { if (isPanelOpen) closePanel(); } });

  function forgetToken() {
    forget();
    // Remove what was loaded with the token.
    client.removeQueries({ queryKey: ['user'] });
    void client.resetQueries();
    toast('The token was forgotten.');
  }

  function remove(version: Version) {
    setConflict(null);
    removeLater(client, version, handleRemovalConflict.bind(null, version));
  }

  function handleRemovalConflict(seen: Version, { current }: Conflict) {
    setConflict({ seen, current });
  }

  return (
    <div className={isPanelOpen ? 'app app-with-panel' : 'app'}>
      <div className="page" inert={isPanelOpen && isNarrow}>
        <header className="page-header">
          <h1>All Users</h1>
          {token !== null && (
            <button type="button" className="button" onClick={forgetToken}><Icon name="key" />Forget token</button>
          )}
          {access?.add && (
            <button
              type="button" className="button button-primary" aria-keyshortcuts="n" title="Add user (n)"
              onClick={() => { setIsAdding(true); }}
            >
              <Icon name="add" />Add user
            </button>
          )}
        </header>
        <main>
          {access && !access.change && (
            <p className="note banner">
              This service has no API tokens, so users cannot be {access.add ? '' : 'added, '}changed or removed here.
              Its operator can allow it by setting <code>API_TOKENS</code>.
            </p>
          )}
          <UserList view={view} newest={newest} />
        </main>
      </div>
      {view.user !== null && (
        <UserPanel
          key={view.user}
          id={view.user}
          access={access}
          onRemovalConflict={handleRemovalConflict}
        />
      )}
      <Toasts />
      {isAdding && (
        <AddDialog
          onClose={() => { setIsAdding(false); }}
          onAdded={(user) => { setIsAdding(false); setNewest(user.id); }}
        />
      )}
      {conflict && (
        <ConflictDialog
          mine={null}
          seen={conflict.seen.user}
          current={conflict.current.user}
          saveLabel="Remove anyway"
          onSave={() => { remove(conflict.current); }}
          onKeep={() => { setConflict(null); show({ user: conflict.current.user.id }); }}
          onClose={() => { setConflict(null); }}
        />
      )}
      {prompt && <TokenDialog key={String(prompt.wrong)} wrong={prompt.wrong} />}
    </div>
  );
}
