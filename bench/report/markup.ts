/**
 * HTML text from values: everything is escaped that is not markup itself.
 *
 * @module
 */

/** Text that is HTML already. */
export class Markup {
  readonly #text: string;

  /** @param text Trusted HTML. */
  constructor(text: string) {
    this.#text = text;
  }

  toString(): string {
    return this.#text;
  }
}

type Part = string | number | Markup | readonly Part[];

const ENTITIES: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** A template tag: `markup\`<p>${text}</p>\``. Lists are joined. */
export function markup(strings: TemplateStringsArray, ...parts: Part[]): Markup {
  return new Markup(String.raw({ raw: strings }, ...parts.map(render)));
}

function render(part: Part): string {
  if (part instanceof Markup) return part.toString();
  if (Array.isArray(part)) return part.map(render).join("\n");
  return String(part).replaceAll(/[&<>"']/g, (character) => ENTITIES[character]!);
}
