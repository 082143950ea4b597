import { useEffect, useRef, useState } from 'react';
import { Icon } from '../ui/Icon';
import { MIN_SEARCH, show, type View } from '../url';

const PAUSE_MS = 200;
const FILTERS = [
  { label: 'All', active: undefined },
  { label: 'Active', active: true },
  { label: 'Inactive', active: false },
] as const;

interface Props {
  view: View;
  /** The number of users shown, for the export button. */
  shown: number;
  onExport: () => void;
  onRefresh: () => void;
}

/** The search field, the filters, and the buttons for the list. */
export function Toolbar({ view, shown, onExport, onRefresh }: Props) {
  return (
    <div className="toolbar">
      {/* A new search in the URL, such as after Back, replaces the typed text. */}
      <Search q={view.q} />
      <div className="filters" role="group" aria-label="Filter by status">
        {FILTERS.map(({ label, active }) => (
          <button
            key={label}
            type="button"
            aria-pressed={view.active === active}
            onClick={() => { if (view.active !== active) show({ active }); }}
          >
            {label}
          </button>
        ))}
      </div>
      <div className="toolbar-actions">
        <button type="button" className="icon-button" aria-label="Refresh" title="Refresh" onClick={onRefresh}>
          <Icon name="refresh" />
        </button>
        <button
          type="button"
          className="button"
          aria-disabled={shown === 0}
          title="Save the users shown as a CSV file"
          onClick={() => { if (shown > 0) onExport(); }}
        >
          <Icon name="download" />Export<span className="visually-hidden"> {shown.toLocaleString()} users as CSV</span>
        </button>
      </div>
    </div>
  );
}

function Search({ q }: { q: string }) {
  const [text, setText] = useState(q);
  /** The search that this field has put into the URL. Any other search in the URL comes from elsewhere. */
  const [known, setKnown] = useState(q);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);

  if (q !== known) {
    setKnown(q);
    setText(q);
  }

  useEffect(() => () => { clearTimeout(timer.current); }, []);

  function search(next: string) {
    clearTimeout(timer.current);
    if (next === q) return;
    setKnown(next);
    // One history entry for a search, however many letters are typed, and one for clearing it.
    show({ q: next }, q !== '' && next !== '');
  }

  function typed(next: string) {
    setText(next);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => { search(next); }, PAUSE_MS);
  }

  const tooShort = text.trim() !== '' && Array.from(text.trim()).length < MIN_SEARCH;
  return (
    <form className="search" role="search" onSubmit={(event) => { event.preventDefault(); search(text); }}>
      <label htmlFor="search" className="visually-hidden">Search by username or email</label>
      <Icon name="search" />
      <input
        id="search"
        type="search"
        placeholder="Search by username or email"
        autoComplete="off"
        autoCapitalize="none"
        spellCheck={false}
        maxLength={128}
        aria-describedby={tooShort ? 'search-hint' : undefined}
        aria-keyshortcuts="/"
        value={text}
        onChange={(event) => { typed(event.target.value); }}
        onKeyDown={(event) => {
          if (event.key !== 'Escape' || text === '') return;
          event.stopPropagation();
          setText('');
          search('');
        }}
      />
      <kbd aria-hidden="true">/</kbd>
      {tooShort && <p className="search-hint" id="search-hint">Type at least {MIN_SEARCH} characters.</p>}
    </form>
  );
}
