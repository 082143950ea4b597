import react from '@vitejs/plugin-react';
import { gzipSync } from 'node:zlib';
import { loadEnv, type Plugin } from 'vite';
import { defineConfig } from 'vitest/config';

/** Returns the error in the service's address, or '' if it is valid. */
function problemWith(address: string): string {
  if (!address) return '';
  const url = URL.canParse(address) ? new URL(address) : undefined;
  if (!url || !['http:', 'https:'].includes(url.protocol)) return 'must start with http:// or https://, such as http://localhost:5001';
  if (url.username || url.password) return 'must not contain a user name or password, which every visitor could read, such as http://localhost:5001';
  if (url.search || url.hash) return 'must not contain a ? or #, such as http://localhost:5001';
  return '';
}

const MAX_SCRIPT_KB = 120;

/** Fails the build if the script is too large, and reports its size. */
function limitScript(): Plugin {
  return {
    name: 'limit-script',
    generateBundle(_, bundle) {
      const chunks = Object.values(bundle).filter((output) => output.type === 'chunk');
      const size = chunks.reduce((sum, { code }) => sum + gzipSync(code).length, 0) / 1000;
      if (size > MAX_SCRIPT_KB) this.error(`The script has ${size.toFixed(1)} KB compressed; at most ${MAX_SCRIPT_KB} are allowed.`);
    },
  };
}

export default defineConfig(({ mode }) => {
  const address = loadEnv(mode, process.cwd(), 'REACT_APP_').REACT_APP_USERS_SERVICE_URL ?? '';
  const problem = problemWith(address.trim());
  if (problem) {
    console.error(`REACT_APP_USERS_SERVICE_URL ${problem}.`);
    process.exit(1);
  }
  return {
    base: './', // a proxy may publish the page below any path
    plugins: [react(), limitScript()],
    envPrefix: 'REACT_APP_',
    test: {
      environment: 'jsdom',
      restoreMocks: true,
      unstubGlobals: true,
      // The tests have the same time zone and service address on every machine.
      env: { TZ: 'Asia/Tokyo', REACT_APP_USERS_SERVICE_URL: 'http://users.test:5001/' },
    },
  };
});
