#!/usr/bin/env python3
"""Models in other formats from outside: what each costs, what is refused, and disks that do not do.

    formats_test.py BINARY SOURCE_FOLDER [unittest arguments]
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

BINARY, SOURCE = os.path.abspath(sys.argv[1]), Path(sys.argv[2]).resolve()
TINY = SOURCE / "models/tiny"
NOBODY = 65534


def environment(**more):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LAPIDARY_") or k == "LAPIDARY_ISA"}
    return clean | {"LAPIDARY_MODELS": str(SOURCE / "models"), "LAPIDARY_THREADS": "2"} | more


def run(*args, env=None, **kwargs):
    return subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True, timeout=120,
                          stdin=subprocess.DEVNULL, env=env or environment(), **kwargs)


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="lapidary-formats-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def ok(self, *args, **kwargs):
        result = run(*args, **kwargs)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def refused(self, code, message, *args, **kwargs):
        """The whole line, and nothing on stdout."""
        result = run(*args, **kwargs)
        self.assertEqual((result.returncode, result.stdout), (code, ""), result.stderr)
        self.assertEqual(result.stderr.splitlines()[0], f"lapidary: error: {message}")

    def names(self):
        return {p.name for p in self.folder.iterdir()}


class Report(Case):
    ARGS = ("quantize", TINY, "--report", "-p", "But soft, what light through yonder window breaks?", "-q")

    def setUp(self):
        super().setUp()
        (self.folder / "tmp").mkdir()
        self.env = environment(TMPDIR=str(self.folder / "tmp"))

    def test_a_row_for_each_format(self):
        page = self.folder / "page.html"
        result = self.ok(*self.ARGS, "--formats", "rtn-8,rtn-3,q4_0", "--json", "--html", page, env=self.env)
        self.assertEqual(result.stderr, "")
        rows = json.loads(result.stdout)
        self.assertEqual([row["model"] for row in rows], [str(TINY), "rtn-8", "rtn-3", "q4_0"])
        self.assertEqual([row["bits_per_weight"] for row in rows], [16, 8.5, 3.5, 4.5])
        self.assertEqual([row["format"] for row in rows][1:],
                         ["affine 8-bit, groups of 64", "affine 3-bit, groups of 64", "Q4_0"])
        self.assertIsNone(rows[0]["kld_mean"])
        self.assertTrue(0 < rows[1]["kld_mean"] < rows[2]["kld_mean"], rows)
        for row in rows:
            self.assertGreater(min(row["ppl"], row["bytes"], row["decode_tokens_per_second"]), 0)
        self.assertIn("<canvas", page.read_text())
        self.assertEqual(self.names(), {"tmp", "page.html"})
        self.assertEqual(list((self.folder / "tmp").iterdir()), [])

    def test_forms(self):
        args = (*self.ARGS, "--formats", "rtn-4", "--keep", self.folder / "kept")
        self.assertEqual(len(self.ok(*args, "--report-as", "csv", env=self.env).stdout.splitlines()), 3)
        self.assertTrue((self.folder / "kept/rtn-4/model.safetensors").exists())
        self.refused(1, f"{self.folder}/kept/rtn-4: is there already", *args, env=self.env)
        self.assertIn("| rtn-4 |", self.ok(*args, "--force", env=self.env).stdout)

    def test_bad_usage(self):
        self.refused(2, "--output is required", "quantize", TINY)
        self.refused(2, "--formats requires --report", "quantize", TINY, "-o", "x", "--formats", "rtn-4")
        self.refused(2, "--bits excludes --report", *self.ARGS, "--bits", "4")
        self.refused(2, "formats: 'rtn-4' comes twice", *self.ARGS, "--formats", "rtn-4,rtn-4")
        self.refused(2, "bits: 7 given, expected 2, 3, 4, 5, 6 or 8", *self.ARGS, "--formats", "awq-7")
        # Of the environment, it is no wish of this command's.
        self.ok("quantize", TINY, "-o", self.folder / "x", "--method", "rtn", "-q",
                env=environment(LAPIDARY_COMPUTE="exact"))

    def test_interrupted_prints_what_is_done(self):
        args = (*self.ARGS, "--formats", "rtn-8,awq-4,awq-3,awq-4.25", "--json", "--keep", self.folder / "kept")
        with subprocess.Popen([BINARY, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=self.env) as child:
            while not list(self.folder.glob("kept/awq-4.partial")) and child.poll() is None:
                time.sleep(0.001)
            child.send_signal(signal.SIGINT)
            rows = json.loads(child.stdout.read())
            self.assertEqual(child.wait(60), 130)
        self.assertEqual([row["model"] for row in rows], [str(TINY), "rtn-8"])
        self.assertEqual({p.name for p in self.folder.glob("kept/*")}, {"rtn-8"})


class Conversions(Case):
    def test_what_is_no_model(self):
        out = ("-o", self.folder / "out")
        self.refused(2, "MODEL is required", "convert")
        self.refused(2, "MODEL is required", "quantize")
        self.refused(2, "--output is required", "convert", TINY)
        self.refused(2, "nothing asked for: --bits N quantises, --dequantize writes dense weights, --dtype TYPE "
                     "changes their type", "convert", TINY, *out)
        missing = "no such file or folder; a model is a folder with config.json and *.safetensors, or a GGUF file"
        for name in ("/nope", "/nope.gguf"):
            for args in (out, ("-o", self.folder / "out.gguf"), (*out, "--bits", "4")):
                self.refused(1, f"{name}: {missing}", "convert", name, *args)
            self.refused(1, f"{name}: {missing}", "quantize", name, *out)
        (self.folder / "text").write_text("hello")
        self.refused(1, f"{self.folder}/text: not a GGUF file: it does not start with GGUF", "convert",
                     self.folder / "text", *out)
        self.refused(1, f"{self.folder}/text: a GGUF file is made of a folder", "convert", self.folder / "text", "-o",
                     self.folder / "out.gguf")
        weights = TINY / "model.safetensors"
        for verb in ("convert", "quantize"):
            self.refused(1, f"{weights}: weights alone, not a model", verb, weights, *out)
            self.refused(1, f"{self.folder}: not a model: there is no config.json in the folder", verb, self.folder,
                         *out)
        self.assertEqual(self.names(), {"text"})

    def test_a_gguf_file_becomes_a_folder(self):
        file, out = self.folder / "tiny.gguf", self.folder / "tiny"
        self.ok("convert", TINY, "-o", file, "--type", "f32", "--quiet")
        document = json.loads(self.ok("convert", file, "-o", out, "--json").stdout)
        self.assertEqual((document["format"], document["check"]["tokens"]), ("folder", 24))
        self.assertTrue((out / "tokenizer.model").is_file())
        same = ("generate", "-p", "JULIET:", "-n", "12", "--temp", "0", "-m")
        self.assertEqual(self.ok(*same, out).stdout, self.ok(*same, TINY).stdout)
        self.refused(1, f"{out}: is there already", "convert", file, "-o", out)
        self.refused(2, "--type is for GGUF files", "convert", file, "-o", self.folder / "x", "--type", "f16")

    def test_gguf_is_checked_by_tokens_too(self):
        document = json.loads(self.ok("convert", TINY, "-o", self.folder / "x.gguf", "--type", "q8_0", "--json").stdout)
        self.assertEqual(document["check"]["tokens"], 24)
        self.assertTrue(0 < document["check"]["kld_mean"] < 0.01, document)
        self.assertLess(document["check"]["logit_error"], document["check"]["logit_error_limit"])

    def test_another_architecture_is_named(self):
        for file in TINY.iterdir():
            shutil.copy(file, self.folder / file.name)
        config = json.loads((TINY / "config.json").read_text())
        config |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
        (self.folder / "config.json").write_text(json.dumps(config))
        made = str(self.folder / "made")
        for args in (("convert", "--bits", "4", "-o", made), ("convert", "-o", made + ".gguf"),
                     ("quantize", "-o", made)):
            result = run(args[0], self.folder, *args[1:])
            self.assertEqual(result.returncode, 1, result)
            self.assertRegex(result.stderr, "config.json.*(llama|LlamaForCausalLM)")

    def test_where_nobody_may_write(self):
        """By a user who is not root, who may write anywhere."""
        self.folder.chmod(0o755)
        model = self.folder / "model"
        shutil.copytree(TINY, model)
        user = {} if os.geteuid() else {"user": NOBODY, "group": NOBODY}
        if user:
            try:
                run("version", **user)
            except PermissionError:
                self.skipTest("the program lies where only root may look")
        if not user:
            self.folder.chmod(0o555)
        for name, args in (("x", ("--bits", "4")), ("x.gguf", ())):
            self.refused(1, f"{self.folder}/{name}: cannot create: Permission denied", "convert", model, "-o",
                         self.folder / name, *args, **user)
        self.refused(1, f"{self.folder}/x: cannot create: Permission denied", "quantize", model, "--method", "rtn", "-o",
                     self.folder / "x", **user)
        self.folder.chmod(0o755)
        self.assertEqual(self.names(), {"model"})

    def test_widths_that_blocks_do_not_divide(self):
        args = ("convert", TINY, "-o", self.folder / "tiny.gguf", "--type", "q4_k_m", "--force")
        self.assertRegex(self.ok(*args).stderr, r"\ntensors of widths that q4_k_m's blocks do not divide: "
                                                r"\d+ as Q5_0, \d+ as Q8_0\n")
        document = json.loads(self.ok(*args, "--json").stdout)
        self.assertEqual(set(document["substitutes"]), {"Q5_0", "Q8_0"})
        self.assertTrue(self.ok("generate", "-m", self.folder / "tiny.gguf", "-p", "ROMEO:", "-n", "8").stdout)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
