"""What the tests of the program share: running it, and what is expected of every run.

Each NAME_test.py beside this is run as

    NAME_test.py BINARY SOURCE_FOLDER [unittest arguments]
"""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

BINARY, SOURCE = os.path.abspath(sys.argv[1]), Path(sys.argv[2]).resolve()
TINY = SOURCE / "models/tiny"
needs_model = unittest.skipUnless((TINY / "model.safetensors").exists(), "models/tiny has no weights")


def environment(**more):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LAPIDARY_") or k == "LAPIDARY_ISA"}
    return clean | {"LAPIDARY_MODELS": str(SOURCE / "models"), "LAPIDARY_THREADS": "2", "LAPIDARY_SETTINGS": "none"} | more


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="lapidary-cli-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.env = environment()

    def run_it(self, *args, stdin="", env=None, **kwargs):
        return subprocess.run([BINARY, *args], input=stdin, capture_output=True, text=True, timeout=120,
                              env=self.env | (env or {}), check=False, **kwargs)

    def ok(self, *args, **kwargs):
        result = self.run_it(*args, **kwargs)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def refused(self, code, words, *args, **kwargs):
        """One line that names the thing, nothing on stdout."""
        result = self.run_it(*args, **kwargs)
        self.assertEqual(result.returncode, code, result)
        self.assertEqual(result.stdout, "")
        lines = [line for line in result.stderr.splitlines() if "no -m given" not in line]
        self.assertTrue(lines and lines[0].startswith("lapidary: error: "), result.stderr)
        self.assertIn(words, lines[0])
        self.assertTrue(all(line.startswith("hint: ") for line in lines[1:]) and len(lines) <= 2, lines)
        return result


def main():
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
