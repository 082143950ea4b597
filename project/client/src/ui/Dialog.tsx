import { useId, useLayoutEffect, useRef, type ReactNode } from 'react';
import { Icon } from './Icon';

interface Props {
  title: ReactNode;
  onClose: () => void;
  children: ReactNode;
  /** For a decision that the reader must make. Screen readers read such a dialog as a whole. */
  role?: 'alertdialog';
  wide?: boolean;
}

/**
 * A modal dialog; on a phone a sheet at the bottom.
 *
 * The browser's `<dialog>` keeps the focus inside, makes the rest of the page inert, closes on Escape, and returns the
 * focus afterwards.
 */
export function Dialog({ title, onClose, children, role, wide = false }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();

  useLayoutEffect(() => {
    const element = dialog.current;
    element?.showModal();
    // Not the close button, which is first.
    element?.querySelector<HTMLElement>('input, .dialog-footer button')?.focus();
    return () => { element?.close(); };
  }, []);

  return (
    <dialog
      ref={dialog}
      role={role}
      className={wide ? 'dialog dialog-wide' : 'dialog'}
      aria-labelledby={id}
      onCancel={(event) => { event.preventDefault(); onClose(); }}
      // The target is the dialog itself only if the backdrop was pressed.
      onMouseDown={(event) => { if (event.target === dialog.current) onClose(); }}
    >
      <div className="dialog-content">
        <div className="dialog-header">
          <h2 id={id}>{title}</h2>
          <button type="button" className="icon-button" aria-label="Close" onClick={onClose}><Icon name="close" /></button>
        </div>
        {children}
      </div>
    </dialog>
  );
}
