#!/usr/bin/env python3
"""The program from outside: exit codes, streams, JSON, pipes, and a conversation at a terminal.

    cli_test.py BINARY SOURCE_FOLDER [unittest arguments]
"""
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
import unittest
from pathlib import Path

BINARY, SOURCE = sys.argv[1], Path(sys.argv[2])
TINY = SOURCE / "models/tiny"
HAS_MODEL = (TINY / "model.safetensors").exists()
needs_model = unittest.skipUnless(HAS_MODEL, "models/tiny has no weights")


def environment(**more):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LAPIDARY_") or k == "LAPIDARY_ISA"}
    return clean | {"LAPIDARY_MODELS": str(SOURCE / "models"), "LAPIDARY_THREADS": "2"} | more


def run(*args, stdin="", env=None, text=True):
    if not text:
        stdin = stdin.encode() if isinstance(stdin, str) else stdin
    return subprocess.run([BINARY, *args], input=stdin, capture_output=True, text=text, timeout=120,
                          env=env or environment())


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="lapidary-cli-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def ok(self, *args, **kwargs):
        result = run(*args, **kwargs)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def refused(self, code, words, *args, **kwargs):
        """One line that names the thing, nothing on stdout."""
        result = run(*args, **kwargs)
        self.assertEqual(result.returncode, code, result)
        self.assertEqual(result.stdout, "")
        lines = [line for line in result.stderr.splitlines() if "no -m given" not in line]
        self.assertTrue(lines and lines[0].startswith("lapidary: error: "), result.stderr)
        self.assertIn(words, lines[0])
        self.assertTrue(all(line.startswith("hint: ") for line in lines[1:]) and len(lines) <= 2, lines)


class Usage(Case):
    def test_help_fits_and_exits_0(self):
        verbs = re.findall(r"^  (\w+) {3,}", self.ok("--help").stdout, re.M)
        self.assertEqual(set(verbs), set("generate chat score perplexity compare tokenize detokenize show synth convert quantize bench "
                                         "pull list rm cache version completion help".split()))
        for verb in verbs:
            by_flag, by_verb = self.ok(verb, "--help").stdout, self.ok("help", verb).stdout
            self.assertEqual(by_flag, by_verb)
            self.assertLessEqual(max(map(len, by_flag.splitlines())), 80, verb)
        by_flag, by_verb = self.ok("bench", "limits", "--help").stdout, self.ok("help", "bench", "limits").stdout
        self.assertEqual(by_flag, by_verb)
        self.assertIn("Usage: lapidary bench limits", by_flag)
        self.assertIn("Examples:", self.ok("generate", "-h").stdout)

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
            ("threads: -1", "generate", "-p", "x", "-t", "-1"),
            ("threads_batch: -2", "generate", "-p", "x", "-tb", "-2"),
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
            ("-t: 0", "bench", "-t", "0"),
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


class Tokens(Case):
    @unittest.skipUnless((TINY / "tokenizer.json").exists(), "models/tiny has no tokenizer")
    def test_round_trip(self):
        text = "To be, or not to be:\n  naïve 🙂\tend\n"
        source = self.folder / "text"
        source.write_text(text)
        ids = self.ok("tokenize", "-f", str(source)).stdout
        self.assertEqual(self.ok("detokenize", stdin=ids).stdout, text)
        document = json.loads(self.ok("tokenize", "-p", text, "--json").stdout)
        self.assertEqual(set(document), {"ids", "count"})
        self.assertEqual(document["count"], len(document["ids"]))
        self.assertEqual(ids.split(), [str(i) for i in document["ids"]])
        without = json.loads(self.ok("tokenize", "-p", text, "--json", "--no-bos").stdout)
        self.assertEqual(without["ids"], document["ids"][1:])
        for args in (("-p", "-"), ("-f", "-"), ()):
            self.assertEqual(json.loads(self.ok("tokenize", *args, "--json", stdin=text).stdout), document)
        self.assertEqual(len(self.ok("tokenize", "-p", text, "--pieces").stdout.splitlines()), document["count"])

    @unittest.skipUnless((TINY / "tokenizer.json").exists(), "models/tiny has no tokenizer")
    def test_a_folder_with_only_a_tokenizer_is_enough(self):
        shutil.copy(TINY / "tokenizer.json", self.folder)
        self.assertEqual(self.ok("tokenize", "-m", str(self.folder), "-p", "x").stderr, "")


