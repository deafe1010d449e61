#!/usr/bin/env python3
"""isolate from outside."""
import html.parser
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
import unittest

from program import BINARY, SOURCE, TINY, Case, environment, main, needs_model

EXAMPLE = SOURCE / "data/isolation/food_001_bakery.json"
TOKENIZERS = pathlib.Path(BINARY).parent.parent / "tokenizers"
EMBEDDER = SOURCE / "tests/golden/embedding-gemma"
# The original study's example, which is not ours to pass on.
ORIGINAL = os.environ.get("LAPIDARY_RDIC_EXAMPLE", "")


@needs_model
class Isolate(Case):
    def test_plan(self):
        plan = json.loads(self.ok("isolate", "plan", str(EXAMPLE), "--json", "-q").stdout)
        self.assertEqual(plan["example"], "food_001_bakery")
        self.assertEqual(list(plan["conditions"]), ["sequential", "prompted", "turn_based", "semantic"])
        caches = plan["conditions"]["semantic"]["caches"]
        self.assertEqual(list(caches), ["cluster_1", "cluster_2", "cluster_3"])
        self.assertEqual(plan["conditions"]["semantic"]["messages"], {"cluster_3": ["A", "B"]})
        # The parts and the whole: each part has a <bos>, and blank lines come between.
        whole = plan["conditions"]["sequential"]["caches"]["all"]
        self.assertLess(abs(sum(caches.values()) - whole), 20)
        text = self.ok("isolate", "plan", str(SOURCE / "data/isolation"), "-q").stdout
        self.assertLessEqual(max(map(len, text.splitlines())), 120)
        self.refused(2, "condition 'x' does not exist", "isolate", "plan", str(EXAMPLE), "--conditions", "x")
        self.refused(2, "semantic comes twice", "isolate", "plan", str(EXAMPLE), "--conditions", "semantic,mask,semantic")
        self.refused(1, "/nope.json", "isolate", "plan", "/nope.json")
        empty = self.folder / "empty"
        empty.mkdir()
        self.refused(1, "has no example", "isolate", "plan", str(empty))

    def test_plan_marks_what_does_not_fit(self):
        run = ("isolate", "plan", str(EXAMPLE), "--conditions", "sequential,semantic", "-q")
        self.assertNotIn("does not fit", self.ok(*run, "-n", "20").stdout)
        lines = self.ok(*run, "-n", "1500").stdout.splitlines()
        self.assertRegex(lines[2], r"does not fit: output \S+ needs \d+ positions of 2048, -n 1500 included")
        plan = json.loads(self.ok(*run, "-n", "1500", "--json").stdout)
        self.assertEqual(plan["positions"], 2048)
        self.assertTrue(all(o["needed"] > 2048 for o in plan["too_long"]))
        self.assertIn("sequential", {o["condition"] for o in plan["too_long"]})

    def test_text_fields_widen(self):
        example = json.loads(self.small().read_text())
        example["total_turns"] = 3
        example["semantic_clusters"]["cluster_1"]["turns"].append(3)
        example["turns"].append({"turn_id": 3, "cluster": 1, "query": "How many masts has the ship?"})
        file = self.folder / "query.json"
        file.write_text(json.dumps(example))
        plan = ("isolate", "plan", str(file), "--json", "--conditions", "sequential")
        without, wider = (json.loads(self.ok(*plan, *more).stdout) for more in ((), ("--text-fields", "query")))
        self.assertEqual((len(without["warnings"]), wider["warnings"]), (1, []))
        # The other turns are there still.
        self.assertGreater(*(p["conditions"]["sequential"]["caches"]["all"] for p in (wider, without)))
        self.refused(2, "--text-fields", *plan, "--text-fields", "contents")

    def test_unfinished_and_empty(self):
        def report(*more):
            return self.ok("isolate", "report", str(self.folder / "run"), *more)
        self.ok("isolate", "run", str(self.small()), "-o", str(self.folder / "run"), "-n", "4", "-q", "--conditions",
                "sequential,semantic")
        whole = report("--json")
        self.assertEqual(whole.stderr, "")
        result = json.loads(whole.stdout)
        self.assertEqual((result["finished"], result["empty_outputs"]), (True, []))
        self.assertEqual(set(result["costs"]), {"sequential", "semantic"})
        self.assertEqual(result["costs"]["semantic"]["decoded"],
                         sum(len(o["tokens"]) for o in result["outputs"] if o["condition"] == "semantic"))
        page = (self.folder / "run/report.html").read_text()
        self.assertIn("No difference was tested", page)  # of one example
        lines = (self.folder / "run/outputs.jsonl").read_text().splitlines(True)
        empty = json.loads(lines[0]) | {"text": " \n"}
        (self.folder / "run/outputs.jsonl").write_text(json.dumps(empty) + "\n" + "".join(lines[1:3]))
        changed = report("--json")
        self.assertIn("unfinished: 3 of 4 outputs", changed.stderr)
        self.assertIn(f"small: {empty['condition']}, output {empty['name']} has no text", changed.stderr)
        result = json.loads(changed.stdout)
        self.assertEqual((result["finished"], result["outputs_planned"]), (False, 4))
        self.assertEqual(result["empty_outputs"], [{k: empty[k] for k in ("example", "condition", "name")}])
        report()
        page = (self.folder / "run/report.html").read_text()
        self.assertIn("3 of 4 (unfinished), of which 1 without text", page)

    def test_check(self):
        data = SOURCE / "data/isolation"
        lines = self.ok("isolate", "check", str(data)).stdout.splitlines()
        self.assertEqual(len(lines), len(list(data.glob("*.json"))) - 1)
        self.assertIn(f"{EXAMPLE}: well, 3 clusters, 11 turns, 6 questions", lines)
        good = json.loads(EXAMPLE.read_text())
        wrong = self.folder / "wrong.json"
        wrong.write_text(json.dumps(good | {"id": "other", "total_turns": 7}))
        twice = self.folder / "twice.json"
        twice.write_text(json.dumps(good))
        bare = self.folder / "bare.json"
        turns = [{k: v for k, v in turn.items() if k not in ("instruction", "content") or turn["cluster"] != 2}
                 for turn in good["turns"]]
        bare.write_text(json.dumps(good | {"id": "bare", "turns": turns}))
        result = self.run_it("isolate", "check", str(EXAMPLE), str(wrong), str(twice), str(bare), "/nope.json", "--json")
        self.assertEqual(result.returncode, 1)
        found = json.loads(result.stdout)
        self.assertEqual(found["wrong"], 4)
        self.assertEqual([file["ok"] for file in found["files"]], [True, False, False, False, False])
        errors = [file.get("error", "") for file in found["files"]]
        self.assertEqual(errors[1], f"{wrong}: field 'total_turns': is 7, there are 11 turns")
        self.assertEqual(errors[2], f"{twice}: the id 'food_001_bakery' is that of {EXAMPLE} too")
        self.assertEqual(errors[3], f"{bare}: bare: cluster_2 has no turn with text")
        self.assertTrue(errors[4].startswith("/nope.json: "), errors[4])
        text = self.run_it("isolate", "check", str(EXAMPLE), str(wrong))
        self.assertEqual((text.returncode, text.stdout.splitlines()[1]), (1, errors[1]))

    def test_data_satisfies_its_schema(self):
        import jsonschema  # python3-jsonschema, of tools/setup.sh test
        schema = json.loads((SOURCE / "data/isolation/schema.json").read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema)
        for file in sorted((SOURCE / "data/isolation").glob("*_*.json")):
            with self.subTest(file.name):
                self.assertEqual([e.message for e in validator.iter_errors(json.loads(file.read_text()))], [])
        # The schema is one that can be broken, and the program agrees with it.
        for change in ({"id": "a b"}, {"extra": 1}, {"turns": []}, {"semantic_clusters": {"cluster_0": {}}},
                       {"messages": [{"from": "cluster_1"}]}, {"domain": None}):
            with self.subTest(change=change):
                changed = json.loads(EXAMPLE.read_text()) | change
                self.assertFalse(validator.is_valid(changed))
                file = self.folder / "changed.json"
                file.write_text(json.dumps(changed))
                self.assertEqual(self.run_it("isolate", "check", str(file)).returncode, 1)

    @unittest.skipUnless(ORIGINAL, "LAPIDARY_RDIC_EXAMPLE does not name the original example")
    def test_published_sizes(self):
        for tokenizer, long in (("gemma3", (1088, 1104, 1185)), ("gemma2", (1087, 1103, 1184))):
            folder = TOKENIZERS / tokenizer
            if not folder.exists():
                self.skipTest(f"{folder} is not there")
            result = self.ok("isolate", "plan", ORIGINAL, "-m", str(folder), "--json")
            plan = json.loads(result.stdout)
            sizes = {name: list(c["caches"].values()) for name, c in plan["conditions"].items()}
            self.assertEqual((*sizes["sequential"], *sizes["prompted"], *sizes["turn_based"]), long)
            self.assertEqual(sizes["semantic"][:2], [419, 452])
            self.assertEqual(len(plan["warnings"]), 1)
            self.assertIn("turn 15 has no instruction or content, only query", plan["warnings"][0])

    def run_once(self, name, *more):
        return self.ok("isolate", "run", str(EXAMPLE), "-o", str(self.folder / name), "-n", "16", "-q", *more)

    def test_run_and_report(self):
        result = json.loads(self.run_once("run", "--json", "--conditions", "sequential,semantic,mask").stdout)
        self.assertEqual(result["example"], "food_001_bakery")
        plan = result["conditions"]["semantic"]["outputs"]
        self.assertEqual(len(result["outputs"]), 3 * len(plan))
        for output in result["outputs"]:
            self.assertLessEqual(len(output["tokens"]), 16)
            self.assertIn("words", output["measures"])
        named = {(m["group"], m["measure"], m["condition"]) for m in result["metrics"]}
        for measure in ("leak_nats", "contamination", "expected_nll", "rougeL", "bleu", "chrf", "similarity"):
            self.assertIn(("outputs", measure, "sequential"), named)
        self.assertIn(("synthesis", "coverage", "semantic"), named)
        self.assertEqual({s["b"] for s in result["statistics"]}, {"sequential", "mask"})
        self.assertGreater(result["seconds"], 0)
        again = json.loads(self.ok("isolate", "report", str(self.folder / "run"), "--json").stdout)
        self.assertEqual(again["metrics"], result["metrics"])
        page = (self.folder / "run/report.html").read_text()
        html.parser.HTMLParser().feed(page)
        for word in ("Which tokens live in which cache", "Messages", "Time line", "food_001_bakery"):
            self.assertIn(word, page)
        both = self.folder / "both.html"
        self.ok("isolate", "report", str(self.folder / "run"), str(self.folder / "run"), "-o", str(both))
        self.assertEqual(both.read_text().count("<td>semantic</td>"), 2)
        self.refused(1, "there is no run", "isolate", "report", str(self.folder))

    def test_text(self):
        text = self.run_once("text").stdout
        self.assertLessEqual(max(map(len, text.splitlines()[:-1])), 80)
        self.assertIn("leak into the outputs", text)

    def test_clusters_auto(self):
        result = json.loads(self.run_once("auto", "--json", "--clusters", "auto", "--conditions", "semantic",
                                          "--no-questions").stdout)
        self.assertTrue(any(name.startswith("found_") for name in result["conditions"]["semantic"]["caches"]))
        run = json.loads((self.folder / "auto/run.json").read_text())
        self.assertEqual(run["clusters"], {"method": "agglomerative", "layer": 5, "number": "by silhouette"})
        self.assertEqual((run["adapters"], run["end_tokens"][0]), ([], 1))
        page = (self.folder / "auto/report.html").read_text()
        for words in ("found: agglomerative, layer 5, number by silhouette", "neutral", "instruction, content"):
            self.assertIn(words, page)
        self.refused(2, "--layer: only with --clusters auto", "isolate", "run", str(EXAMPLE), "-o",
                     str(self.folder / "given"), "--layer", "2")

    def test_another_end_of_answers_is_another_run(self):
        model = self.folder / "model"
        shutil.copytree(TINY, model)
        run = ("isolate", "run", str(self.small()), "-o", str(self.folder / "ends"), "-m", str(model), "-n", "4", "-q",
               "--conditions", "semantic")
        self.ok(*run)
        file = model / "generation_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": [1, 7]}))
        self.refused(1, "end_tokens: ", *run)

    def test_killed_and_resumed(self):
        def outputs(name):
            lines = (self.folder / name / "outputs.jsonl").read_text().splitlines()
            return {(r["condition"], r["name"]): r["tokens"] for r in map(json.loads, lines)}
        self.run_once("whole")
        command = (BINARY, "isolate", "run", str(EXAMPLE), "-o", str(self.folder / "killed"), "-n", "16", "-q",
                   "--parallel", "2")
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
        lines = self.folder / "killed/outputs.jsonl"
        deadline = time.time() + 60
        while time.time() < deadline and not (lines.exists() and lines.stat().st_size > 0):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.run_once("killed")
        self.assertEqual(outputs("killed"), outputs("whole"))
        self.refused(1, "max_tokens: 16 then, 17 now", "isolate", "run", str(EXAMPLE), "-o",
                     str(self.folder / "killed"), "-n", "17")

    def test_too_long(self):
        """What is refused leaves no folder, which the right command would be refused for."""
        run = ("isolate", "run", str(self.small()), "-o", str(self.folder / "run"), "-q")
        for code, words, args in ((1, "more than the 2048 there are", ("-n", "2100")),
                                  (2, "temp", ("--temp", "-1")), (2, "top-p", ("--top-p", "7"))):
            self.refused(code, words, *run, *args)
            self.assertFalse((self.folder / "run").exists())
        long = json.loads(self.small().read_text())
        long["semantic_clusters"]["cluster_1"]["expected_output"] = "zq" * 2000
        file = self.folder / "long.json"
        file.write_text(json.dumps(long))
        self.refused(1, "small: semantic, output A: expected_nll reads", "isolate", "run", str(file), "-o",
                     str(self.folder / "run"), "-n", "8", "--conditions", "semantic")
        self.assertFalse((self.folder / "run").exists())
        self.ok(*run, "-n", "8", "--conditions", "semantic")

    def test_similarity_model(self):
        longer = ("isolate", "run", str(self.small()), "-o", str(self.folder / "similar"), "-q",
                  "--conditions", "sequential,semantic", "-n")
        run = (*longer, "8")
        result = json.loads(self.ok(*run, "--similarity-model", str(EMBEDDER), "--json").stdout)
        values = [o["measures"]["similarity"] for o in result["outputs"] if "similarity" in o["measures"]]
        self.assertTrue(values and all(-1 <= v <= 1 for v in values))
        about = json.loads((self.folder / "similar/run.json").read_text())
        self.assertEqual(about["similarity_model"], "embedding-gemma")
        self.assertIn("embedding-gemma", (self.folder / "similar/report.html").read_text())
        self.ok(*run, "--similarity-model", str(EMBEDDER))
        self.refused(1, 'similarity_model: "embedding-gemma" then, null now', *run)
        self.refused(1, "no modules.json", *run, "--similarity-model", str(TINY))
        self.refused(2, "reads 2014 beside its prompt", *longer, "2015", "--similarity-model", str(EMBEDDER))

    def test_an_embedding_model_continues_no_text(self):
        run = self.folder / "none"
        for words in (("generate", "-p", "x"), ("score", "-p", "x"), ("perplexity",), ("chat", "-p", "x"),
                      ("isolate", "run", str(EXAMPLE), "-o", str(run)), ("bench", "-p", "4", "-n", "4")):
            self.refused(1, "field 'use_bidirectional_attention': true", *words, "-m", str(EMBEDDER))
        self.assertFalse(run.exists())
        for words in (("convert", str(EMBEDDER), "-o", str(run), "--bits", "4"),
                      ("convert", str(EMBEDDER), "-o", f"{run}.gguf"),
                      ("quantize", str(EMBEDDER), "-o", str(run), "--bits", "4")):
            self.refused(1, "field 'use_bidirectional_attention': true", *words)
        shown = json.loads(self.ok("show", "-m", str(EMBEDDER), "--json").stdout)
        self.assertTrue(shown["use_bidirectional_attention"])
        self.assertEqual(shown["memory"]["kv_cache"], 0)
        self.assertIn("in both directions", self.ok("show", "-m", str(EMBEDDER)).stdout)

    def small(self):
        """An example whose texts are short."""
        file = self.folder / "small.json"
        turn = {"turn_id": 1, "cluster": 1, "content": "The ship has two masts."}
        file.write_text(json.dumps({
            "id": "small", "domain": "test", "total_turns": 2, "topics": "ships and bread",
            "semantic_clusters": {
                "cluster_1": {"task_type": "a", "focus_area": "ships", "turns": [1], "terminology": ["mast"],
                              "expected_output": "Two masts."},
                "cluster_2": {"task_type": "b", "focus_area": "bread", "turns": [2], "terminology": ["oven"]}},
            "turns": [turn, {"turn_id": 2, "cluster": 2, "content": "Bake the bread."}]}))
        return file

    def test_prove(self):
        result = json.loads(self.ok("isolate", "prove", str(EXAMPLE), "-n", "60", "--json", "-q").stdout)
        self.assertEqual(len(result["checks"]), 6)
        self.assertTrue(all(check["holds"] for check in result["checks"]))
        text = self.ok("isolate", "prove", str(EXAMPLE), "-n", "60", "--compute", "exact").stdout
        self.assertEqual(text.count("holds"), 6)
        self.refused(2, "-n: 1 given", "isolate", "prove", str(EXAMPLE), "-n", "1")
        long = json.loads(self.small().read_text())
        long["turns"][1]["content"] = "Bake the bread, and bake more. " * 400
        file = self.folder / "long.json"
        file.write_text(json.dumps(long))
        self.refused(1, "small: cluster 2 needs ", "isolate", "prove", str(file), "-q")
        long["turns"][0]["content"] = long["turns"][1]["content"] = "Bake the bread, and bake more. " * 150
        file.write_text(json.dumps(long))
        self.refused(1, "small: the control's first two clusters need ", "isolate", "prove", str(file), "-q")

    def test_cluster(self):
        result = json.loads(self.ok("isolate", "cluster", str(EXAMPLE), "--json", "-q", "--route",
                                    "The oven must be hot before the dough goes in.").stdout)
        self.assertGreaterEqual(result["clusters"], 2)
        self.assertLessEqual(result["adjusted_rand_index"], 1)
        self.assertIn(result["route"]["cluster"], range(1, result["clusters"] + 1))
        self.assertEqual(len(result["silhouettes"]), min(6, len(result["labels"]) - 1) - 1)
        self.refused(2, "layer: 99 given", "isolate", "cluster", str(EXAMPLE), "--layer", "99")
        self.refused(1, "small: has 2 turns with text, 9 clusters were asked for", "isolate", "cluster", str(self.small()),
                     "--number", "9")
        self.refused(2, "--route: the turn is empty", "isolate", "cluster", str(EXAMPLE), "--route", "")
        long = json.loads(self.small().read_text())
        long["turns"][1]["content"] = "Bake the bread, and bake more. " * 400
        file = self.folder / "long.json"
        file.write_text(json.dumps(long))
        self.refused(1, "small: turn 2: ", "isolate", "cluster", str(file))

    def test_cluster_by_an_embedding_model(self):
        cluster = ("isolate", "cluster", str(EXAMPLE), "--embedding-model", str(EMBEDDER))
        result = self.ok(*cluster, "--json")
        self.assertNotIn("built-in model", result.stderr)  # none is loaded
        found = json.loads(result.stdout)
        self.assertIsNone(found["layer"])
        self.assertGreaterEqual(found["clusters"], 2)
        self.refused(2, "--layer", *cluster, "--layer", "2")
        self.refused(1, "use_bidirectional_attention", "isolate", "cluster", str(EXAMPLE), "-m", str(EMBEDDER))


if __name__ == "__main__":
    main()
