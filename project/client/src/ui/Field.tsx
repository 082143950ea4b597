import { useId } from 'react';

interface Props {
  label: string;
  name: string;
  value: string;
  onChange: (value: string) => void;
  inputMode?: 'text' | 'email';
  error: string | undefined;
  readOnly?: boolean;
}

/** A labelled text field, and its error. Only the service validates the value. */
export function Field({ label, name, value, onChange, inputMode = 'text', error, readOnly = false }: Props) {
  const id = useId();
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <input
        id={id}
        name={name}
        // Not type="email", because browsers change the typed text there.
        type="text"
        // The direction of a name depends on its letters, not on the page.
        dir={inputMode === 'email' ? 'ltr' : 'auto'}
        inputMode={inputMode}
        autoComplete="off"
        autoCapitalize="none"
        spellCheck={false}
        required
        readOnly={readOnly}
        value={value}
        aria-invalid={error !== undefined}
        aria-describedby={error === undefined ? undefined : `${id}-error`}
        onChange={(event) => { onChange(event.target.value); }}
      />
      {error !== undefined && <p className="field-error" id={`${id}-error`}>{error}</p>}
    </div>
  );
}

/** Focus the first wrong field of a form. */
export function focusFirstError(form: HTMLFormElement | null): void {
  form?.querySelector<HTMLInputElement>('[aria-invalid="true"]')?.focus();
}
