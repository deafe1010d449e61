#!/usr/bin/env python3
"""tune and the settings it writes, experiments, and the studies of memory and architecture, from outside."""
import json
import os
import pty
import re
import select
import time

from program import BINARY, SOURCE, TINY, Case, main, needs_model


@needs_model
class Settings(Case):
    def setUp(self):
        super().setUp()
        del self.env["LAPIDARY_SETTINGS"], self.env["LAPIDARY_THREADS"]
        self.env["XDG_CONFIG_HOME"] = str(self.folder / "config")
        self.file = self.folder / "config/lapidary/settings.json"

    def tune(self, *args):
        return self.ok("tune", "-m", str(TINY), "-r", "1", "-p", "16", "-n", "1", "-d", "4", *args)

    def rewrite(self, change):
        settings = json.loads(self.file.read_text())
        change(settings)
        self.file.write_text(json.dumps(settings))

    def workspace(self, *args, **kwargs):
        return json.loads(self.ok("show", "--json", *args, **kwargs).stdout)["memory"]["workspace"]

    def threads(self, *args, **kwargs):
        said = self.ok("score", "--ids", "2,17,30", "-v", *args, **kwargs).stderr
        return re.search(r"(\d+) threads to decode, (\d+) for prompts", said).groups()

    def test_writes_what_it_measured(self):
        printed = json.loads(self.tune("--json").stdout)
        self.assertEqual(json.loads(self.file.read_text()), printed)
        self.assertEqual(set(printed["settings"]), {"isa", "threads", "threads_batch", "chunk", "kv_type"})
        self.assertEqual(set(printed["why"]), set(printed["settings"]))
        self.assertTrue(printed["machine"]["cpu"])
        for setting in printed["measurements"]:
            self.assertIn(str(printed["settings"][setting["setting"]]), [v["value"] for v in setting["values"]])
        text = self.tune("--dry-run", "-o", str(self.folder / "other.json")).stdout
        self.assertFalse((self.folder / "other.json").exists())
        for setting in printed["settings"]:
            self.assertIn(setting, text)

    def test_others_go_by_it(self):
        self.tune()
        self.rewrite(lambda s: s["settings"].update(threads=1, threads_batch=1, chunk=16, kv_type="q8"))
        self.assertEqual(self.threads(), ("1", "1"))
        self.assertEqual(self.threads("-t", "2"), ("2", "2"))
        self.assertEqual(self.threads(env={"LAPIDARY_THREADS": "2"}), ("2", "2"))
        small, usual = self.workspace(), self.workspace("--settings", "none")
        self.assertLess(small, usual - 1_000_000)
        self.assertGreater(self.workspace(env={"LAPIDARY_SETTINGS": "none"}), small + 1_000_000)
        self.assertGreater(self.workspace("--chunk", "256"), small + 1_000_000)
        kv = [json.loads(self.ok("show", "--json", "-c", "1024", *flags).stdout)["memory"]["kv_cache"]
              for flags in ([], ["--kv-type", "bf16"], ["--compute", "exact"])]
        self.assertLess(kv[0], kv[1])
        self.assertEqual(kv[2], 2 * kv[1])  # exact is f32, whatever the file says

    def test_is_not_used_on_another_machine(self):
        self.tune()
        self.rewrite(lambda s: (s["machine"].update(cpus=999), s["settings"].update(chunk=16)))
        result = self.ok("show", "--json")
        self.assertIn("another machine (cpus: 999 there", result.stderr)
        self.assertGreater(json.loads(result.stdout)["memory"]["workspace"], self.workspace("--chunk", "16") + 1_000_000)
        self.refused(1, "another machine", "show", "--settings", str(self.file))

    def test_says_what_is_wrong_with_it(self):
        self.tune()
        self.rewrite(lambda s: s["settings"].update(kv_type="q3"))
        self.refused(1, "field 'kv_type': expected f32, bf16, q8 or q4, found 'q3'", "show")
        self.rewrite(lambda s: s["settings"].update(kv_type="q8", isa="mmx"))
        self.refused(1, "field 'isa'", "show")
        self.rewrite(lambda s: s["settings"].update(isa="ref", threads=-1))
        self.refused(1, "field 'threads'", "show")
        self.file.write_text("{")
        self.refused(1, str(self.file), "show")
        self.ok("show", "--settings", "none")
        self.refused(1, "/nowhere", "show", "--settings", "/nowhere/settings.json")

    def test_refuses(self):
        self.refused(2, "-r", "tune", "-r", "0")
        self.refused(1, "/nowhere", "tune", "-m", "/nowhere")
        # The place of the settings comes before the measuring.
        self.refused(1, "/dev/null/x", "tune", "-m", "/nowhere", "-o", "/dev/null/x/settings.json")


