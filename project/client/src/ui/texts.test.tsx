import { expect, test } from 'vitest';
import { initials } from './texts';

test.each([
  ['Ann Example', 'AE'], ['ann', 'A'], ['Ann van der Berg', 'AB'], ['ann.example', 'AE'], ['"Ann" Lee', 'AL'], ['éva', 'É'],
  ['👩‍👩‍👧 family', 'F'], ['👩‍👩‍👧', '👩‍👩‍👧'], ['محمد عبد الله', 'م'], ['ליאור כהן', 'לכ'], ['田中 さくら', '田さ'], ['123', '1'],
])('the initials of %s are %s', (name, expected) => { expect(initials(name)).toBe(expected); });
