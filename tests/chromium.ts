export const CHROMIUM = "/usr/bin/chromium";

/** It stays quiet: without these it looks for its maker's servers, on a machine that may reach none. */
export const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
