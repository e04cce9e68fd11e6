/**
 * Chinese words as LongBench's evaluation cuts them: with jieba.
 *
 * @module
 */
import { cut } from "jieba-wasm";

const LATIN = /^[a-zA-Z0-9+#&._%-]+$/;
// How Python's jieba splits what its dictionary does not know.
const LATIN_WORD = /([a-zA-Z0-9]+(?:\.[0-9]+)?%?)/;

/**
 * The words of `text`, spaces and punctuation included, as Python's `jieba.cut` returns them.
 *
 * jieba-wasm cuts Chinese alike, but keeps hyphens inside Latin words: those are cut again.
 */
export function chineseWords(text: string): string[] {
  const words: string[] = [];
  let latin = "";
  const flush = () => {
    if (latin) words.push(...latinWords(latin));
    latin = "";
  };
  for (const word of cut(text, true)) {
    if (LATIN.test(word)) {
      latin += word;
      continue;
    }
    flush();
    words.push(word);
  }
  flush();
  return words;
}

function latinWords(run: string): string[] {
  // Without its statistical model jieba keeps together only what its dictionary has, such as "C++".
  if (/[+#&]/.test(run) && cut(run, false).length === 1) return [run];
  return run.split(LATIN_WORD).filter((word) => word !== "");
}
