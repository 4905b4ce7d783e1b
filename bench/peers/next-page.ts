/** The `Link` to the page that follows these rows. */
export function nextPage(url: string, rows: Record<string, unknown>[]): string {
  const last = rows.at(-1) as { id: number; created_at: Date };
  const { pathname, searchParams } = new URL(url, "http://localhost");
  const place = ["created_at", "desc", last.created_at.toISOString(), last.id];
  searchParams.set("cursor", Buffer.from(JSON.stringify(place)).toString("base64url"));
  return `<${pathname}?${searchParams}>; rel="next"`;
}
