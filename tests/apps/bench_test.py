#!/usr/bin/env python3
"""bench and its second words from outside."""
import json
import re
import signal
import subprocess
import time

from program import BINARY, TINY, Case, environment, main, needs_model

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
        default = json.loads(self.ok(*few, "-o", "jsonl", env={"LAPIDARY_THREADS": ""}).stdout)["n_threads"]
        self.assertEqual(json.loads(self.ok(*few, "-o", "jsonl", "-t", "0").stdout)["n_threads"], default)
        self.assertEqual(json.loads(self.ok(*few, "-o", "jsonl", env={"LAPIDARY_THREADS": "0"}).stdout)["n_threads"], default)
        page = self.folder / "page.html"
        self.assertEqual(self.ok(*few, "--json", "--html", str(page)).stdout[0], "[")
        self.assertEqual(page.read_text().count("<canvas"), 1)
        self.assertEqual(self.run_it(*few, "--html", str(self.folder / "none" / "x")).returncode, 1)

    def test_refused(self):
        for verb in ("limits", "kernels"):
            self.refused(2, "--seconds: nan given, expected 0.001 to 60", "bench", verb, "--seconds", "nan")
            self.refused(2, "LAPIDARY_ISA=xyz: unknown", "bench", verb, "--seconds", "0.001", env={"LAPIDARY_ISA": "xyz"})

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
    def test_decode(self):
        tasks = self.folder / "tasks.jsonl"
        tasks.write_text('{"prompt": "ROMEO:", "completion": "no"}\n{"prompt": "JULIET:"}\n')
        page = self.folder / "decode.html"
        records = json.loads(self.ok("bench", "decode", "-q", "--prompts", str(tasks), "-n", "12", "-r", "2", "--blocks",
                                     "4", "--gammas", "0,inf", "--mask-token", "<mask>", "-o", "json", "--html",
                                     str(page), "--ways", "plain,ngram,set-block,block-draft").stdout)
        self.assertEqual([(r["decode"], r["block"], r["gamma"]) for r in records],
                         [("plain", None, None), ("ngram", None, None), ("set-block", 4, "0"), ("set-block", 4, "inf"),
                          ("block-draft", 4, None)])
        self.assertEqual([r["accuracy"] for r in records], [0] * 5)
        self.assertEqual(records[4]["identical"], 2)
        self.assertEqual([r["identical"] for r in records][:2], [2, 2])
        self.assertEqual(records[3]["forward_passes"], 6)
        self.assertEqual(len(records[2]["pass_by_place"]), 4)
        self.assertIn("Likelihood and speed", page.read_text())
        self.refused(2, "go together", "bench", "decode", "--ways", "draft")
        self.refused(2, "--gammas", "bench", "decode", "--gammas", "much")
        self.refused(2, "--order: only with --ways set-block", "bench", "decode", "--ways", "ngram", "--order", "margin")
        tasks.write_text('{"prompt": "ROMEO:"}\n' + json.dumps({"prompt": "O, " * 2500}) + "\n")
        self.refused(1, "prompt 2: its ", "bench", "decode", "--prompts", str(tasks), "-n", "4", "--ways", "ngram")
        tasks.write_text('{"prompt": ""}\n')
        self.refused(1, "line 1", "bench", "decode", "--prompts", str(tasks))

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


if __name__ == "__main__":
    main()
