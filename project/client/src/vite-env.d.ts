/// <reference types="vite/client" />

interface ImportMetaEnv {
  readonly REACT_APP_USERS_SERVICE_URL?: string;
}
