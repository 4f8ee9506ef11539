"""A GAN beside densities that are none: python -m benchmarks.comparators RUNS [PICTURE]

RUNS has a folder METHOD-SEED for each run, of training or of ganlab.baseline, all on one set and with
scores=[fid,prdc,memorization]. Prints a table, with a number for each seed; the picture has a strip of samples of each
method's first run.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

from PIL import Image

COLUMNS = {"fid": "FID", "precision": "precision", "recall": "recall", "memorization": "memorization"}
SHOWN, CELL = 12, 3  # samples of each method; pixels that become one


def value(result: dict, name: str) -> float:
    if name == "seconds":
        return result["seconds"]
    return next(v for key, v in result["scores"].items() if key.startswith(name))


def main(runs: Path, picture: Path | None = None) -> None:
    methods = defaultdict(list)
    for path in sorted(runs.glob("*/result.json")):
        methods[path.parent.name.rpartition("-")[0]].append(path.parent)
    print(f"| method | {' | '.join(COLUMNS.values())} | seconds |", f"|{'---|' * (2 + len(COLUMNS))}", sep="\n")
    for method, folders in methods.items():
        results = [json.loads((folder / "result.json").read_text()) for folder in folders]
        cells = []
        for name in (*COLUMNS, "seconds"):
            values, form = [value(r, name) for r in results], ".0f" if name == "seconds" else ".3g"
            cells.append(", ".join(f"{v:{form}}" for v in values))
        print(f"| {method} | {' | '.join(cells)} |")
    if picture is not None:
        strips = []
        for folders in methods.values():
            sheet = Image.open(sorted((folders[0] / "samples").glob("fakes_*.png"))[-1]).convert("L")
            step = sheet.width // 10
            strips.append([sheet.crop((x * step, y * step, x * step + step + 1, y * step + step + 1))
                           for y in range(2) for x in range(SHOWN // 2)])  # fmt: skip
        side = strips[0][0].width * CELL
        grid = Image.new("L", (SHOWN * side, len(strips) * side))
        for row, strip in enumerate(strips):
            for column, cell in enumerate(strip):
                grid.paste(cell.resize((side, side), Image.Resampling.NEAREST), (column * side, row * side))
        grid.save(picture)
        print(f"\nrows of {picture}: {', '.join(methods)}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
