"""What the pages of the experiments are written with."""


def table(head, rows) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(str, row)) + " |\n" for row in cells)
