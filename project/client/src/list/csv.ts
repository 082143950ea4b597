import type { User } from '../service/users';

const COLUMNS = ['id', 'username', 'email', 'active', 'created_at'] as const;
/** Texts that a spreadsheet would read as a formula. Some languages also use the full-width characters. */
const FORMULA = /^[\s\p{C}]*[=+\-@\t\r\n|%＝＋－＠]/u;

/** Returns users as CSV (RFC 4180) that is safe to open in a spreadsheet. */
export function toCsv(users: readonly User[]): string {
  const rows = users.map((user) => COLUMNS.map((column) => cell(user[column])));
  // The byte order mark makes spreadsheets read UTF-8.
  return `\uFEFF${[COLUMNS, ...rows].map((row) => row.join(',')).join('\r\n')}\r\n`;
}

function cell(value: string | number | boolean): string {
  if (typeof value !== 'string') return String(value);
  const harmless = FORMULA.test(value) ? `'${value}` : value;
  return `"${harmless.replaceAll('"', '""')}"`;
}

/** Start a download of a text as a file. */
export function download(name: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: 'text/csv;charset=utf-8' }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}
