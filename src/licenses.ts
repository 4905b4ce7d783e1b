import { readLicenses } from "./read-licenses.ts" with { type: "macro" };

/** A module of its own, so that the text is loaded for who asks for it only. */
export const LICENSES: string = readLicenses();
