#!/usr/bin/env python3
"""messages.py [--print]: all sentences that users get, as the sources have them. Prints TAP.

Collects what ap_err_set(), ap_err_wrap() and ap_err_errno() are given in core/ and fs/, with %s and the like where a name is put
in. Each sentence has to be one line without a full stop, begins as the middle of a line does (it follows a name and a colon),
and tells more than that something is wrong. With --print they are printed, to be read as a whole."""

import glob
import os
import re
import sys

top = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
CALL = re.compile(r"\b(ap_err_set|ap_err_wrap|ap_err_errno)\(")
LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"|\bPRI[a-z0-9]+')
EMPTY_WORDS = re.compile(r"^(invalid|bad|error|failed|unknown|illegal|wrong|unexpected)\b[^%]*$", re.IGNORECASE)


def arguments(text, at):
    """What stands between the parenthesis at `at` and its fellow."""
    depth, begin, in_text = 1, at, False
    while depth:
        char = text[at]
        if char == "\\" and in_text:
            at += 1
        elif char == '"':
            in_text = not in_text
        elif not in_text:
            depth += (char == "(") - (char == ")")
        at += 1
    return text[begin:at - 1]


def sentences():
    """(file, line, sentence) of every call; the format is the first text in it."""
    for path in sorted(glob.glob(f"{top}/core/**/*.c", recursive=True) + glob.glob(f"{top}/fs/*.c")):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        for call in CALL.finditer(text):
            inside = arguments(text, call.end())
            pieces = [match for match in LITERAL.finditer(inside)]
            sentence, end = "", None
            for piece in pieces:
                if end is not None and inside[end:piece.start()].strip():
                    break
                sentence += piece.group(1) if piece.group(1) is not None else "N"
                end = piece.end()
            if sentence:
                yield os.path.relpath(path, top), text.count("\n", 0, call.start()) + 1, call.group(1), sentence


def faults(name, sentence):
    if sentence.endswith(".") or "\\n" in sentence:
        yield "is one line without a full stop"
    if re.match(r"[A-Z][a-z]", sentence):
        yield "begins as the middle of a line"
    if name == "ap_err_set" and EMPTY_WORDS.match(sentence):
        yield "names what is wrong"


found = list(sentences())
if "--print" in sys.argv:
    for path, line, name, sentence in found:
        print(f"{path}:{line}: {sentence}{': REASON' if name != 'ap_err_set' else ''}")
    sys.exit(0)
bad = [f"{path}:{line}: '{sentence}' {fault}" for path, line, name, sentence in found for fault in faults(name, sentence)]
print(f"1..2\n{'not ' if len(found) < 200 else ''}ok 1 - the sentences are found: {len(found)}")
print(f"{'not ' if bad else ''}ok 2 - every sentence is one line, and names what is wrong")
for line in bad:
    print(f"# {line}")
sys.exit(bool(bad) or len(found) < 200)
