#!/usr/bin/env python3
"""Fails when an object file compiled for one instruction set holds a function others could get.

An inline function or template compiled with -mavx512f is a weak symbol; the linker may keep that
copy for the whole program, which then dies on a CPU without AVX-512. Usage: isa_symbols.py NM OBJECT...
"""
import subprocess
import sys

faults = []
nm, *objects = sys.argv[1:]
for path in objects:
    for line in subprocess.run([nm, "-C", path], capture_output=True, text=True, check=True).stdout.splitlines():
        kind, name = line[17:18], line[19:]
        if kind in "Ww" and not name.startswith("__"):
            faults.append(f"{path}: {name}")
print("\n".join(faults) if faults else f"{len(objects)} objects keep their functions to themselves")
sys.exit(1 if faults else 0)