@needs_model
class Generate(Case):
    def test_json(self):
        result = self.ok("generate", "-p", "ROMEO:", "-n", "8", "--temp", "0", "--json")
        self.assertIn("built-in model", result.stderr)
        document = json.loads(result.stdout)
        self.assertEqual(set(document), {"prompt_tokens", "tokens", "text", "finish_reason", "timings",
                                         "peak_rss_bytes"})
        self.assertEqual(set(document["timings"]), {"load_s", "prefill_s", "prefill_tokens_per_second",
                                                    "decode_tokens_per_second", "ttft_s"})
        self.assertEqual(len(document["tokens"]), 8)
        self.assertEqual(document["finish_reason"], "length")
        ids = json.loads(self.ok("tokenize", "-p", "ROMEO:", "--json").stdout)["ids"]
        self.assertEqual(document["prompt_tokens"], len(ids))
        again = json.loads(self.ok("generate", "--ids", ",".join(map(str, ids)), "-n", "8", "--temp", "0",
                                   "--json").stdout)
        self.assertEqual(again["tokens"], document["tokens"])

    def test_streams(self):
        plain = self.ok("generate", "-p", "ROMEO:", "-n", "8", "--seed", "4")
        quiet = self.ok("generate", "-p", "ROMEO:", "-n", "8", "--seed", "4", "-q")
        self.assertEqual(plain.stdout, quiet.stdout)
        self.assertEqual(quiet.stderr, "")
        self.assertIn("/s", plain.stderr)
        text = json.loads(self.ok("generate", "-p", "ROMEO:", "-n", "8", "--seed", "4", "--json").stdout)["text"]
        self.assertEqual(plain.stdout, text + "\n")
        for args in (("-p", "-"), ("-f", "-"), ()):
            self.assertEqual(self.ok("generate", *args, "-n", "8", "--seed", "4", "-q", stdin="ROMEO:").stdout,
                             plain.stdout)
        other = self.ok("generate", "-p", "ROMEO:", "-n", "8", "--seed", "5", "-q")
        self.assertNotEqual(other.stdout, plain.stdout)
        threads = self.ok("generate", "-p", "ROMEO:", "-n", "8", "--seed", "4", "-q", "-t", "1")
        self.assertEqual(threads.stdout, plain.stdout)

    def test_stop_and_bias(self):
        base = ("generate", "-p", "ROMEO:", "--temp", "0", "--json", "--ignore-eos")
        text = json.loads(self.ok(*base, "-n", "30").stdout)["text"]
        stop = text[10:13]
        cut = json.loads(self.ok(*base, "-n", "30", "--stop", "never this", "--stop", stop).stdout)
        self.assertEqual(cut["text"], text[:text.index(stop)])
        self.assertEqual(cut["finish_reason"], "stop")
        biased = json.loads(self.ok(*base, "-n", "3", "--logit-bias", "300+1000").stdout)
        self.assertEqual(biased["tokens"], [300] * 3)

    def test_does_not_fit(self):
        self.refused(1, "too many", "generate", "-p", "ROMEO:", "-c", "8", "-n", "20")
        self.refused(1, "too many", "generate", "-p", "x " * 50, "-c", "8")
        self.refused(1, "99999", "generate", "--ids", "2,99999", "-n", "2")
        self.refused(1, "empty", "generate", "-p", "", "--no-bos")
        made = json.loads(self.ok("generate", "-p", "A", "-c", "12", "--json", "--ignore-eos").stdout)
        self.assertEqual(made["prompt_tokens"] + len(made["tokens"]), 12)

    def test_broken_pipe_is_quiet(self):
        with subprocess.Popen([BINARY, "generate", "-p", "A", "-n", "400", "--ignore-eos", "-q"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as child:
            child.stdout.read(1)
            child.stdout.close()
            self.assertEqual(child.stderr.read(), b"")
            self.assertEqual(child.wait(60), 1)

    def test_full_disk(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        with open("/dev/full", "w") as full:
            result = subprocess.run([BINARY, "version"], stdout=full, stderr=subprocess.PIPE, text=True,
                                    env=environment())
        self.assertEqual(result.returncode, 1)
        self.assertIn("standard output", result.stderr)

    def test_interrupt(self):
        with subprocess.Popen([BINARY, "generate", "-p", "A", "-n", "1500", "--ignore-eos", "-q"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as child:
            child.stdout.read(1)
            child.send_signal(signal.SIGINT)
            child.stdout.read()
            self.assertEqual(child.wait(60), 130)

    def test_environment_stands_in_for_flags(self):
        result = self.ok("show", "--json", env=environment(LAPIDARY_MODEL=str(TINY)))
        self.assertEqual(result.stderr, "")
        self.assertEqual(run("show", env=environment(LAPIDARY_COMPUTE="slow")).returncode, 2)


@needs_model
class ScoreAndShow(Case):
    def test_score(self):
        logits = self.folder / "logits.safetensors"
        result = json.loads(self.ok("score", "--ids", "2,17,300,41", "--compute", "exact", "--logits", str(logits),
                                    "--json", "-q").stdout)
        self.assertEqual((result["tokens"], result["predicted"]), (4, 3))
        data = logits.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8:8 + size])["logits"]
        vocab = json.loads((TINY / "config.json").read_text())["vocab_size"]
        self.assertEqual((header["dtype"], header["shape"]), ("F32", [4, vocab]))
        import array
        import math
        values = array.array("f", data[8 + size:])
        nll = 0.0
        for row, token in enumerate((17, 300, 41)):
            logit = values[row * vocab:(row + 1) * vocab]
            top = max(logit)
            nll += top + math.log(sum(math.exp(x - top) for x in logit)) - logit[token]
        self.assertAlmostEqual(result["nll"], nll / 3, places=6)
        self.assertAlmostEqual(result["ppl"], math.exp(nll / 3), delta=1e-4 * result["ppl"])
        self.refused(1, "at least two", "score", "--ids", "2")
        self.refused(1, "/nope/x", "score", "--ids", "2,3", "--logits", "/nope/x")

    def test_perplexity(self):
        text = "What is the city but the people? The people are the city. " * 8
        one = json.loads(self.ok("perplexity", "-q", "--json", stdin=text).stdout)
        score = json.loads(self.ok("score", "-q", "--json", stdin=text).stdout)
        self.assertEqual((one["nll"], one["predicted"], one["windows"]), (score["nll"], score["predicted"], 1))
        self.assertGreater(one["nll_stderr"], 0)
        short = json.loads(self.ok("perplexity", "-q", "-c", "32", "--json", stdin=text).stdout)
        self.assertEqual((short["predicted"], short["stride"]), (one["predicted"], 16))
        self.assertNotEqual(short["nll"], one["nll"])  # there was less to predict from
        self.assertRegex(self.ok("perplexity", "-p", text).stdout, r"(?m)^perplexity +[\d.]+ ± [\d.]+$")
        self.refused(1, "the text is empty", "perplexity", "-p", "")
        self.refused(1, "one token given", "perplexity", "--ids", "2")
        self.refused(1, "token id 99999", "perplexity", "--ids", "2,5,99999")

    def test_interrupted_perplexity_prints_what_is_done(self):
        book = self.folder / "book.txt"
        book.write_text("What is the city but the people? " * 60000)
        with subprocess.Popen([BINARY, "perplexity", "-q", "-f", str(book), "--json"], stdout=subprocess.PIPE,
                              env=environment()) as child:
            time.sleep(3)
            child.send_signal(signal.SIGINT)
            result = json.loads(child.stdout.read())
        self.assertEqual(child.returncode, 130)
        self.assertTrue(result["interrupted"] and 0 < result["predicted"] < result["tokens"], result)

    def test_compare(self):
        same = json.loads(self.ok("compare", str(TINY), str(TINY), "-p", "To be, or not to be", "--json").stdout)
        self.assertEqual((same["kld_mean"], same["kld_p99"], same["top1_agreement"]), (0, 0, 1))
        self.assertEqual(same["ppl_a"], same["ppl_b"])
        built_in = self.ok("compare", str(TINY), str(TINY), "--kv-type", "f32", "-c", "1024", "--stride", "1023")
        self.assertIn("built-in text", built_in.stderr)
        self.assertRegex(built_in.stdout, r"KLD\(A \|\| B\), mean +0 ± 0")
        self.assertGreater(int(re.search(r"tokens predicted +(\d+)", built_in.stdout)[1]), 2000)
        self.refused(1, "the vocabularies differ", "compare", str(TINY), str(SOURCE / "tests/golden/gemma3-v5"), "-p", "x")

    def test_compare_table(self):
        page = self.folder / "page.html"
        args = ("compare", str(TINY), str(TINY), str(TINY), "--table", "-p", "To be, or not to be", "-q")
        rows = json.loads(self.ok(*args, "--json", "--html", str(page)).stdout)
        self.assertEqual([row["kld_mean"] for row in rows], [None, 0, 0])
        self.assertEqual({row["bits_per_weight"] for row in rows}, {16})
        self.assertIn("<canvas", page.read_text())
        self.assertEqual(len(self.ok(*args, "-o", "csv").stdout.splitlines()), 4)

    def test_compare_prompts(self):
        prompts, page = self.folder / "prompts.jsonl", self.folder / "page.html"
        prompts.write_text('{"prompt": "To be?", "id": "one"}\n{"prompt": "What news?", "category": "c"}\n')
        args = ("compare", str(TINY), str(TINY), "--prompts", str(prompts), "-n", "6")
        result = json.loads(self.ok(*args, "--json", "--html", str(page)).stdout)
        self.assertEqual((result["prompts"], result["identical"], result["chat_format"]), (2, 2, True))
        self.assertEqual([pair["id"] for pair in result["pairs"]], ["one", "2"])
        self.assertEqual(result["pairs"][0]["a"]["text"], result["pairs"][0]["b"]["text"])
        self.assertGreater(result["a"]["memory_bytes"], 0)
        self.assertEqual(page.read_text().count("<section>"), 2)
        text = self.ok(*args, "--raw").stdout
        self.assertIn("== one: identical", text)
        self.assertIn("2 prompts: 2 identical", text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        self.assertNotIn("\x1b", text)
        prompts.write_text('{"prompt": "a"}\n{"prompt": }\n')
        self.refused(1, f"{prompts}: line 2", *args)
        self.refused(1, "/nope/page.html", "compare", str(TINY), str(TINY), "--prompts", "--html", "/nope/page.html")
        self.assertEqual(list(self.folder.glob("*.tmp-*")), [])

    def test_compare_prompts_that_differ(self):
        # The same weights but for some, which are 0: other answers from some point on.
        other = self.folder / "other"
        shutil.copytree(TINY, other)
        weights = bytearray((other / "model.safetensors").read_bytes())
        weights[-200000:-100000] = bytes(100000)
        (other / "model.safetensors").write_bytes(weights)
        text = self.ok("compare", str(TINY), str(other), "--prompts", "-n", "24").stdout
        self.assertIn("▸", text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        self.assertRegex(text, r"25 prompts: \d+ identical, \d+ same start, [1-9]\d* different")

    def test_show(self):
        document = json.loads(self.ok("show", "--json", "-c", "1000").stdout)
        self.assertEqual(sum(part["parameters"] for part in document["parts"]), document["parameters"])
        self.assertEqual(len(document["layer_types"]), document["num_hidden_layers"])
        self.assertEqual(document["memory"]["context"], 1000)
        text = self.ok("show").stdout
        self.assertIn("K/V cache", text)
        self.assertLessEqual(max(map(len, text.splitlines()[1:])), 80)

    @unittest.skipIf(re.search("asan|tsan", BINARY), "the sanitizer's own memory is many times that")
    def test_forecast_is_what_it_takes(self):
        for context in (16, 1900):
            ids = ",".join(str(300 + i % 3000) for i in range(context - 4))
            forecast = json.loads(self.ok("show", "--json", "-c", str(context)).stdout)["memory"]
            took = json.loads(self.ok("generate", "--ids", ids, "-n", "4", "--temp", "0", "--ignore-eos", "-c",
                                      str(context), "--json").stdout)["peak_rss_bytes"]
            total = next(v for k, v in forecast.items() if k.startswith("total"))
            self.assertLess(abs(took / total - 1), 0.1, (context, took, forecast))

    def test_synth(self):
        folder = self.folder / "model"
        args = ("synth", "--preset", "gemma-3-270m", "--layers", "2", "--vocab", "512", "--bits", "4", "-o",
                str(folder))
        result = self.ok(*args)
        self.assertEqual(result.stdout, "")
        made = json.loads(self.ok("generate", "-m", str(folder), "--ids", "2,7", "-n", "3", "--json", "-q").stdout)
        self.assertEqual((len(made["tokens"]), made["text"]), (3, ""))
        plain = self.ok("generate", "-m", str(folder), "--ids", "2,7", "-n", "3", "-q").stdout
        self.assertEqual(plain.split(), [str(i) for i in made["tokens"]])
        self.refused(1, "holds a model already", *args)
        self.refused(1, "no tokenizer", "generate", "-m", str(folder), "-p", "x")
        self.refused(1, "no tokenizer", "chat", "-m", str(folder), "-p", "x")

    def test_convert(self):
        file = self.folder / "tiny.gguf"
        args = ("convert", str(TINY), "-o", str(file))
        result = self.ok(*args, "--type", "q8_0", "--json")
        self.assertEqual(result.stderr, "")
        document = json.loads(result.stdout)
        self.assertEqual(set(document), {"input", "output", "format", "type", "vocabulary", "substitutes", "tensors",
                                         "changed", "files", "bytes", "bits_per_weight", "check",
                                         "memory_forecast_bytes", "peak_rss_bytes", "seconds"})
        self.assertEqual(document["files"], [{"name": "tiny.gguf", "bytes": document["bytes"]}])
        self.assertEqual(document["check"]["tokens"], 24)
        self.assertTrue(0.001 < document["check"]["weight_error"] < 0.01, document)
        self.assertEqual((document["format"], document["type"], document["vocabulary"]), ("gguf", "q8_0", "tokenizer"))
        data = file.read_bytes()
        self.assertEqual(len(data), document["bytes"])
        self.assertEqual((data[:4], int.from_bytes(data[8:16], "little")), (b"GGUF", document["tensors"]))

        self.refused(1, "is there already", *args)
        self.assertEqual(file.read_bytes(), data)
        plain = self.ok(*args, "--force")
        self.assertEqual(plain.stdout, "")
        self.assertIn("tensors", plain.stderr)
        self.assertGreater(file.stat().st_size, 1.5 * len(data))  # f16
        self.assertEqual(self.ok(*args, "--force", "--quiet").stderr, "")
        self.assertIn("not checked", self.ok(*args, "--force", "--no-check").stderr)
        other = self.folder / "named"
        self.ok("convert", str(TINY), "-o", str(other), "--to", "gguf", "--quiet")
        self.assertEqual(other.read_bytes(), file.read_bytes())
        self.refused(1, "/nope/x.gguf: cannot create", "convert", str(TINY), "-o", "/nope/x.gguf")

    def test_gguf_stands_for_a_model_everywhere(self):
        file = self.folder / "tiny.gguf"
        self.ok("convert", str(TINY), "-o", str(file), "--type", "f32", "--quiet")
        same = [("generate", "-p", "JULIET:", "-n", "12", "--temp", "0"), ("tokenize", "-p", "But soft  <b>", "--json"),
                ("score", "-p", "To be, or not to be", "--json")]
        for verb, *rest in same:
            of_file, of_folder = (re.sub(r'"seconds":[^,}]*', "", self.ok(verb, "-m", str(m), *rest).stdout)
                                  for m in (file, TINY))
            self.assertEqual(of_file, of_folder)
        self.assertEqual(self.ok("detokenize", "-m", str(file), stdin="495 138").stdout,
                         self.ok("detokenize", "-m", str(TINY), stdin="495 138").stdout)
        shown = json.loads(self.ok("show", "-m", str(file), "--json").stdout)
        self.assertEqual((shown["model"], shown["format"], shown["tokenizer"]), (str(file), "F32", True))
        bench = json.loads(self.ok("bench", "-m", str(file), "-p", "8", "-n", "2", "-r", "1", "-o", "json").stdout)
        self.assertEqual(len(bench), 2)
        self.ok("chat", "-m", str(file), "-n", "4", stdin="hello\n")
        file.write_bytes(file.read_bytes()[:100000])
        self.refused(1, "tiny.gguf: ", "generate", "-m", str(file), "-p", "x")
        self.refused(1, "tiny.gguf: a GGUF file is made of a folder", "convert", str(file), "-o", str(self.folder / "x.gguf"))

    def test_convert_to_a_folder(self):
        out = self.folder / "tiny-4bit"
        args = ("convert", str(TINY), "-o", str(out))
        result = self.ok(*args, "--quantize", "--json")
        self.assertEqual(result.stderr, "")
        document = json.loads(result.stdout)
        self.assertEqual(document["format"], "folder")
        self.assertEqual({f["name"] for f in document["files"]}, {p.name for p in out.iterdir()})
        self.assertEqual(sum(f["bytes"] for f in document["files"]), document["bytes"])
        self.assertAlmostEqual(document["bits_per_weight"], 4.5, delta=0.1)
        check = document["check"]
        self.assertLess(0, check["kld_mean"])
        self.assertLess(check["logit_error"], check["logit_error_limit"])
        self.assertGreater(check["top1_agreement"], 0.5)
        block = json.loads((out / "config.json").read_text())["quantization"]
        self.assertEqual(block, {"group_size": 64, "bits": 4, "mode": "affine"})
        text = self.ok("generate", "-m", str(out), "-p", "ROMEO:", "-n", "8", "--temp", "0").stdout
        self.assertTrue(text.strip())

        self.refused(1, "is there already", *args, "--quantize")
        again = self.ok(*args, "--bits", "8", "--group-size", "32", "--force")
        self.assertEqual(again.stdout, "")
        self.assertIn("checked: weights differ by", again.stderr)
        back = self.folder / "dense"
        self.ok("convert", str(out), "-o", str(back), "-d", "--quiet")
        self.refused(1, "nothing to dequantise", "convert", str(back), "-o", str(self.folder / "x"), "-d")
        self.assertEqual({p.name for p in self.folder.iterdir()}, {"tiny-4bit", "dense"})

    def test_convert_on_a_full_disk(self):
        """The file size limit stands in for it: some shards fit, one does not."""
        model, out = self.folder / "model", self.folder / "out"
        self.ok("synth", "--preset", "gemma-3-270m", "--layers", "2", "--vocab", "4096", "-o", str(model), "-q")
        for target in (out, self.folder / "out.gguf"):
            result = subprocess.run(
                ["bash", "-c", 'trap "" XFSZ; ulimit -f 1024; exec "$@"', "_", BINARY, "convert", str(model), "-o",
                 str(target), *(("--dtype", "f32") if target == out else ())],
                capture_output=True, text=True, timeout=120, env=environment())
            self.assertEqual(result.returncode, 1, result)
            self.assertIn("cannot write", result.stderr)
            self.assertEqual({p.name for p in self.folder.iterdir()}, {"model"})

    def test_convert_where_nobody_may_write(self):
        if os.geteuid() == 0:
            self.skipTest("root may write anywhere")
        self.folder.chmod(0o500)
        self.refused(1, "cannot create: Permission denied", "convert", str(TINY), "-o", str(self.folder / "x"), "--quantize")

    def test_convert_killed(self):
        """What it leaves is under another name, and is gone after the next."""
        model, out = self.folder / "model", self.folder / "out"
        self.ok("synth", "--preset", "gemma-3-270m", "-o", str(model), "-q")
        partial = self.folder / "out.partial"
        with subprocess.Popen([BINARY, "convert", str(model), "-o", str(out), "--quantize"],
                              stderr=subprocess.PIPE, env=environment()) as child:
            while not list(partial.glob("*.tmp*")) and child.poll() is None:
                time.sleep(0.001)
            child.kill()
            child.stderr.read()
            child.wait(60)
        self.assertTrue(partial.exists())
        self.assertFalse(out.exists())
        self.ok("convert", str(model), "-o", str(out), "--quantize", "--no-check", "--quiet")
        self.assertEqual({p.name for p in self.folder.iterdir()}, {"model", "out"})

    def test_convert_without_a_tokenizer(self):
        model, file = self.folder / "model", self.folder / "model.gguf"
        self.ok("synth", "--preset", "gemma-3-270m", "--layers", "1", "--vocab", "512", "-o", str(model), "-q")
        result = self.ok("convert", str(model), "-o", str(file), "--json")
        self.assertEqual(json.loads(result.stdout)["vocabulary"], "placeholder")
        self.assertIn("has no tokenizer", result.stderr)

    def test_quantize(self):
        out, data = self.folder / "mixed", self.folder / "data.txt"
        data.write_text("ROMEO:\nBut soft, what light through yonder window breaks?\n" * 3)
        args = ("quantize", str(TINY), "-o", str(out), "--data", str(data), "--calibration-tokens", "60")
        result = self.ok(*args, "--bits-per-weight", "3.8", "--json")
        self.assertEqual(result.stderr, "")
        document = json.loads(result.stdout)
        self.assertTrue(3.7 < document["bits_per_weight"] <= 3.8, document["bits_per_weight"])
        self.assertTrue(0 < document["calibration_tokens"] <= 62)
        block = json.loads((out / "config.json").read_text())["quantization"]
        for module in document["modules"]:
            self.assertEqual(module["bits"], block.get(module["path"], block)["bits"], module["path"])
            self.assertLess(module["error"], module["rtn_error"])
        text = self.ok("generate", "-m", str(out), "-p", "ROMEO:", "-n", "8", "--temp", "0").stdout
        self.assertTrue(text.strip())
        self.assertIn("3.8 bits per weight", (out / "README.md").read_text())
        self.refused(1, "is there already", *args)
        self.refused(1, "quantised already", "quantize", str(out), "-o", str(self.folder / "again"))
        data.write_text("")
        self.refused(1, "no tokens", *args, "--force")
        self.refused(1, "/nope", "quantize", str(TINY), "-o", str(self.folder / "x"), "--data", "/nope")
        self.assertTrue((out / "model.safetensors").exists())

    def test_quantize_interrupted(self):
        out = self.folder / "out"
        with subprocess.Popen([BINARY, "quantize", str(TINY), "-o", str(out)],
                              stderr=subprocess.PIPE, env=environment()) as child:
            time.sleep(0.5)
            child.send_signal(signal.SIGINT)
            self.assertEqual(child.stderr.read(), b"")
            self.assertEqual(child.wait(60), 130)
        self.assertFalse(list(self.folder.glob("out*")))

    def test_convert_interrupted(self):
        model, out = self.folder / "model", self.folder / "out"
        out.mkdir()
        self.ok("synth", "--preset", "gemma-3-270m", "-o", str(model), "-q")
        with subprocess.Popen([BINARY, "convert", str(model), "-o", str(out / "f.gguf"), "--type", "q4_0"],
                              stderr=subprocess.PIPE, env=environment()) as child:
            while not list(out.iterdir()) and child.poll() is None:
                time.sleep(0.001)
            child.send_signal(signal.SIGINT)
            child.stderr.read()
            self.assertEqual(child.wait(60), 130)
        self.assertEqual(list(out.iterdir()), [])


# Small enough for a test: a limit that is measured from the caches is a number all the same.
QUICK = ("-q", "--memory", "16")


class Bench(Case):
    # llama-bench's, and those that say how near the limit is.
    KEYS = set("build_commit build_number cpu_info model_type model_size model_n_params n_batch n_threads type_k "
               "type_v n_prompt n_gen n_depth test_time avg_ns stddev_ns avg_ts stddev_ts samples_ns samples_ts "
               "bytes_per_token gb_per_s tflop_per_s limit share_of_limit median_ns median_ts".split())

    @needs_model
    def test_records(self):
        records = json.loads(self.ok("bench", *QUICK, "-p", "8", "-n", "4", "-d", "0,70", "-b", "1-2", "-r", "2",
                                     "-o", "json").stdout)
        self.assertEqual([(r["test"], r["n_batch"]) for r in records],
                         [(test, batch) for batch in (1, 2) for test in ("pp8", "tg4", "pp8 @ d70", "tg4 @ d70")])
        for r in records:
            self.assertLessEqual(self.KEYS, set(r))
            self.assertEqual((len(r["samples_ns"]), len(r["samples_ts"])), (2, 2))
            tokens = (r["n_prompt"] + r["n_gen"]) * r["n_batch"]
            self.assertAlmostEqual(r["samples_ts"][0] * r["samples_ns"][0] / 1e9, tokens, places=6)
            self.assertAlmostEqual(r["gb_per_s"], r["bytes_per_token"] * r["avg_ts"] / 1e9)
            rate = r["gb_per_s"] if r["limit_unit"] == "GB/s" else r["tflop_per_s"]
            self.assertAlmostEqual(r["share_of_limit"], rate / r["limit"])
        decode = [r for r in records if r["n_gen"]]
        self.assertLess(decode[0]["bytes_per_token"], decode[1]["bytes_per_token"])  # deeper
        self.assertLess(decode[2]["bytes_per_token"], decode[0]["bytes_per_token"])  # shared

    @needs_model
    def test_forms(self):
        few = ("bench", "-q", "--no-limits", "-p", "0", "-n", "2", "-r", "1")
        table = [line for line in self.ok(*few).stdout.splitlines() if line.startswith("|")]
        self.assertEqual((len(table), len({len(line) for line in table})), (3, 1))
        self.assertIn("| tg2 |", re.sub(" +", " ", table[2]))
        header, line = self.ok(*few, "-o", "csv").stdout.splitlines()
        self.assertEqual(header.count(",") + 1, line.count('","') + 1)
        lines = self.ok(*few, "-t", "1,2", "-o", "jsonl").stdout.splitlines()
        self.assertEqual([json.loads(line)["n_threads"] for line in lines], [1, 2])
        self.assertIsNone(json.loads(lines[0])["limit"])
        page = self.folder / "page.html"
        self.assertEqual(self.ok(*few, "--json", "--html", str(page)).stdout[0], "[")
        self.assertEqual(page.read_text().count("<canvas"), 1)
        self.assertEqual(run(*few, "--html", str(self.folder / "none" / "x")).returncode, 1)

    @needs_model
    def test_curve(self):
        few = ("bench", "curve", "-q", "--no-limits", "-n", "1", "-r", "1", "--json")
        self.assertEqual([r["n_depth"] for r in json.loads(self.ok(*few, "--to", "300").stdout)], [0, 256, 300])
        self.assertEqual([r["n_depth"] for r in json.loads(self.ok(*few, "-d", "0-20+10").stdout)], [0, 10, 20])

    def test_limits(self):
        limits = json.loads(self.ok("bench", "limits", *QUICK, "--seconds", "0.002", "-r", "2", "--json").stdout)
        self.assertEqual(sum(l["unit"] == "GB/s" for l in limits), 16)  # 4 streams, prefetch or not, 1 and 2 threads
        for limit in limits:
            self.assertEqual(len(limit["samples"]), 2)
            self.assertTrue(0 < limit["median"] <= limit["best"], limit)

    def test_kernels(self):
        rows = json.loads(self.ok("bench", "kernels", *QUICK, "--filter", "rms_norm", "--seconds", "0.002", "--json").stdout)
        self.assertEqual(rows[0]["isa"], "ref")
        for row in rows:
            self.assertEqual((row["op"], row["correct"]), ("rms_norm", True))
            self.assertAlmostEqual(row["gb_per_s"], row["bytes"] / row["seconds"] / 1e9)
            if row["isa"] == "ref":  # no unit, and the values stay in a cache
                self.assertIsNone(row["limit"])
            else:
                self.assertAlmostEqual(row["share_of_limit"], row["tflop_per_s"] / row["limit"])

    @needs_model
    def test_natural(self):
        rows = json.loads(self.ok("bench", "natural", "-q", "-n", "12", "--json").stdout)
        self.assertEqual([row["name"] for row in rows], ["short", "medium", "long"])
        for row in rows:
            self.assertTrue(row["ended"] or row["tokens"] == 12, row)
            self.assertEqual(row["file_bytes"], (TINY / "model.safetensors").stat().st_size)
            self.assertGreater(row["peak_rss_bytes"], row["file_bytes"])

    @needs_model
    def test_peers(self):
        script = self.folder / "peer.sh"
        script.write_text("""echo '{"load_s": 1}'
while read -r request; do echo '{"ttft_s": 2, "decode_s": 4, "tokens": [1, 2, 3]}'; done
""")
        few = ("bench", "peers", "-q", "-p", "4", "-n", "3", "-r", "1", "--json")
        ours, theirs = json.loads(self.ok(*few, "--peer", f"a peer=sh {script}").stdout)
        self.assertEqual((ours["name"], ours["tokens_agreeing"], theirs["name"]), ("lapidary", 3, "a peer"))
        self.assertEqual((theirs["prefill_tokens_per_second"], theirs["decode_tokens_per_second"]), (2, 0.5))
        self.assertGreater(ours["peak_rss_bytes"], theirs["peak_rss_bytes"])
        self.refused(1, "peer gone:", *few, "--peer", "gone=true")

    @needs_model
    def test_interrupt_prints_what_is_done(self):
        with subprocess.Popen([BINARY, "bench", "-q", "--no-limits", "-p", "0", "-n", "1", "-r", "1000000", "-o", "json"],
                              stdout=subprocess.PIPE, env=environment()) as child:
            time.sleep(2)
            child.send_signal(signal.SIGINT)
            (record,) = json.loads(child.stdout.read())
        self.assertEqual(child.returncode, 130)
        self.assertTrue(0 < len(record["samples_ns"]) < 1000000)


class Terminal:
    """The program under a pseudo-terminal."""

    def __init__(self, folder, *args):
        self.output = ""
        try:
            self.pid, self.fd = pty.fork()
        except OSError as error:
            raise unittest.SkipTest(f"no pseudo-terminal: {error}")
        if self.pid == 0:
            os.execve(BINARY, [BINARY, *args],
                      environment(TERM="xterm", NO_COLOR="1", XDG_STATE_HOME=str(folder)))

    def expect(self, pattern, timeout=30):
        """What came up to and including `pattern`, which is taken out."""
        end = time.time() + timeout
        while not (match := re.search(pattern, self.output)):
            if time.time() > end:
                raise AssertionError(f"{pattern!r} did not come: {self.output[-300:]!r}")
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.output += os.read(self.fd, 65536).decode(errors="replace").replace("\r", "")
                except OSError:
                    self.output = self.output.removesuffix("<end>") + "<end>"
        before, self.output = self.output[:match.end()], self.output[match.end():]
        return before

    def prompt(self, pattern=r"(^|\n)> "):
        """Waits for the prompt, and for the editor to take over the terminal behind it."""
        before = self.expect(pattern)
        while termios.tcgetattr(self.fd)[3] & termios.ICANON:
            time.sleep(0.01)
        return before

    def send(self, text):
        os.write(self.fd, text.encode())

    def say(self, text):
        """A line, and what it brought until the next prompt."""
        self.send(text + "\n")
        self.expect(re.escape(text))
        return self.prompt(r"\n> $")[1:-3]

    def wait(self):
        self.expect("<end>")
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return code


@needs_model
class Chat(Case):
    def test_one_turn(self):
        first = self.ok("chat", "-p", "Hello", "-n", "12", "-q")
        self.assertEqual(first.stderr, "")
        self.assertEqual(self.ok("chat", "-p", "-", "-n", "12", "-q", stdin="Hello").stdout, first.stdout)
        self.assertNotEqual(self.ok("chat", "-p", "Hello", "-n", "12", "-q", "--sys", "Be brief.").stdout,
                            first.stdout)

    def test_lines_are_turns(self):
        lines = self.ok("chat", "-n", "6", "-q", stdin="Hello\n\nAgain\n")
        one = self.ok("chat", "-n", "6", "-q", "-p", "Hello").stdout
        self.assertTrue(lines.stdout.startswith(one) and len(lines.stdout) > len(one))
        self.assertEqual(lines.stderr, "")
        self.refused(2, "/nope", "chat", stdin="/nope\n")

    def test_conversation(self):
        saved, text = self.folder / "saved.json", self.folder / "text"
        text.write_text("From a file")
        t = Terminal(self.folder, "chat", "-n", "20", "--seed", "3")
        self.assertIn("/help", t.prompt())
        self.assertIn("/regen", t.say("/help"))
        first = t.say("Hello")
        self.assertRegex(first, r"prompt \d+ tokens in")
        again = t.say("/regen")
        self.assertRegex(again, r"\d+ of them cached")
        self.assertNotEqual(first.split("\n")[0], again.split("\n")[0])
        self.assertRegex(t.say(f"/read {text}"), r"\d+ of them cached")
        t.send('"""two\n')
        t.prompt(r"\n\. ")
        t.say('lines"""')
        self.assertIn("6 messages", t.say(f"/save {saved}"))
        t.say("/clear")
        self.assertIn("6 messages", t.say(f"/load {saved}"))
        self.assertRegex(t.say("Go on"), r"\d+ of them cached")
        self.assertIn("temp: -1", t.say("/set temp -1"))
        self.assertIn("not a setting", t.say("/set nope 1"))
        t.say("/set top-k 5")
        self.assertRegex(t.say("/set"), r"top-k +5\n")
        self.assertIn("/nope", t.say("/nope"))
        self.assertIn("cannot open", t.say("/read /nope/file"))
        t.send("/bye\n")
        self.assertEqual(t.wait(), 0)
        messages = json.loads(saved.read_text())["messages"]
        self.assertEqual([m["role"] for m in messages], ["user", "assistant"] * 3)
        self.assertEqual([m["content"] for m in messages[::2]], ["Hello", "From a file", "two\nlines"])
        self.assertIn("Hello", (self.folder / "lapidary/history").read_text())

    def test_interrupt_stops_the_answer_only(self):
        # Without its end tokens the model goes on until the context is full.
        ends = [arg for i in (1, 106, 4, 5, 6) for arg in ("--logit-bias", f"{i}-1000")]
        t = Terminal(self.folder, "chat", *ends)
        t.prompt()
        t.send("Hello\n")
        t.expect(r"Hello\n[^\n]+\n")
        t.send("\x03")
        self.assertIn("interrupted", t.prompt(r"\n> "))
        t.send("half a line\x03")
        t.expect("Ctrl-C again")
        t.prompt()
        self.assertIn("temp", t.say("/set"))
        t.send("\x04")
        self.assertEqual(t.wait(), 0)

    def test_two_interrupts_at_the_prompt_leave(self):
        t = Terminal(self.folder, "chat")
        t.prompt()
        t.send("\x03")
        t.prompt("Ctrl-C again[^\n]*\n> ")
        t.send("\x03")
        self.assertEqual(t.wait(), 130)

    def test_bad_conversations(self):
        for name, content, words in [
            ("a", "{}", "messages"),
            ("b", '{"messages": [{"role": "assistant", "content": "x"}]}', "out of turn"),
            ("c", '{"messages": [{"role": "user", "content": "x"}]}', "no answer"),
            ("d", '{"messages": [{"role": "user", "content": 3}]}', "content"),
            ("e", "not json", "not valid JSON"),
        ]:
            path = self.folder / name
            path.write_text(content)
            self.refused(1, words, "chat", stdin=f"/load {path}\n")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
