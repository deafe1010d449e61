#!/usr/bin/env python3
"""Training from outside: a run, its folder, interrupted and resumed."""
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import time
import unittest

from program import BINARY, TINY, Case, environment, main

TEXT = "The lapidary cuts the stone along its grain, turns it to the light, and looks. " * 4
SHORT = ("--batch-size", "2", "--sequence-length", "16")
SMALL = (*SHORT, "--rank", "2")


class Train(Case):
    def setUp(self):
        super().setUp()
        (self.folder / "text.txt").write_text(TEXT)
        self.run_folder = self.folder / "run"
        self.args = ("train", "-m", str(TINY), "--data", str(self.folder / "text.txt"), "-o", str(self.run_folder))

    def lines(self, name="metrics.jsonl"):
        return [json.loads(line) for line in (self.run_folder / name).read_text().splitlines()]

    def test_a_run(self):
        result = self.ok(*self.args, *SMALL, "--iters", "3", "--json", "-q")
        document = json.loads(result.stdout)
        self.assertEqual((document["method"], document["steps"]), ("lora", 3))
        self.assertEqual([line["step"] for line in self.lines()], [1, 2, 3])
        self.assertLessEqual({"step", "loss", "lr", "tokens_per_second", "grad_norm", "peak_rss_bytes"},
                             set(self.lines()[0]))
        self.assertEqual({p.name for p in self.run_folder.iterdir() if not p.name.startswith("events")},
                         {"config.json", "metrics.jsonl", "state", "report.html", "adapter"})
        ids = ("--ids", "2,17,300,41", "--json", "-q")
        plain = json.loads(self.ok("score", *ids).stdout)["nll"]
        adapted = json.loads(self.ok("score", *ids, "--adapter", str(self.run_folder / "adapter")).stdout)["nll"]
        self.assertNotEqual(adapted, plain)
        self.refused(1, "holds a run already", *self.args, *SMALL, "--iters", "3")
        self.refused(1, "iterations: 3 then, 4 now", *self.args, *SMALL, "--iters", "4", "--resume")
        self.assertEqual(self.ok(*self.args, *SMALL, "--iters", "3", "--resume", "-q").returncode, 0)

    def test_operands_of_bf16(self):
        """The definition multiplies them on any machine; the vector kernels without AMX do not."""
        one = (*self.args, "--batch-size", "1", "--sequence-length", "8", "--rank", "2", "--iters", "1", "--json", "-q")
        vectors = "neon" if platform.machine() == "aarch64" else "avx2"

        def operands(isa, *more):
            document = json.loads(self.ok(*one, *more, env={"LAPIDARY_ISA": isa}).stdout)
            return document["operands"], document["loss"]

        def begun_with():
            return json.loads((self.run_folder / "config.json").read_text())["operands"]

        rounded, loss = operands("ref")
        self.assertEqual((rounded, begun_with()), ("bf16", "bf16"))
        self.refused(1, "operands of bf16", *one, "--resume", env={"LAPIDARY_ISA": vectors})
        self.assertEqual(operands(vectors, "--resume", "--compute", "exact")[0], "f32")
        self.run_folder = self.folder / "exact"
        one = tuple(str(self.run_folder) if arg == str(self.folder / "run") else arg for arg in one)
        rounded, exact_loss = operands("ref", "--compute", "exact")
        self.assertEqual((rounded, begun_with()), ("f32", "f32"))
        self.assertEqual(operands("ref", "--resume")[0], "f32")  # as it was begun
        self.assertNotEqual(loss, exact_loss)
        self.assertAlmostEqual(loss / exact_loss, 1, delta=2 ** -6)

    def test_what_is_learnt_by_heart(self):
        document = json.loads(
            self.ok(*self.args, *SMALL, "--iters", "2", "--valid-fraction", "0.3", "--long-documents", "split",
                    "--track-memorization", "3", "--json", "-q").stdout)
        last = self.lines()[-1]
        for key in ("memorized_bits", "valid_memorized_bits", "extraction_rate", "valid_extraction_rate", "membership_auc"):
            self.assertEqual(document[key], last[key])
        self.assertNotIn("extraction_rate", self.lines()[0])
        events = b"".join(path.read_bytes() for path in self.run_folder.glob("events*"))
        self.assertIn(b"valid_extraction_rate", events)
        self.assertIn("Sequences that greedy decoding completes", (self.run_folder / "report.html").read_text())

    def test_ranks(self):
        self.ok(*self.args, *SMALL, "--iters", "3", "--rank-every", "2", "--targets", "q_proj", "-q")
        lines = self.lines("ranks.jsonl")
        self.assertEqual([line["step"] for line in lines], [2] * 7 + [3] * 7)
        self.assertEqual(lines[8]["matrix"], "model.layers.1.self_attn.q_proj")
        self.assertEqual({line["numerical_rank"] for line in lines}, {2})
        self.assertIn("Effective rank after 3 steps", (self.run_folder / "report.html").read_text())

    def test_interrupted_and_resumed(self):
        args = (*self.args, *SMALL, "--iters", "100000", "--schedule", "constant")
        with subprocess.Popen([BINARY, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=environment()) as child:
            while not (self.run_folder / "metrics.jsonl").exists() or not self.lines():
                pass
            child.send_signal(signal.SIGINT)
            child.communicate()
            self.assertEqual(child.returncode, 130)
        state = json.loads((self.run_folder / "state/state.json").read_text())
        self.assertEqual(state["step"], self.lines()[-1]["step"])

    def kill_after(self, step, *args):
        """Ends a run when its state is of that step or a later one, whatever it is doing. On a busy
        machine it may have ended by itself."""
        state = self.run_folder / "state/state.json"
        with subprocess.Popen([BINARY, *args], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              env=environment()) as child:
            while child.poll() is None and not (state.exists() and json.loads(state.read_text())["step"] >= step):
                time.sleep(0.002)
            child.kill()
            said = child.stderr.read()
            child.wait()
            self.assertIn(child.returncode, (-signal.SIGKILL, 0), said)

    def test_killed_and_resumed(self):
        """Bit for bit what a run is that nobody killed, wherever it stood; and TensorBoard is told."""
        args = (*SMALL, "--iters", "40", "--save-every", "1", "--dropout", "0.1", "-q")
        whole = self.folder / "whole"
        self.ok(*self.args[:-1], str(whole), *args)
        self.kill_after(2, *self.args, *args)
        self.kill_after(12, *self.args, *args, "--resume")
        (self.run_folder / "state/step-00000099.safetensors.tmp-1-1").write_text("half")
        self.ok(*self.args, *args, "--resume")
        for name in ("adapter/adapter_model.safetensors", "state/step-00000040.safetensors"):
            self.assertEqual((self.run_folder / name).read_bytes(), (whole / name).read_bytes(), name)
        self.assertEqual([line["step"] for line in self.lines()], list(range(1, 41)))
        self.assertEqual({p.name for p in (self.run_folder / "state").iterdir()}, {"state.json", "step-00000040.safetensors"})
        self.assertIn(b"peak_rss_bytes", b"".join(path.read_bytes() for path in self.run_folder.glob("events*")))
        done = json.loads(self.ok(*self.args, *args, "--resume", "--json").stdout)
        self.assertEqual(done["loss"], self.lines()[-1]["loss"])

    def test_a_full_disk(self):
        """What was saved before stays, and the run goes on from it."""
        args = (*self.args, *SHORT, "--method", "full", "--iters", "3", "--save-every", "1", "-q")
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # noqa: E731
        result = self.refused(1, "step-00000001.safetensors", *args, preexec_fn=limit)
        self.assertIn("cannot", result.stderr)
        self.assertEqual(list((self.run_folder / "state").iterdir()), [])
        self.ok(*args, "--resume")
        self.assertTrue((self.run_folder / "model/config.json").exists())

    def test_from_another_folder(self):
        args = ("train", "-m", str(TINY), "-o", str(self.run_folder), *SMALL, "-q")
        self.ok(*args, "--iters", "1", "--data", "text.txt", cwd=self.folder)
        (self.folder / "below").mkdir()
        self.ok(*args, "--iters", "1", "--data", "../text.txt", "--resume", cwd=self.folder / "below")

    def test_long_documents_are_told(self):
        data = self.folder / "lines.jsonl"
        data.write_text("".join(json.dumps({"text": text}) + "\n" for text in (TEXT, "short", TEXT)))
        args = ("train", "-m", str(TINY), "--data", str(data), *SMALL, "--iters", "1", "--json")
        for how, words in (("truncate", "2 documents cut to 16 tokens, losing "), ("split", "2 documents split")):
            result = self.ok(*args, "-o", str(self.folder / how), "--long-documents", how)
            self.assertIn(words, result.stderr)
            self.assertEqual(json.loads(result.stdout)["data"][how.replace("truncate", "truncated")], 2)
        quiet = self.ok(*args, "-o", str(self.folder / "quiet"), "--long-documents", "split", "-q")
        self.assertEqual(quiet.stderr, "")

    def test_remarks(self):
        (self.folder / "text.txt").write_text(TEXT * 40)
        args = (*self.args, "--batch-size", "1", "--rank", "2", "--targets", "q_proj", "--iters", "1")
        said = self.ok(*args, "--sequence-length", "2200", "-q", "-t", str(os.cpu_count() + 1)).stderr
        self.assertIn("2200 tokens go beyond the context of 2048", said)
        self.assertIn(f"{os.cpu_count() + 1} threads on ", said)
        self.args = (*self.args[:-1], str(self.folder / "other"))
        said = self.ok(*self.args, *SMALL, "--targets", "q_proj", "--iters", "1", "-v").stderr
        self.assertRegex(said, r"kernels; 2 threads; \d+ allowed CPUs")

    def ranks(self, *args, code=0):
        """The program as two processes of one training."""
        result = subprocess.run(["mpirun", "-n", "2", "--oversubscribe", BINARY, *args], capture_output=True, text=True,
                                timeout=120, check=False,
                                env=environment(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1"))
        self.assertEqual(result.returncode, code, result.stderr)
        return result

    @unittest.skipUnless(shutil.which("mpirun"), "mpirun is not installed")
    def test_two_ranks_are_one_with_twice_the_batch(self):
        # Exact: operands rounded to bf16 would turn differences of the last bit into some of 2^-8.
        args = ("train", "-m", str(TINY), "--data", str(self.folder / "text.txt"), "--sequence-length", "16",
                "--iters", "3", "--lr", "1e-3", "-q", "-t", "1", "--compute", "exact")
        ranks, lora = ("--rank-every", "3"), ("lora", "--rank", "2")
        for name, method in (("lora", (*lora, *ranks)), ("dora", (*lora, "--dora")), ("full", ("full", *ranks))):
            with self.subTest(method=name):
                self.run_folder = self.folder / name
                self.ok(*args, "-o", str(self.run_folder), "--batch-size", "4", "--method", *method)
                whole = self.lines()
                spectra = self.lines("ranks.jsonl") if ranks[0] in method else None
                self.run_folder = self.folder / f"{name}-ranks"
                shared = (*args, "-o", str(self.run_folder), "--batch-size", "2", "--method", *method)
                self.ranks(*shared)
                together = self.lines()
                self.assertEqual([line["tokens"] for line in together], [line["tokens"] for line in whole])
                for one, two in zip(whole, together, strict=True):
                    # Sums of a few hundred f32 terms in another order.
                    self.assertAlmostEqual(two["loss"], one["loss"], delta=1e-6)
                    self.assertAlmostEqual(two["grad_norm"] / one["grad_norm"], 1, delta=1e-5)
                if spectra is not None:  # Adam's steps are signs at first, which such sums may turn
                    for one, two in zip(spectra, self.lines("ranks.jsonl"), strict=True):
                        self.assertAlmostEqual(two["update_cosine"], one["update_cosine"], delta=1e-3)
                self.assertIn("holds a run already", self.ranks(*shared, code=1).stderr)
                self.ranks(*shared, "--resume")

    def test_set_blocks(self):
        """--method sbd is full training; on adapters it is an objective."""
        args = (*SHORT, "--iters", "2", "--valid-fraction", "0.3", "--json", "-q")
        for method, output, config in (("sbd", "model", "config.json"),
                                       ("lora", "adapter", "adapter_config.json")):
            self.args = (*self.args[:-1], str(self.folder / method))
            objective = ("--objective", "sbd") if method == "lora" else ()
            document = json.loads(self.ok(*self.args, *args, "--method", method, *objective).stdout)
            self.assertEqual((document["method"], document["objective"]), (method, "sbd"))
            self.assertLessEqual({"ntp_loss", "matp_loss", "valid_ntp_loss", "valid_matp_loss"}, set(document))
            made = json.loads((self.folder / method / output / config).read_text())
            self.assertEqual(made["set_block"], {"mask_token_id": 4, "block_min": 2, "block_max": 16})
        self.ok("score", "-m", str(self.folder / "sbd/model"), "--ids", "2,17,300,41",
                "--adapter", str(self.folder / "lora/adapter"), "-q")
        lines = self.ok(*self.args[:-1], str(self.folder / "shown"), *SHORT, "--iters", "1", "--method", "sbd").stderr
        self.assertRegex(lines, r"loss [\d.]+ \(next [\d.]+, masked [\d.]+\)")

    @unittest.skipUnless(shutil.which("mpirun"), "mpirun is not installed")
    def test_two_ranks_mask_what_one_does(self):
        args = ("train", "-m", str(TINY), "--data", str(self.folder / "text.txt"), "--sequence-length", "16",
                "--iters", "2", "--method", "sbd", "--valid-fraction", "0.3", "-q", "-t", "1", "--compute", "exact")
        self.ok(*args, "-o", str(self.run_folder), "--batch-size", "4")
        whole = self.lines()
        self.run_folder = self.folder / "ranks"
        self.ranks(*args, "-o", str(self.run_folder), "--batch-size", "2")
        for one, two in zip(whole, self.lines(), strict=True):
            self.assertEqual((one["block_size"], one["masked_share"]), (two["block_size"], two["masked_share"]))
            for key in ("ntp_loss", "matp_loss", "valid_ntp_loss", "valid_matp_loss"):
                self.assertEqual(key in one, key in two)
                if key in one:  # sums of a few hundred f32 terms in another order
                    self.assertAlmostEqual(two[key], one[key], delta=1e-5)

    def test_refused(self):
        self.refused(2, "--dropout", *self.args, "--dropout", "1")
        for method, *flags in (("full", "--targets", "q_proj"), ("full", "--last-layers", "1"), ("full", "--dropout", "0.5"),
                               ("sbd", "--dropout", "0.5"), ("rank1", "--dropout", "0.5"), ("lora", "--train-embeddings"),
                               ("full", "--train-norms"), ("lora", "--warm-start", "4"), ("lora", "--reset-every", "4"),
                               ("lora", "--merge-every", "2"), ("full", "--prune", "0.5"),
                               ("relora", "--reset-optimizer"), ("lora", "--directions", "top")):
            self.refused(2, f"{flags[0]}: is of --method ", *self.args, "--method", method, *flags)
        for flag, *others in (("--rank", "4", "--method", "full"), ("--alpha", "3", "--method", "full"),
                              ("--rslora", "--method", "rank1"), ("--min-lr-ratio", "0", "--schedule", "constant"),
                              ("--reset-warmup", "1", "--method", "relora", "--reset-every", "2", "--schedule", "cosine"),
                              ("--beta1", "0.5", "--optimizer", "sgd"), ("--beta2", "0.5", "--optimizer", "sgd"),
                              ("--eps", "1", "--optimizer", "sgd"), ("--momentum", "0.5"), ("--block-min", "2"),
                              ("--block-max", "16", "--objective", "next"), ("--mask-token", "<mask>")):
            self.refused(2, f"{flag}: is of --", *self.args, flag, *others)
        self.refused(2, "--output: is empty", *self.args[:-1], "")
        self.assertFalse(self.run_folder.exists())
        self.refused(2, "does not divide", *self.args, "--batch-size", "4", "--micro-batch", "3")
        self.refused(2, "fits none of", *self.args, "--targets", "qproj")
        self.refused(2, "--reset-every", *self.args, "--method", "relora")
        for share in ("1.5", "-0.1", "nan"):
            self.refused(2, f"--prune: {share}", *self.args, "--method", "relora", "--reset-every", "2", "--reset-warmup", "1",
                         "--iters", "4", "--prune", share)
        self.refused(2, "--rank-every", *self.args, "--rank-every", "-1")
        self.refused(2, "--block-max", *self.args, "--method", "sbd", "--block-max", "65")
        self.refused(2, "--block-min", *self.args, "--method", "sbd", "--block-min", "0")
        self.refused(2, "is of --objective sbd", *self.args, "--block-max", "8")
        self.refused(2, "--objective next", *self.args, "--method", "sbd", "--objective", "next")
        for mask in ("1", "<eos>", "<bos>", "<pad>", "<end_of_turn>"):
            self.refused(2, f"--mask-token: {mask} begins, ends", *self.args, "--method", "sbd", "--mask-token", mask)
        self.refused(1, "has no '<blank>'", *self.args, "--method", "sbd", "--mask-token", "<blank>")
        self.refused(1, "nope", "train", "-m", str(TINY), "--data", "/nope", "-o", str(self.folder / "other"))


if __name__ == "__main__":
    main()
