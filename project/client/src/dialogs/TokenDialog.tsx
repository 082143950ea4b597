import { useState } from 'react';
import { submitToken } from '../service/token';
import { Dialog } from '../ui/Dialog';

/** The dialog in which the reader enters the token that the service requires. */
export function TokenDialog({ wrong }: { wrong: boolean }) {
  const [text, setText] = useState('');
  const token = text.trim();

  return (
    <Dialog title="Enter a token" onClose={() => { submitToken(null); }}>
      <form
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          if (token) submitToken(token);
        }}
      >
        <p>The users service requires one of its API tokens for this. It stays in this tab and is forgotten when the tab is closed.</p>
        <div className="field">
          <label htmlFor="token">API token</label>
          <input
            id="token"
            // The browser should not offer to save it.
            type="password"
            autoComplete="off"
            spellCheck={false}
            required
            value={text}
            aria-invalid={wrong && text === ''}
            aria-describedby={wrong && text === '' ? 'token-error' : undefined}
            onChange={(event) => { setText(event.target.value); }}
          />
          {wrong && text === '' && (
            <p className="field-error" id="token-error" role="alert">The service did not accept this token. Check it for typos.</p>
          )}
        </div>
        <footer className="dialog-footer">
          <button type="button" className="button" onClick={() => { submitToken(null); }}>Cancel</button>
          <button type="submit" className="button button-primary" aria-disabled={!token}>Use token</button>
        </footer>
      </form>
    </Dialog>
  );
}
