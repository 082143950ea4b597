import { copy } from './copy';
import { Icon } from './Icon';

interface Props {
  /** The text to copy. */
  text: string;
  /** The name of the field, such as 'email'. */
  what: string;
  /** Whether the Tab key reaches it. Not in long lists: the panel of a user has the same buttons. */
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
