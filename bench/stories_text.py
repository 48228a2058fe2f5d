#!/usr/bin/env python3
"""Makes one text to train on and one to measure on of two files of TinyStories, for family.sh.

    stories_text.py CASED LOWERCASE OUT_DIR

CASED holds TinyStories with <|endoftext|> behind each story; LOWERCASE more of them in lower case, with a blank line between
paragraphs and a line break between stories. Writes OUT_DIR/held.txt, the stories of CASED's last 100,000 bytes, and
OUT_DIR/train.txt: all others of CASED, then those of LOWERCASE that are in neither (nor nearly so among the held-out), with
the capitals of sentences, of the words that CASED writes with a capital within sentences, and of who is "named" or "called".
"""
import collections
import pathlib
import re
import sys

END = "<|endoftext|>"
HELD_OUT_BYTES = 100_000
WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
SENTENCE_START = re.compile(r'(^|[.!?]["\']?\s+["\']?|\n\s*["\']?|[,:]\s+")([a-z])')
NO_NAMES = {"a", "the", "it", "out", "for", "to", "her", "him"}
NAMING = re.compile(r"\b(?:named|called) ([a-z]+)\b")


def runs(story):
    """Its runs of 12 words, by which copies are found that differ in a few places."""
    words = re.findall(r"\w+", story.lower())
    return {" ".join(words[i : i + 12]) for i in range(len(words) - 11)}


def key(story):
    """What equal stories share, whatever their case and blanks."""
    return re.sub(r"[^a-z]+", "", story.lower())[:200]


def cased_words(stories):
    """Word in lower case -> its most frequent form within sentences."""
    forms = collections.defaultdict(collections.Counter)
    for story in stories:
        for match in WORD.finditer(story):
            before = story[: match.start()].rstrip(" ")
            if before and (before[-1].isalnum() or before[-1] in ",;"):
                forms[match.group().lower()][match.group()] += 1
    return {word: counts.most_common(1)[0][0] for word, counts in forms.items()}


def truecase(story, words):
    names = {name for name in NAMING.findall(story) if name not in words and name not in NO_NAMES}
    story = WORD.sub(lambda m: m.group().capitalize() if m.group() in names else words.get(m.group(), m.group()), story)
    return SENTENCE_START.sub(lambda m: m.group(1) + m.group(2).upper(), story)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    cased_path, lower_path, out = map(pathlib.Path, sys.argv[1:4])
    raw = cased_path.read_bytes()
    cut = raw.index(END.encode(), len(raw) - HELD_OUT_BYTES) + len(END)
    split = lambda data: [s.strip() for s in data.decode("utf-8", "ignore").split(END) if s.strip()]
    train, held = split(raw[:cut]), split(raw[cut:])
    held_runs = set().union(*map(runs, held))
    apart = lambda story: len(held_runs & (own := runs(story))) <= 0.05 * len(own)
    train = list(filter(apart, train))
    words = cased_words(train)
    seen = {key(s) for s in train + held}
    added = []
    for story in re.split(r"(?<!\n)\n(?!\n)", lower_path.read_text(encoding="utf-8")):
        story = re.sub(r"\n\n+", "\n", story.strip())
        if len(story) < 100 or key(story) in seen or not apart(story):
            continue
        seen.add(key(story))
        added.append(truecase(story, words))
    out.mkdir(parents=True, exist_ok=True)
    for name, stories in (("train.txt", train + added), ("held.txt", held)):
        (out / name).write_text("".join(f"{s}\n{END}\n" for s in stories), encoding="utf-8")
        print(f"{name}: {len(stories)} stories, {(out / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
