import { Icon } from './Icon';
import { dismiss, useToasts } from './toasts';

/** The messages, in a live region for screen readers. It exists from the start. */
export function Toasts() {
  return (
    <div className="toasts" role="status" aria-live="polite" aria-label="Messages">
      {useToasts().map(({ id, text, kind, action }) => (
        <div key={id} className={`toast toast-${kind}`}>
          <p>{text}</p>
          {action && (
            <button
              type="button" className="toast-action" autoFocus={action.hasFocus}
              onClick={() => { dismiss(id); action.onPress(); }}
            >
              {action.label}
            </button>
          )}
          <button type="button" className="icon-button" aria-label="Dismiss" onClick={() => { dismiss(id); }}>
            <Icon name="close" />
          </button>
        </div>
      ))}
    </div>
  );
}
