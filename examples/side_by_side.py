"""Print the first rows of a JSONL output beside their source texts: `side_by_side.py FILE`."""

import json
import shutil
import sys
import textwrap
from itertools import islice, zip_longest


def main(path: str, rows: int = 3, member: str = "text", lines: int = 6) -> None:
    """Two columns as wide as the terminal, each with at most `lines` lines of a text."""
    width = (min(shutil.get_terminal_size((100, 24)).columns, 160) - 3) // 2
    with open(path, encoding="utf-8") as file:
        for line in islice(file, rows):
            row = json.loads(line)
            print("─" * width + "─┬─" + "─" * width)
            columns = [textwrap.wrap(str(row[name]), width, max_lines=lines) for name in (member, "output")]
            for left, right in zip_longest(*columns, fillvalue=""):
                print(f"{left:<{width}} │ {right}")
    print("─" * width + "─┴─" + "─" * width)


if __name__ == "__main__":
    main(sys.argv[1])
