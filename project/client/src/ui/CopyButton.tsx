import { copy } from './copy';
import { Icon } from './Icon';

interface Props {
  /** What is copied. */
  text: string;
  /** What it is, such as 'email'. */
  what: string;
  /** Whether Tab stops here. In long lists it does not: the panel of a user has the same buttons. */
  inTabOrder?: boolean;
}

/** A button that copies a text. */
export function CopyButton({ text, what, inTabOrder = true }: Props) {
  return (
    <button
      type="button"
      className="icon-button copy"
      aria-label={`Copy ${what} ${text}`}
      title={`Copy ${what}`}
      tabIndex={inTabOrder ? undefined : -1}
      onClick={() => void copy(text)}
    >
      <Icon name="copy" />
    </button>
  );
}
