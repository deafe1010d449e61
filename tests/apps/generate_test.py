#!/usr/bin/env python3
"""tokenize, detokenize, generate and chat from outside: streams, JSON, pipes, and a conversation at a
terminal."""
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import termios
import time
import unittest

from program import BINARY, TINY, Case, environment, main, needs_model


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
    def test_changes_on_the_way_steer_it(self):
        def text(*changes):
            return self.ok("generate", "-p", "The king", "-n", "12", "--temp", "0", "-q", *changes).stdout

        acts = self.folder / "acts.safetensors"
        point = "blocks.3.hook_resid_post"
        self.ok("study", "activations", "-p", "sweet love", "--points", point, "-o", str(acts))
        plain = text()
        self.assertEqual(text("--add", f"{point}={acts}:0"), plain)
        self.assertNotEqual(text("--mean", f"{point}={acts}"), plain)
        self.assertNotEqual(text("--zero", "blocks.*.hook_mlp_out"), plain)
        self.refused(2, "no point of this model", "generate", "-p", "The king", "--zero", "blocks.9.nothing")

    def test_json(self):
        result = self.ok("generate", "-p", "ROMEO:", "-n", "8", "--temp", "0", "--json")
        self.assertIn("built-in model", result.stderr)
        document = json.loads(result.stdout)
        self.assertEqual(set(document), {"prompt_tokens", "tokens", "text", "finish_reason", "forward_passes",
                                         "timings", "peak_rss_bytes"})
        self.assertEqual(document["forward_passes"], 7)
        self.assertEqual(set(document["timings"]), {"load_s", "prefill_s", "prefill_tokens_per_second",
                                                    "decode_tokens_per_second", "ttft_s"})
        self.assertEqual(len(document["tokens"]), 8)
        self.assertEqual(document["finish_reason"], "length")
        ids = json.loads(self.ok("tokenize", "-p", "ROMEO:", "--json").stdout)["ids"]
        self.assertEqual(document["prompt_tokens"], len(ids))
        again = json.loads(self.ok("generate", "--ids", ",".join(map(str, ids)), "-n", "8", "--temp", "0",
                                   "--json").stdout)
        self.assertEqual(again["tokens"], document["tokens"])

    def test_ways_of_decoding(self):
        def made(*args):
            return json.loads(self.ok("generate", "-p", "ROMEO:", "-n", "40", "--temp", "0", "--json", "-q",
                                      "--ignore-eos", *args).stdout)

        plain = made()
        for way in (("ngram",), ("ngram", "--draft-max", "3", "--ngram-max", "1"), ("block-draft", "--block", "4", "--mask-token", "<mask>"),
                    ("draft", "--model-draft", str(TINY))):
            guessed = made("--decode", *way)
            self.assertEqual(guessed["tokens"], plain["tokens"])
            tokens = sum(n * passes for n, passes in enumerate(guessed["passes_by_tokens"]))
            self.assertEqual(tokens, 39)
            self.assertEqual(guessed["forward_passes"], sum(guessed["passes_by_tokens"]))
        self.assertLess(guessed["forward_passes"], 6)  # a model guesses itself
        blocks = made("--decode", "set-block", "--block", "8", "--gamma", "inf", "--mask-token", "<mask>")
        self.assertEqual(blocks["forward_passes"], 5)
        self.assertEqual(blocks["passes_by_tokens"], [0] * 8 + [5])
        self.assertEqual(blocks["reveals"]["pass"], [1 + i // 8 for i in range(40)])
        one = made("--decode", "set-block", "--block", "1", "--mask-token", "<mask>")
        self.assertEqual(one["tokens"], plain["tokens"])

    def test_blocks_are_shown(self):
        shown = self.ok("generate", "-p", "ROMEO:", "-n", "8", "--decode", "set-block", "--block", "4", "--gamma", "0",
                        "--temp", "0", "--show-blocks", "--ignore-eos", "--mask-token", "<mask>")
        self.assertIn("nothing says that it was trained to fill in blocks", shown.stderr)
        lines = [line for line in shown.stderr.splitlines() if "[" in line]
        self.assertEqual(len(lines), 8)
        self.assertEqual([line.count("\u2591\u2591") for line in lines], [3, 2, 1, 0] * 2)

    def test_blocks_as_large_as_were_learnt(self):
        model = self.folder / "model"
        shutil.copytree(TINY, model)
        config = json.loads((model / "config.json").read_text())
        config["set_block"] = {"mask_token_id": 4, "block_min": 2, "block_max": 4}
        (model / "config.json").write_text(json.dumps(config))
        run = ("generate", "-m", str(model), "-p", "ROMEO:", "-n", "8", "--temp", "0", "--ignore-eos", "--json",
               "--decode", "set-block", "--gamma", "inf")
        made = self.ok(*run)
        self.assertEqual(json.loads(made.stdout)["forward_passes"], 2)  # of 4 tokens each
        self.assertNotIn("warning", made.stderr)
        larger = self.ok(*run, "--block", "8")
        self.assertEqual(json.loads(larger.stdout)["forward_passes"], 1)
        self.assertIn("has learnt blocks of up to 4 tokens", larger.stderr)

    def test_decoding_that_cannot_be(self):
        for words, args in (("plain", ("fast",)),
                            ("--model-draft", ("draft",)),
                            ("only with --decode draft", ("ngram", "--model-draft", str(TINY))),
                            ("expected 1 to 63", ("ngram", "--draft-max", "64")),
                            ("expected 1 to 64", ("set-block", "--block", "65")),
                            ("expected 1 to 64", ("set-block", "--block", "0")),
                            ("expected 1 to 64", ("block-draft", "--block", "65")),
                            ("--gamma: only with --decode set-block", ("block-draft", "--gamma", "1")),
                            ("--draft-max: only with --decode ngram or draft", ("block-draft", "--draft-max", "2")),
                            ("gamma: -1", ("set-block", "--gamma", "-1")),
                            ("gamma: nan", ("set-block", "--gamma", "nan")),
                            ("--block: only with --decode set-block or block-draft", ("ngram", "--block", "0")),
                            ("--gamma: only with --decode set-block", ("ngram", "--gamma", "nan")),
                            ("--order: only with --decode set-block", ("plain", "--order", "margin")),
                            ("--mask-token: only with --decode set-block or block-draft", ("draft", "--model-draft", str(TINY),
                                                                            "--mask-token", "<mask>")),
                            ("--ngram-max: only with --decode ngram", ("plain", "--ngram-max", "2")),
                            ("--draft-max: only with --decode ngram or draft", ("set-block", "--draft-max", "2")),
                            ("token 1 ends an answer", ("set-block", "--mask-token", "<eos>")),
                            ("token 2 begins every text", ("set-block", "--mask-token", "2")),
                            ("token 0 is padding", ("set-block", "--mask-token", "<pad>")),
                            ("only with --decode set-block", ("plain", "--show-blocks"))):
            self.refused(2, words, "generate", "-p", "x", "--decode", *args)
        self.refused(1, "neither an id nor a piece", "generate", "-p", "x", "--decode", "set-block", "--mask-token", "nopiece")

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
        result = self.ok("show", "--json", env={"LAPIDARY_MODEL": str(TINY)})
        self.assertEqual(result.stderr, "")
        self.assertEqual(self.run_it("show", env={"LAPIDARY_COMPUTE": "slow"}).returncode, 2)


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
    main()
