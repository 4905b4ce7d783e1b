/**
 * Reads a list of origins: comma-separated, or a JSON array, as pydantic takes it. An entry is an origin as browsers
 * send it, or holds one `*` for part of a host label, or is a lone `*`, every origin. Returns the entries, and what is
 * wrong with them, with what would be right.
 */
export function parseOrigins(value: string): { origins: string[]; mistakes: Set<string> } {
  const origins = entriesOf(value);
  const mistakes = origins.map(faultOf).filter((mistake) => mistake !== undefined);
  return { origins, mistakes: new Set(mistakes) };
}

function entriesOf(value: string): string[] {
  try {
    const entries: unknown = value.startsWith("[") ? JSON.parse(value) : value.split(",");
    if (Array.isArray(entries)) return entries.map((entry) => String(entry).trim()).filter(Boolean);
  } catch {}
  return [value];
}

/** Whether an origin is one of these. A `*` is part of one host label, and never of an internationalised one. */
export function originMatcher(origins: string[]): (origin: string) => boolean {
  if (origins.includes("*")) return () => true;
  const exact = new Set(origins.filter((origin) => !origin.includes("*")));
  const patterns = origins
    .filter((origin) => origin.includes("*"))
    .map((origin) => {
      const [before = "", after = ""] = origin.split("*").map(RegExp.escape);
      return new RegExp(`^${before}(?!xn--)[a-z0-9-]{1,63}${after}$`);
    });
  return (origin) => exact.has(origin) || patterns.some((pattern) => pattern.test(origin));
}

/** What is wrong with an entry, and what would be right. */
function faultOf(entry: string): string | undefined {
  if (entry === "*" || APP_ORIGIN.test(entry)) return undefined;
  const [before = "", after, ...others] = entry.split("*");
  const sample = after === undefined ? entry : `${before}${PART}${after}`;
  if (others.length > 0 || !/^https?:\/\//i.test(sample) || !URL.canParse(sample)) return adviceFor(entry);
  const { origin, protocol, hostname } = new URL(sample);
  if (origin !== sample) return `must be as browsers send it: ${origin.replace(PART, "*")}`;
  if (after === undefined) return undefined;
  if (protocol !== "https:") return `may hold a * in https origins only: https://*.example.com`;
  const suffix = openSuffix(hostname);
  return suffix && `must not hold ${entry}: anybody can have such a name under ${suffix}. ${NARROWER}`;
}

/** What an app or an extension sends: a scheme that is none of the web's, and a name of any kind. */
const APP_ORIGIN = /^(?!(?:https?|wss?|ftp|file|data|blob|about|javascript):)[a-z][a-z0-9+.-]*:\/\/[\w.-]+(?::\d+)?$/;

/** Stands for the `*` where a whole origin is needed. */
const PART = "any0part";
const NARROWER =
  "Write what only your own end in, such as https://my-app-*-my-team.vercel.app or https://*.example.com";

const adviceFor = (entry: string) =>
  /^(localhost|[\w-]+(\.[\w-]+)+)(:\d+)?$/.test(entry)
    ? `must say how it is reached: ${/^(localhost|[\d.]+)(:|$)/.test(entry) ? "http" : "https"}://${entry}`
    : "must be origins such as https://app.example.com, comma-separated or a JSON array (no path, no closing slash), with one * at most";

/**
 * The public suffix under which anybody could get a name that matches. Where names are sold (`com`), `PART` must stand
 * in front of the name. A platform (`vercel.app`) makes its names itself: there the end of the name must be fixed.
 */
function openSuffix(hostname: string): string | undefined {
  // At its first use: 10 ms that only a start with a pattern needs to spend.
  const { parse } = require("tldts") as typeof import("tldts");
  const { publicSuffix, isPrivate } = parse(hostname, { allowPrivateDomains: true });
  const [, behind = ""] = hostname.split(PART);
  const beyond = behind.split(".").length - (publicSuffix ?? "").split(".").length - 1;
  const narrowed = beyond === 0 && isPrivate && !behind.startsWith(".");
  return beyond > 0 || narrowed ? undefined : (publicSuffix ?? hostname).replace(PART, "*");
}
