#!/usr/bin/env python3
"""Fails when a file includes a header of a room it may not know.

A room is a folder of src/. A public header belongs to the room its first line names
("// room: text"). The arrows below are the whole plan; whatever is not listed is forbidden.
"""
import pathlib
import re
import sys

BELOW = {
    "base": set(),
    "kernels": {"base"},
    "tensor": {"kernels", "base"},
    "quant": {"tensor", "kernels", "base"},
    "io": {"tensor", "kernels", "base"},
    "text": {"base"},
    "gemma": {"io", "quant", "tensor", "kernels", "base"},
    "generate": {"gemma", "io", "quant", "tensor", "kernels", "base", "text"},
    "report": {"base"},
    "bench": {"generate", "gemma", "tensor", "kernels", "base", "text", "report"},
    "eval": {"bench", "generate", "gemma", "tensor", "kernels", "base", "text", "report"},
    "train": {"report", "generate", "gemma", "quant", "io", "tensor", "kernels", "base", "text"},
    "blend": {"train", "report", "generate", "gemma", "io", "tensor", "kernels", "base", "text"},
    "isolate": {"bench", "report", "generate", "gemma", "io", "tensor", "kernels", "base", "text"},
    "study": {"train", "report", "generate", "gemma", "quant", "io", "tensor", "kernels", "base", "text"},
    "quantize": {"eval", "generate", "gemma", "io", "quant", "tensor", "kernels", "base", "text"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.M)


def public_rooms(root: pathlib.Path) -> dict[str, str]:
    rooms = {}
    for header in (root / "include/lapidary").glob("*.h"):
        first = header.read_text().split("\n", 1)[0]
        match = re.fullmatch(r"// room: (\w+)", first)
        if not match or match[1] not in BELOW:
            sys.exit(f"{header}: the first line must be '// room: NAME' with a known room")
        rooms[f"lapidary/{header.name}"] = match[1]
    return rooms


def main() -> int:
    root = pathlib.Path(sys.argv[1])
    public = public_rooms(root)
    faults, files = [], 0
    sources = [(p, p.relative_to(root / "src").parts[0]) for p in (root / "src").rglob("*.[hc]*")]
    sources += [(root / "include" / name, room) for name, room in public.items()]
    for path, room in sources:
        if path.suffix not in {".h", ".cc"}:
            continue
        files += 1
        if room not in BELOW:
            faults.append(f"{path}: room '{room}' is not in the plan")
            continue
        for include in INCLUDE.findall(path.read_text()):
            known = public.get(include)
            if known is None and (root / "src" / include).exists():
                known = include.split("/")[0]
            if known is not None and known != room and known not in BELOW[room]:
                faults.append(f"{path.relative_to(root)}: {room} may not know {known} ({include})")
    print("\n".join(faults) if faults else f"{files} files follow the plan")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
