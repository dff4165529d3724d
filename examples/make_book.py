"""Write a book of about 100,000 words from the passages, as plain text: `make_book.py FILE`.

Each chapter is a passage; every second one is a single paragraph. Translate it with `--split`, summarise it with `--reduce`.
"""

import json
import sys
from pathlib import Path

PASSAGES = Path(__file__).parent / "passages.jsonl"


def book(words: int = 100_000) -> str:
    """Chapters up to this number of words, with a blank line between paragraphs."""
    texts = [json.loads(line)["text"] for line in PASSAGES.read_text(encoding="utf-8").splitlines()]
    parts: list[str] = []
    count = chapter = 0
    while count < words:
        text = texts[chapter % len(texts)]
        chapter += 1
        parts += [f"Chapter {chapter}", text if chapter % 2 else " ".join(text.split())]
        count += 2 + len(text.split())
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(book(), encoding="utf-8")
