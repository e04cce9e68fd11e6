/**
 * F1 of the words that an answer and a prediction share, as in SQuAD and LongBench.
 *
 * @module
 */
import { chineseWords } from "./chinese.ts";
import { splitWords } from "./words.ts";

// Python's string.punctuation.
const ASCII_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
const CHINESE_PUNCTUATION =
  "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏.";
const ASCII = new Set(ASCII_PUNCTUATION);
const ASCII_AND_CHINESE = new Set(ASCII_PUNCTUATION + CHINESE_PUNCTUATION);

/** F1 of English words: lower case, without punctuation and articles. */
export function qaF1(prediction: string, answer: string): number {
  return wordF1(englishWords(prediction), englishWords(answer));
}

/** F1 of Chinese words: lower case, without punctuation. */
export function qaF1Chinese(prediction: string, answer: string): number {
  return wordF1(normalizedChinese(prediction), normalizedChinese(answer));
}

function englishWords(text: string): string[] {
  const plain = without(ASCII, text.toLowerCase());
  return splitWords(plain.replaceAll(/(?<![\p{L}\p{N}_])(?:a|an|the)(?![\p{L}\p{N}_])/gu, " "));
}

function normalizedChinese(text: string): string[] {
  return chineseWords(text)
    .map((word) => without(ASCII_AND_CHINESE, word.toLowerCase()))
    .map((word) => splitWords(word).join(""))
    .filter((word) => word !== "");
}

function without(characters: Set<string>, text: string): string {
  return [...text].filter((character) => !characters.has(character)).join("");
}

function wordF1(prediction: readonly string[], answer: readonly string[]): number {
  const counts = new Map<string, number>();
  for (const word of answer) counts.set(word, (counts.get(word) ?? 0) + 1);
  let shared = 0;
  for (const word of prediction) {
    const left = counts.get(word) ?? 0;
    if (left > 0) shared++;
    counts.set(word, left - 1);
  }
  if (shared === 0) return 0;
  const precision = shared / prediction.length;
  const recall = shared / answer.length;
  return 2 * precision * recall / (precision + recall);
}
