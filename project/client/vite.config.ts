import react from '@vitejs/plugin-react';
import { loadEnv } from 'vite';
import { defineConfig } from 'vitest/config';

/** What is wrong with the service's address, or '' when nothing is. */
function problemWith(address: string): string {
  if (!address) return '';
  const url = URL.canParse(address) ? new URL(address) : undefined;
  if (!url || !['http:', 'https:'].includes(url.protocol)) return 'must start with http:// or https://';
  if (url.username || url.password) return 'must not hold a user name or password, which every visitor could read';
  if (url.search || url.hash) return 'must not hold a ? or #';
  return '';
}

export default defineConfig(({ mode }) => {
  const address = loadEnv(mode, process.cwd(), 'REACT_APP_').REACT_APP_USERS_SERVICE_URL ?? '';
  const problem = problemWith(address.trim());
  if (problem) {
    console.error(`REACT_APP_USERS_SERVICE_URL ${problem}.`);
    process.exit(1);
  }
  return {
    plugins: [react()],
    envPrefix: 'REACT_APP_',
    test: {
      environment: 'jsdom',
      setupFiles: 'src/testing.ts',
      restoreMocks: true,
      unstubGlobals: true,
      // A zone and a service of their own, whatever machine the tests run on.
      env: { TZ: 'Asia/Tokyo', REACT_APP_USERS_SERVICE_URL: 'http://users.test:5001/' },
    },
  };
});
