/**
 * A regular expression for Postgres that finds `search` in any case, whatever the server's locale: it names every form
 * of each character, so that nothing is left to `LC_CTYPE`, which knows ASCII only where it is `C`. It costs no more
 * than `ilike`. "ß" and "ss" are alike, and so are a character and its decomposed form (NFC, NFD).
 */
export const searchPattern = (search: string): string =>
  (search.normalize("NFC").match(/ss|ß|ẞ|[\s\S]\p{M}*/giu) ?? []).map(anyForm).join("");

function anyForm(part: string): string {
  const forms = new Set<string>();
  const cases = /^(ss|ß|ẞ)$/i.test(part) ? ["ss", "sS", "Ss", "SS", "ß", "ẞ"] : casesOf(part);
  for (const form of cases) forms.add(form.normalize("NFC")).add(form.normalize("NFD"));
  const [only, ...more] = forms;
  if (more.length === 0) return escaped(only ?? "");
  const single = [...forms].every((form) => [...form].length === 1);
  return single ? `[${[...forms].join("")}]` : `(?:${[...forms].map(escaped).join("|")})`;
}

/** Greek has two small sigmas. */
const casesOf = (part: string) =>
  /^[σςΣ]$/.test(part) ? ["σ", "ς", "Σ"] : [part, part.toLowerCase(), part.toUpperCase()];

/** ASCII's punctuation may mean something in a pattern. */
const escaped = (text: string) => text.replace(/[!-/:-@[-`{-~]/g, "\\$&");
