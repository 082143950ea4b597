import { toast } from './toasts';

/** Copy a text to the clipboard, and show a message. */
export async function copy(text: string): Promise<void> {
  const done = await write(text);
  toast(done ? `Copied ${text}` : 'The browser did not allow copying.', { kind: done ? 'success' : 'failure', seconds: 3 });
}

async function write(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without HTTPS the clipboard API is missing, and the older command works.
    const area = document.createElement('textarea');
    const focused = document.activeElement;
    area.value = text;
    document.body.append(area);
    area.select();
    // eslint-disable-next-line @typescript-eslint/no-deprecated -- there is no other way without HTTPS
    const done = document.execCommand('copy');
    area.remove();
    if (focused instanceof HTMLElement) focused.focus({ preventScroll: true });
    return done;
  }
}