@needs_model
class Memory(Case):
    def test_measures_and_writes_a_page(self):
        out = self.folder / "memory"
        text = self.ok("study", "memory", "-p", "100", "-n", "8", "-c", "512", "-o", str(out)).stdout
        self.assertIn("keys and values of 512 positions in q4", text)
        figures = json.loads((out / "memory.json").read_text())
        self.assertEqual([p["name"] for p in figures["generation"]["phases"]], ["load", "prefill", "decode"])
        for p in figures["generation"]["phases"]:
            self.assertEqual(p["measured"]["total"], sum(v for k, v in p["measured"].items() if k != "total"))
        self.assertIn("reportCharts = [", (out / "report.html").read_text())
        self.assertLess((out / "report.html").stat().st_size, 1_000_000)
        self.refused(2, "is there already", "study", "memory", "-o", str(out))
        study = ("study", "memory", "-p", "4", "-n", "0", "--cache-types", "bf16", "--json")
        self.refused(1, "99999 positions asked for", *study, "-c", "99999")
        self.refused(2, "--train", *study, "--iters", "2")

    def test_trains(self):
        text = self.folder / "text.txt"
        text.write_text("To be, or not to be, that is the question. " * 40)
        for method in ("lora", "relora", "rank1"):
            figures = json.loads(self.ok(
                "study", "memory", "-p", "10", "-n", "0", "-c", "256", "--cache-types", "bf16", "--train", str(text),
                "--method", method, "--sequence-length", "64", "--iters", "2", "--json", cwd=self.folder).stdout)
            self.assertEqual([g["type"] for g in figures["kv_growth"]], ["bf16"])
            phases = figures["training"]["phases"]
            self.assertEqual([p["name"] for p in phases], ["before", "forward", "backward", "optimizer", "later steps"])
            forecast = figures["training"]["forecast"]
            for part in ("trained", "optimizer"):
                self.assertAlmostEqual(phases[-1]["measured"][part] / forecast[part], 1, delta=0.1, msg=(method, part))
        self.assertEqual([p.name for p in self.folder.iterdir()], ["text.txt"])  # the run is gone

    def test_refuses(self):
        self.refused(2, "--cache-types", "study", "memory", "--cache-types", "q5")
        self.refused(1, "/nowhere", "study", "memory", "--train", "/nowhere", "-o", str(self.folder / "m"))
        self.assertEqual(list(self.folder.iterdir()), [])


@needs_model
class Architecture(Case):
    def test_draws_the_model(self):
        out = self.folder / "drawing"
        text = self.ok("study", "architecture", "-o", str(out)).stdout
        figures = json.loads((out / "architecture.json").read_text())
        shown = json.loads(self.ok("show", "--json").stdout)
        self.assertEqual(figures["parameters"], shown["parameters"])
        self.assertEqual(["full" if not l["sliding"] else "sliding" for l in figures["layers"]], shown["layer_types"])
        self.assertIn(f"{figures['parameters']:,}", text)
        self.assertIn("modelArchitecture = {", (out / "report.html").read_text())
        self.refused(2, "is there already", "study", "architecture", "-o", str(out))
        self.refused(1, "/nowhere", "study", "architecture", "-m", "/nowhere", "--json")


