/**
 * Words as Python's `str.split()` cuts them.
 *
 * @module
 */

// JavaScript counts the byte order mark as white space, Python does not.
const SPACE = /[^\S\uFEFF]+/;

/** The words between white space; none of a blank text. */
export function splitWords(text: string): string[] {
  return text.split(SPACE).filter((word) => word !== "");
}
