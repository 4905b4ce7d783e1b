import { readLicenses } from "./read-licenses.ts" with { type: "macro" };

/** A module of its own, so that the text is loaded only when it is asked for. */
export const LICENSES: string = readLicenses();
