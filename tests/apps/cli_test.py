#!/usr/bin/env python3
"""The program from outside: help, usage, failures, version, completion, the manual page."""
import json
import os
import re
import shutil
import subprocess

from program import BINARY, TINY, Case, main


class Usage(Case):
    def test_help_fits_and_exits_0(self):
        verbs = re.findall(r"^  (\w+) {3,}", self.ok("--help").stdout, re.M)
        self.assertEqual(set(verbs), set("generate chat score perplexity compare tokenize detokenize show synth convert quantize adapter fuse blend train "
                                         "isolate study bench tune experiments pull list rm cache version completion help".split()))
        for verb in verbs:
            by_flag, by_verb = self.ok(verb, "--help").stdout, self.ok("help", verb).stdout
            self.assertEqual(by_flag, by_verb)
            self.assertLessEqual(max(map(len, by_flag.splitlines())), 80, verb)
        by_flag, by_verb = self.ok("bench", "limits", "--help").stdout, self.ok("help", "bench", "limits").stdout
        self.assertEqual(by_flag, by_verb)
        self.assertIn("Usage: lapidary bench limits", by_flag)
        self.assertIn("Examples:", self.ok("generate", "-h").stdout)

    def test_help_that_nobody_reads(self):
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as pipe:
            result = subprocess.run([BINARY, "bench", "--help"], stdout=pipe, stderr=subprocess.PIPE, text=True,
                                    timeout=60, check=False, env=self.env)
        self.assertEqual((result.returncode, result.stderr), (1, ""))
        if os.path.exists("/dev/full"):
            with open("/dev/full", "w") as full:
                result = subprocess.run([BINARY, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
                                        check=False, env=self.env)
            self.assertEqual(result.returncode, 1)
            self.assertTrue(result.stderr.startswith("lapidary: error: "), result.stderr)

    def test_help_says_what_is_taken_where_nothing_is_given(self):
        text = self.ok("study", "capacity", "--help").stdout
        self.assertIn("Sequences of a step (64)", text)
        self.assertIn("(52000,75000,100000)", text)
        self.assertIn("Sequences of a step (64)", self.ok("help", "--man").stdout)

    def test_bad_usage_is_2(self):
        for words, *args in [
            ("no verb",),
            ("frobnicate", "frobnicate"),
            ("--frob", "generate", "--frob"),
            ("-n: -2", "generate", "-p", "x", "-n", "-2"),
            ("-n: -2", "chat", "-p", "x", "-n", "-2"),
            ("temp: -1", "generate", "-p", "x", "--temp", "-1"),
            ("temp: nan", "generate", "-p", "x", "--temp", "nan"),
            ("top-k: -3", "generate", "-p", "x", "--top-k", "-3"),
            ("--top-k", "generate", "-p", "x", "--top-k", "many"),
            ("top-p: 0", "generate", "-p", "x", "--top-p", "0"),
            ("min-p: 1", "chat", "-p", "x", "--min-p", "1"),
            ("repeat-penalty: 0", "generate", "-p", "x", "--repeat-penalty", "0"),
            ("--logit-bias: '5'", "generate", "-p", "x", "--logit-bias", "5"),
            ("--ids: 'x'", "generate", "--ids", "2,x"),
            ("--ids: no ids", "generate", "--ids", ","),
            ("--ids: '-3'", "score", "--ids=-3"),
            ("--compute: 'slow'", "generate", "-p", "x", "--compute", "slow"),
            ("--kv-type: 'f64'", "generate", "-p", "x", "--kv-type", "f64"),
            ("--threads: -1 given, expected 0 to 4096", "generate", "-p", "x", "-t", "-1"),
            ("--threads: 60000 given", "generate", "-p", "x", "-t", "60000"),
            ("--threads: 99999999999 given", "score", "--ids", "2,3", "-t", "99999999999"),
            ("--threads-batch: -2", "generate", "-p", "x", "-tb", "-2"),
            ("--threads: -1", "train", "--data", "x", "-o", "unused", "-t", "-1"),
            ("--threads: -1", "bench", "limits", "-t", "-1"),
            ("--threads: -1", "bench", "kernels", "-t", "-1"),
            ("-t: 5000", "bench", "-t", "5000"),
            ("--threads-batch", "generate", "-p", "x", "-tb", "many"),
            ("--context", "generate", "-p", "x", "-c", "-5"),
            ("--file", "generate", "-p", "x", "-f", "y"),
            ("'gemma-9'", "synth", "--preset", "gemma-9", "-o", "unused"),
            ("bits: 7", "synth", "--preset", "gemma-3-1b", "--bits", "7", "-o", "unused"),
            ("--preset", "synth", "-o", "unused"),
            ("--output", "convert", str(TINY)),
            ("MODEL", "convert", "-o", "unused.gguf"),
            ("--type: 'q5_0'", "convert", str(TINY), "-o", "unused.gguf", "--type", "q5_0"),
            ("--to: 'onnx'", "convert", str(TINY), "-o", "unused.gguf", "--to", "onnx"),
            ("--type is for GGUF", "convert", str(TINY), "-o", "unused", "--type", "f16"),
            ("quantised by --type", "convert", str(TINY), "-o", "unused.gguf", "--quantize"),
            ("quantised by --type", "convert", str(TINY), "-o", "unused.gguf", "--dtype", "f16"),
            ("nothing asked for", "convert", str(TINY), "-o", "unused"),
            ("bits: 7", "convert", str(TINY), "-o", "unused", "--q-bits", "7"),
            ("group-size: 48", "convert", str(TINY), "-o", "unused", "--quantize", "--q-group-size", "48"),
            ("--group-size is of quantised", "convert", str(TINY), "-o", "unused", "--group-size", "32",
             "--dtype", "f16"),
            ("recipe: 'mixed'", "convert", str(TINY), "-o", "unused", "--recipe", "mixed"),
            ("--dtype: 'int8'", "convert", str(TINY), "-o", "unused", "--dtype", "int8"),
            ("MODEL", "quantize", "-o", "unused"),
            ("bits: 7", "quantize", str(TINY), "-o", "unused", "--bits", "7"),
            ("exclude each other", "quantize", str(TINY), "-o", "unused", "--bits", "4", "--bits-per-weight", "4"),
            ("--data is not used", "quantize", str(TINY), "-o", "unused", "--method", "rtn", "--data", "x.txt"),
            ("bits-per-weight: 2 given", "quantize", str(TINY), "-o", "unused", "--bits-per-weight", "2"),
            ("bits-per-weight: 12 given", "quantize", str(TINY), "-o", "unused", "--bits-per-weight", "12"),
            ("calibration-tokens: 0", "quantize", str(TINY), "-o", "unused", "--calibration-tokens", "0"),
            ("layers: 0", "synth", "--preset", "gemma-3-1b", "--layers", "0", "-o", "unused"),
            ("'zz'", "detokenize", "1", "zz"),
            ("'tcsh'", "completion", "tcsh"),
            ("'nope'", "help", "nope"),
            ("'bench nope'", "help", "bench", "nope"),
            ("frob", "bench", "frob"),
            ("-p: 'x'", "bench", "-p", "x"),
            ("-p: '5-3'", "bench", "-p", "5-3"),
            ("-n: '1-8*1'", "bench", "-n", "1-8*1"),
            ("-d: ''", "bench", "-d", "1,,2"),
            ("-b: 0", "bench", "-b", "0"),
            ("-r: 0", "bench", "-r", "0"),
            ("nothing to measure", "bench", "-p", "0", "-n", "0"),
            ("'sql'", "bench", "-o", "sql"),
            ("goes after 'limits'", "bench", "-r", "3", "limits"),
            ("--seconds", "bench", "limits", "--seconds", "0"),
            ("--filter", "bench", "limits", "--filter", "abacus", "--memory", "1"),
            ("--filter", "bench", "kernels", "--filter", "abacus"),
            ("--peer: 'x'", "bench", "peers", "--peer", "x"),
            ("temp: -1", "bench", "natural", "--temp", "-1"),
            ("stride: 600", "perplexity", "-p", "x", "--stride", "600"),
            ("context: 1", "perplexity", "-p", "x", "-c", "1"),
            ("MODELS", "compare"),
            ("1 model given", "compare", str(TINY)),
            ("3 models given", "compare", "a", "b", "c"),
            ("--prompts", "compare", "a", "b", "--table", "--prompts"),
            ("--prompts", "compare", "a", "b", "--raw"),
            ("--output", "compare", "a", "b", "-o", "csv"),
            ("--html", "compare", "a", "b", "--html", "x.html"),
        ]:
            with self.subTest(args):
                self.refused(2, words, *args)

    def test_failures_are_1(self):
        (self.folder / "empty").mkdir()
        for words, *args in [
            ("/nope", "generate", "-m", "/nope", "-p", "x"),
            ("config.json", "generate", "-m", str(self.folder / "empty"), "-p", "x"),
            ("/nope.txt", "tokenize", "-f", "/nope.txt"),
            (str(self.folder), "tokenize", "-f", str(self.folder)),
            ("99999", "detokenize", "99999"),
            ("/nope", "convert", "/nope", "-o", str(self.folder / "x.gguf")),
            ("/nope", "compare", str(TINY), "/nope"),
            ("config.json", "compare", str(TINY), str(self.folder / "empty")),
            ("/nope.jsonl", "compare", str(TINY), str(TINY), "--prompts", "/nope.jsonl"),
        ]:
            with self.subTest(args):
                self.refused(1, words, *args)

    def test_version(self):
        version = json.loads(self.ok("version", "--json").stdout)
        self.assertIn(version["isa"], version["isas"])
        self.assertIn(version["version"], self.ok("--version").stdout)

    def test_completion_scripts_parse(self):
        for shell in ("bash", "zsh", "fish"):
            script = self.ok("completion", shell).stdout
            self.assertIn("compute", script)
            if shutil.which(shell):
                check = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
                self.assertEqual((check.returncode, check.stderr), (0, ""), shell)
        script = self.ok("completion", "bash").stdout
        for line, expected in [("lapidary gen", "generate"), ("lapidary chat --comp", "--compute"),
                               ("lapidary score --compute ", "exact fast"), ("lapidary help sco", "score"),
                               ("lapidary bench lim", "limits"), ("lapidary bench limits --sec", "--seconds"),
                               ("lapidary bench limits -o js", "json jsonl")]:
            words = line.split(" ")
            typed = " ".join(word or '""' for word in words)
            asked = f"{script}\nCOMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}\n"
            asked += '_lapidary; echo "${COMPREPLY[*]}"'
            found = subprocess.run(["bash", "-c", asked], capture_output=True, text=True)
            self.assertEqual(found.stdout.strip(), expected, line)

    def test_manual_page(self):
        page = self.ok("help", "--man").stdout
        for verb in ("generate", "chat", "synth", "convert", "perplexity", "compare",
                     "bench limits", "bench kernels", "bench natural", "bench curve", "bench peers"):
            self.assertIn(f".SS {verb}\n", page)
        self.assertIn("\\-\\-repeat\\-penalty", page)
        if shutil.which("groff"):
            check = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z"], input=page,
                                   capture_output=True, text=True)
            self.assertEqual(check.stderr, "")


if __name__ == "__main__":
    main()
