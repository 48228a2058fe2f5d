#!/usr/bin/env python3
"""Turns lines of SST-2 (sentence, tab, label 0 or 1; Socher et al. 2013) into rows for edgewise.

    sst2.py train SST2.tsv > rows.jsonl        for `edgewise finetune`: {"prompt", "completion"}
    sst2.py choices SST2.tsv > questions.jsonl for `edgewise eval --choices`: {"prompt", "choices", "answer"}
"""
import json
import sys

LABELS = (" bad.", " good.")


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ("train", "choices"):
        sys.exit(__doc__)
    with open(sys.argv[2], encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            sentence, tab, label = line.rstrip("\n").rpartition("\t")
            if not tab or label not in ("0", "1"):
                if number == 1:
                    continue  # the header of GLUE's files
                sys.exit(f"{sys.argv[2]}:{number}: no sentence, tab and label 0 or 1")
            prompt, answer = f"{sentence.strip()} It was", int(label)
            row = {"prompt": prompt, "completion": LABELS[answer]} if sys.argv[1] == "train" else {
                "prompt": prompt, "choices": LABELS, "answer": answer}
            print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