class Experiments(Case):
    def listed(self):
        return json.loads(self.ok("experiments", "--json").stdout)["experiments"]

    def test_the_guide_has_the_table(self):
        guide = (SOURCE / "docs/study.md").read_text()
        rows = [f"| `{e['name']}` | {e['question']} | {e['time']} |" for e in self.listed()]
        found = [line for line in guide.splitlines() if re.match(r"\| `[a-z0-9-]+` \| [A-Z].*\? .*\|.*; .*\|$", line)]
        self.assertEqual(found, rows)

    def test_lists(self):
        text = self.ok("experiments", "--list").stdout
        self.assertEqual(self.ok("experiments").stdout, text)  # no terminal
        for e in self.listed():
            self.assertIn(e["name"], text)
            self.assertIn(e["question"].split()[0], text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)

    def test_commands_are_those_of_the_verbs(self):
        for e in self.listed():
            for line in self.ok("experiments", e["name"], "--commands", "-m", str(TINY)).stdout.splitlines():
                self.assertNotIn("$", line)
                words = line.split()[1:]
                verb = words[:2] if words[0] in ("study", "isolate") or words[1] in ("curve", "decode", "kernels", "limits") else words[:1]
                known = self.ok("help", *verb).stdout
                for flag in re.findall(r" (--?[a-z][a-z0-9-]*)", " " + " ".join(words[len(verb):])):
                    self.assertRegex(known, rf"(^|[ ,]){flag}[ ,\n]", (e["name"], flag))

    def test_refuses(self):
        self.refused(2, "'nothing' is no experiment", "experiments", "nothing")
        self.refused(2, "--commands", "experiments", "--commands")
        self.refused(2, "--list", "experiments", "architecture", "--list", "-o", str(self.folder / "runs"))
        self.refused(1, "/nowhere", "experiments", "layers", "-m", "/nowhere", "-o", str(self.folder / "runs"))

    @needs_model
    def test_runs_and_remembers(self):
        out = self.folder / "runs"
        result = self.ok("experiments", "architecture", "layers", "-m", str(TINY), "-o", str(out))
        self.assertIn("[2 of 2] layers", result.stderr)
        self.assertIn("$ lapidary study layers", result.stderr)
        for name in ("architecture", "layers"):
            self.assertTrue((out / name / "report.html").exists())
            self.assertRegex(result.stdout, rf"{name} +done in .*{name}/report.html")
        again = json.loads(self.ok("experiments", "architecture", "-m", str(TINY), "-o", str(out), "--json").stdout)
        self.assertEqual([run["folder"] for run in again["runs"]], [str(out / "architecture-2")])
        remembered = json.loads((out / "runs.json").read_text())
        self.assertEqual([run["name"] for run in remembered], ["architecture", "layers"])

    @needs_model
    def test_a_failure_is_said_and_does_not_stop_the_rest(self):
        out = self.folder / "runs"
        empty = self.folder / "empty.txt"
        empty.write_text("")
        result = self.run_it("experiments", "layers", "architecture", "-m", str(TINY), "-o", str(out), "--text", str(empty))
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stdout, r"layers +failed, exit code 1")
        self.assertRegex(result.stdout, r"architecture +done in")

    @needs_model
    def test_menu(self):
        """In a terminal of 80 x 24: the list, a run, its outcome, the end."""
        out = self.folder / "runs"
        pid, fd = pty.fork()
        if pid == 0:
            os.environ.update(self.env | {"TERM": "xterm", "LINES": "24", "COLUMNS": "80"})
            os.execv(BINARY, [BINARY, "experiments", "-m", str(TINY), "-o", str(out)])
        seen = ""

        def until(words, start=0):
            nonlocal seen
            end = time.monotonic() + 60
            while words not in seen[start:]:
                self.assertLess(time.monotonic(), end, f"no '{words}' in {seen!r}")
                if select.select([fd], [], [], 1)[0]:
                    seen += os.read(fd, 65536).decode(errors="replace")
            return len(seen)

        until("Enter run")
        self.assertIn("lapidary experiments", seen)
        self.assertIn("What is the model made of", seen)
        os.write(fd, b"o")
        until("no page yet")
        os.write(fd, b"\r")
        until("Enter goes back")
        at = until("architecture: done in")
        os.write(fd, b"\n")
        until("done in", at)
        os.write(fd, b"q")
        _, status = os.waitpid(pid, 0)
        self.assertEqual(os.waitstatus_to_exitcode(status), 0)
        self.assertTrue((out / "architecture/report.html").exists())


if __name__ == "__main__":
    main()
