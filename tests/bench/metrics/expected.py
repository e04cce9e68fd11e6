"""Writes expected.json: the scores of LongBench's own metrics.py for the texts below.

python expected.py FOLDER_OF_METRICS_PY > expected.json

with rouge 1.0.1, jieba 0.42.1 and fuzzywuzzy 0.18.0, without python-Levenshtein (as LongBench's
requirements.txt has it).
"""

import json
import sys

sys.path.insert(0, sys.argv[1])
import metrics  # noqa: E402

ENGLISH = [
    ("The  Red-Headed League!", "red headed league"),
    ("A theatre near the river", "the theatre"),
    ("no", "No."),
    ("it is the the an a", "the"),
    ("an apple a day", "apple day"),
    ("red red red", "red blue"),
    ("Vincent Spaulding and John Clay", "John Clay"),
    ("naïve café", "Naïve, café"),
    ("", "something"),
    ("\ufeffred, green; red", "red red blue"),
]
SUMMARIES = [
    ("The cat sat. The dog ran away. ", "The cat sat on the mat. A dog ran."),
    ("the the the the", "the cat"),
    ("w1 w2 w6 w7 w8. w1 w3 w8 w9 w5", "w1 w2 w3 w4 w5"),
    ("b a c", "a b c. c b a"),
    ("c b a", "a b c"),
    ("...", "a summary."),
    ("", "a summary."),
    ("one\ntwo   three.  . four", "one two three four"),
    ("Equal. Texts.", "Equal. Texts."),
]
CHINESE = [
    ("厦门大学", "厦门大学。"),
    ("会议在厦门举行", "会议于2016年在厦门大学举行。"),
    ("编号是ECG-10。", "ECG-10"),
    ("电话 467-8561，1+1", "467-8561"),
    ("C++是一种语言", "编程语言C++"),
    ("增长3.14%", "增长了 3.14%"),
    ("IP为192.168.1.1", "192.168.1.1"),
    ("", "答案"),
]
CODE = [
    ("    return x + 1", "    return x + 1"),
    ("\n\n# comment\n    return y\nmore", "    return x"),
    ("// a\n`b`\nfor (int i = 0; i < n; i++) {", "for (int j = 0; j < n; ++j) {"),
    ("import os", "class VideoPage(Page):"),
    ("", "pass"),
    ("x" * 250 + "y", "y" + "x" * 240),
    ("abcd", "bcde"),
]
CLASSES = ["Date", "Number", "Order, rank", "Number of something", "Code", "City", "Title of a person"]
NAMED = [
    ("Number of something", "Number of something"),
    ("City or Code", "City"),
    ("Number", "Number of something"),
    ("Date, Number of something, City", "Number of something"),
    ("nothing", "City"),
    ("Code Number of something", "Number of something"),
]
PARAGRAPHS = [
    ("Paragraph 3", "Paragraph 3"),
    ("3, 12 or 12", "Paragraph 12"),
    ("12.3", "Paragraph 3"),
    ("none", "Paragraph 3"),
    ("03", "Paragraph 3"),
]
COUNTS = [("17", "17"), ("17 of 20", "17"), ("1 7", "17"), ("-", "17")]


def main():
    rows = []

    def add(metric, function, pairs, classes=None):
        for prediction, answer in pairs:
            score = function(prediction, answer, all_classes=classes)
            rows.append({"metric": metric, "prediction": prediction, "answer": answer,
                         "classes": classes, "score": score})

    add("qa_f1", metrics.qa_f1_score, ENGLISH)
    add("rouge_l", metrics.rouge_score, SUMMARIES)
    add("qa_f1_zh", metrics.qa_f1_zh_score, CHINESE)
    add("rouge_l_zh", metrics.rouge_zh_score, CHINESE)
    add("code_sim", metrics.code_sim_score, CODE)
    add("classification", metrics.classification_score, NAMED, CLASSES)
    add("retrieval", metrics.retrieval_score, PARAGRAPHS)
    chinese = [(p, a.replace("Paragraph ", "段落")) for p, a in PARAGRAPHS]
    add("retrieval_zh", metrics.retrieval_zh_score, chinese)
    add("count", metrics.count_score, COUNTS)
    json.dump(rows, sys.stdout, ensure_ascii=False, indent=1)
    print()


main()
