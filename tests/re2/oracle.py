"""Asks RE2 itself which expressions it takes, and writes the answers to oracle.jsonl beside this file.

    python3 -m venv venv && venv/bin/pip install google-re2==1.1.20251105
    venv/bin/python tests/re2/oracle.py             # rewrites oracle.jsonl
    venv/bin/python tests/re2/oracle.py 200000 FILE # more generated ones, elsewhere: RE2_ORACLE=FILE cargo test --test offline re2

The expressions are those of handpicked.txt, one a line, every script of Unicode, and random compositions of fragments.
"""

import json
import pathlib
import random
import sys

import re2

HERE = pathlib.Path(__file__).parent
FRAGMENTS = (
    "a b 0 é 日 . ^ $ | ( ) (?: (?i) (?i: (?-s) (?i-i) (?P<n> (?<m> (?= (?<! (?x) (? * + ? *? +? ?? {2} {2,} {0,3} {,3} {3,2}"
    " {10} {100} {1000} {1001} {01} { } [ ] [^ [] [^] [a-z] [z-a] - [: :] [:alpha:] [[:^digit:]] [[:foo:]] \\d \\W \\b \\B \\A"
    " \\z \\Z \\C \\Q \\E \\pL \\PN \\p{Greek} \\P{^Lu} \\p{Letter} \\p{ \\p \\0 \\1 \\12 \\8 \\x41 \\x{41} \\x{110000} \\x \\x{"
    " \\n \\e \\_ \\- \\. \\] \\\\ \\ \\é \\u0041 && / , > < = ! : # @ 1 9 i s P n"
).split(" ")


def takes(pattern):
    try:
        re2.compile(pattern)
        return True
    except re2.error as error:
        # Too large for the memory that is given to it is no matter of syntax.
        return "too large" in str(error)


def generated(count):
    rng = random.Random(4)
    for _ in range(count):
        yield "".join(rng.choice(FRAGMENTS) for _ in range(rng.randint(1, 7)))


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    target = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "oracle.jsonl"
    patterns = (HERE / "handpicked.txt").read_text(encoding="utf-8").split("\n")[:-1]
    source = (HERE / "../../src/istio/re2/scripts.rs").read_text(encoding="utf-8")
    patterns += [f"\\p{{{name}}}" for name in source.split('"')[1::2]]
    patterns += ["\\p{Unknown}", "\\p{Katakana_Or_Hiragana}"]
    patterns += generated(count)
    lines = [
        json.dumps({"regex": pattern, "valid": takes(pattern)}, ensure_ascii=False)
        for pattern in dict.fromkeys(patterns)
    ]
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
