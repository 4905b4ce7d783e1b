/**
 * The weight (RFC 9110, section 12.4.2) that an `Accept…` header gives to what it names so: 0 is "not that".
 * Undefined if it doesn't name it.
 */
export function weightOf(name: string, header: string | null): number | undefined {
  if (!header?.toLowerCase().includes(name)) return undefined;
  for (const item of header.toLowerCase().split(",")) {
    const [named, ...parameters] = item.split(";").map((part) => part.trim());
    if (named === name) return Number(parameters.find((part) => /^q=/.test(part))?.slice(2) ?? 1);
  }
}
