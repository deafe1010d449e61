#!/usr/bin/env python3
"""score, perplexity, compare and show from outside."""
import array
import json
import math
import re
import shutil
import signal
import subprocess
import time
import unittest

from program import BINARY, SOURCE, TINY, Case, environment, main, needs_model


@needs_model
class Eval(Case):
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


if __name__ == "__main__":
    main()
