#!/usr/bin/env python3
"""isolate judge from outside, with judges on this machine that say what a test tells them to."""
import html.parser
import json
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from program import BINARY, SOURCE, Case, environment, main, needs_model

KEY = "sk-a-secret-that-nobody-may-see"
FOREIGN = ("OPENAI_", "HTTP_", "HTTPS_", "ALL_", "http_", "https_", "all_")


def verdict(which, reason="because"):
    return json.dumps({"verdict": which, "reason": reason})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def send(self, status, body, **headers):
        data = body if isinstance(body, bytes) else body.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.send(200, json.dumps({"data": [{"id": name} for name in self.server.models]}))

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        server = self.server
        with server.lock:
            server.log.append((self.path, dict(self.headers), text))
            number = len(server.log)
        answer = server.script(number, json.loads(text))
        if callable(answer):  # says more than a text
            answer(self)
            return
        self.send(200, json.dumps({"choices": [{"message": {"role": "assistant", "content": answer}}]}))


class Judge(ThreadingHTTPServer):
    """`script(number of the request, its body)` gives the answer's text, or something to call with the handler."""
    daemon_threads = True

    def __init__(self, script, models=("the-judge",)):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.models, self.log, self.lock = script, models, [], threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args):
        self.shutdown()
        self.server_close()


def answers(body):
    """The two that a judge is shown."""
    text = body["messages"][1]["content"]
    first, second = (text.split(f"Answer {i}:\n<<<\n")[1].split("\n>>>")[0] for i in (1, 2))
    return first, second


def likes(word):
    def script(_, body):
        first, second = (word in answer for answer in answers(body))
        return verdict("tie" if first == second else "1" if first else "2")
    return script


@needs_model
class IsolateJudge(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.made = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="lapidary-cli-")))
        names = ("food_001_bakery", "agriculture_001_market_garden")
        files = [str(SOURCE / f"data/isolation/{name}.json") for name in names]
        subprocess.run([BINARY, "isolate", "run", *files, "-o", str(cls.made / "run"), "-n", "8", "-q", "--conditions",
                        "sequential,semantic,message_only"], check=True, capture_output=True, env=environment())

    def setUp(self):
        super().setUp()
        self.env = {k: v for k, v in self.env.items() if not k.startswith(FOREIGN)}
        self.run_folder = self.folder / "run"
        shutil.copytree(self.made / "run", self.run_folder)
        self.file = self.run_folder / "judgements.jsonl"
        lines = map(json.loads, (self.run_folder / "outputs.jsonl").read_text().splitlines())
        self.outputs = sum(line["condition"] == "semantic" for line in lines)

    def judge(self, script, **kwargs):
        return self.enterContext(Judge(script, **kwargs))

    def command(self, judge, *more):
        return ("isolate", "judge", str(self.run_folder), "--endpoint", judge if isinstance(judge, str) else judge.url,
                *more)

    def judged(self, judge, *more, **kwargs):
        return json.loads(self.ok(*self.command(judge, "--json", *more), **kwargs).stdout)

    def rewrite_outputs(self, change):
        file = self.run_folder / "outputs.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for line in lines:
            change(line)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def all_figures(self, result):
        return result["figures"][-1]

    def test_a_judge_that_always_takes_the_first(self):
        judge = self.judge(lambda *_: verdict("1"))
        result = self.judged(judge)
        self.assertEqual((result["model"], result["a"], result["b"]), ("the-judge", "semantic", "sequential"))
        self.assertEqual(result["judgements_made"], 2 * self.outputs)
        self.assertEqual([f["group"] for f in result["figures"]], ["outputs", "synthesis", "questions", "all"])
        every = self.all_figures(result)
        self.assertEqual((every["wins"], every["ties"], every["losses"]), (0, self.outputs, 0))
        self.assertEqual((every["position_consistency"], every["first_position_share"]), (0, 1))
        self.assertEqual((every["win_rate"], every["p_sign_test"], every["examples"]), (0.5, 1, 2))
        self.assertFalse(any(c["consistent"] for c in result["comparisons"]))
        # The other way of asking for it.
        for url in (judge.url + "/v1/", judge.url + "/v1/chat/completions"):
            self.assertEqual(self.judged(url)["judgements_made"], 0)
        self.assertEqual({path for path, _, _ in judge.log}, {"/v1/chat/completions"})

    def test_a_judge_that_likes_a_word(self):
        def change(line):
            wins = line["condition"] == "semantic" and line["name"] in ("A", "A.c1_q1")
            loses = line["condition"] == "sequential" and line["name"] == "A.c1_q2"
            line["text"] = "a plum" if wins or loses else "a pear"
        self.rewrite_outputs(change)
        judge = self.judge(likes("plum"))
        result = self.judged(judge, "--model", "some-model")
        expected = {"A": "a", "A.c1_q1": "a", "A.c1_q2": "b"}
        for c in result["comparisons"]:
            self.assertEqual((c["verdict"], c["consistent"]), (expected.get(c["output"], "tie"), True), c)
        outputs, synthesis, questions, every = result["figures"]
        self.assertEqual((outputs["wins"], outputs["losses"]), (2, 0))
        self.assertEqual((synthesis["wins"], synthesis["ties"], synthesis["win_rate"]), (0, 2, 0.5))
        self.assertEqual((questions["wins"], questions["losses"]), (2, 2))
        self.assertEqual((every["position_consistency"], every["first_position_share"]), (1, 0.5))
        self.assertEqual((every["wins"], every["losses"], every["invalid"]), (4, 2, 0))
        self.assertEqual((every["examples"], every["p_sign_test"]), (2, 0.5))
        self.assertGreater(every["win_rate"], 0.5)
        reversed_ = self.judged(judge, "--model", "some-model", "-a", "sequential", "-b", "semantic")
        self.assertEqual(reversed_["judgements_made"], 0)
        self.assertEqual(self.all_figures(reversed_)["losses"], every["wins"])
        text = self.ok(*self.command(judge, "--model", "some-model")).stdout
        self.assertIn("semantic against sequential, judged by some-model", text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        few = self.judged(judge, "--model", "some-model", "-b", "message_only", "--groups", "synthesis")
        self.assertEqual((few["judgements_made"], [f["group"] for f in few["figures"]]), (4, ["synthesis"]))
        # And what the page and the document of the run say of it.
        report = json.loads(self.ok("isolate", "report", str(self.run_folder), "--json").stdout)
        pairs = {pair["b"]: pair["figures"] for pair in report["judged"]}
        self.assertEqual(pairs, {"sequential": result["figures"], "message_only": few["figures"]})
        self.ok("isolate", "report", str(self.run_folder))
        page = (self.run_folder / "report.html").read_text()
        html.parser.HTMLParser().feed(page)
        self.assertIn("<td>some-model</td><td>semantic against sequential</td>", page)

    def test_the_judge_is_blind(self):
        judge = self.judge(lambda *_: verdict("tie"))
        self.judged(judge)
        self.assertEqual(len(judge.log), 2 * self.outputs)
        bodies = [json.loads(text) for _, _, text in judge.log]
        self.assertTrue(all(body["temperature"] == 0 and body["model"] == "the-judge" for body in bodies))
        self.assertIn("Reference answer:\n", bodies[0]["messages"][1]["content"])
        for path, headers, text in judge.log:
            for name in ("semantic", "sequential", "message_only", "isolat", "cluster", str(self.folder)):
                self.assertNotIn(name, (path + str(headers) + text).lower())
        # In both orders.
        self.assertEqual(answers(bodies[0]), answers(bodies[1])[::-1])

    def test_the_key_stays_secret(self):
        judge = self.judge(lambda number, _: verdict("1", "the key is " + KEY) if number > 1 else
                           lambda handler: handler.send(500, json.dumps({"error": {"message": "not " + KEY}})))
        done = self.ok(*self.command(judge, "--json", "-v"), env={"OPENAI_API_KEY": KEY})
        self.assertTrue(all(headers["Authorization"] == "Bearer " + KEY for _, headers, _ in judge.log))
        self.assertIn("the key is [key]", self.file.read_text())
        judge.script = lambda *_: lambda handler: handler.send(401, json.dumps({"error": {"message": "bad " + KEY}}))
        self.file.unlink()
        refused = self.refused(1, "does not accept the key in MY_KEY (HTTP 401): bad [key]",
                               *self.command(judge, "--api-key-env", "MY_KEY"), env={"MY_KEY": KEY})
        said = done.stdout + done.stderr + refused.stdout + refused.stderr
        files = [f.read_text(errors="replace") for f in self.run_folder.rglob("*") if f.is_file()]
        self.assertNotIn(KEY, said + "".join(files))
        self.refused(1, "wants a key (HTTP 401)", *self.command(judge))
        self.refused(2, "NOT_THERE is not set", *self.command(judge, "--api-key-env", "NOT_THERE"))
        self.refused(2, "OPENAI_API_KEY: this is not a key", *self.command(judge), env={"OPENAI_API_KEY": "a b"})

    def test_redirects_are_not_followed(self):
        other = self.judge(lambda *_: verdict("1"))
        judge = self.judge(lambda *_: lambda handler: handler.send(307, "", Location=other.url + "/v1/chat/completions"))
        self.refused(1, f"leads to {other.url}/v1/chat/completions, which is not followed (HTTP 307)",
                     *self.command(judge, "--model", "m"), env={"OPENAI_API_KEY": KEY})
        self.assertEqual(other.log, [])

    def test_garbage_once_and_for_good(self):
        def script(number, body):
            if len(body["messages"]) == 4:  # was told
                return verdict("1")
            return "I like them both." if number == 1 else f"Well:\n```json\n{verdict('2')}\n```\nSo."
        result = self.judged(self.judge(script), "--model", "m")
        self.assertEqual(self.all_figures(result)["invalid"], 0)
        never = self.judge(lambda *_: "Who can say?")
        failed = self.run_it(*self.command(never, "--json", "--model", "n"))
        self.assertEqual(failed.returncode, 1)
        self.assertIn(f"n gave no verdict that can be read, all {self.outputs} are invalid", failed.stderr)
        result = json.loads(failed.stdout)
        every = self.all_figures(result)
        self.assertEqual((every["invalid"], every["win_rate"], every["ci95"]), (self.outputs, None, None))
        self.assertEqual(len(never.log), 4 * self.outputs)
        self.assertEqual(json.loads(self.file.read_text().splitlines()[-1])["reason"], "Who can say?")
        text = self.run_it(*self.command(never, "--model", "n")).stdout
        self.assertEqual(len(never.log), 4 * self.outputs)  # not asked again
        self.assertLessEqual(max(map(len, text.splitlines())), 80)

    def test_patience(self):
        def script(number, _):
            if number == 1:
                return lambda handler: handler.send(429, "{}", Retry_After="1")
            if number == 3:
                return lambda handler: handler.send(500, "oops")
            if number == 5:
                return lambda handler: time.sleep(4)  # and closes the connection
            return verdict("2")
        judge = self.judge(script)
        result = self.judged(judge, "--timeout", "2", "--groups", "synthesis")
        self.assertEqual((result["judgements_made"], len(judge.log)), (4, 7))
        self.assertEqual(self.all_figures(result)["invalid"], 0)

    def test_a_server_that_stays_broken(self):
        judge = self.judge(lambda number, _: verdict("1") if number < 4 else
                           lambda handler: handler.send(503, json.dumps({"error": "no\nroom"}), Retry_After="3600"))
        self.refused(1, "out of order (HTTP 503): no\\x0aroom", *self.command(judge, "--model", "m"))
        self.assertEqual(len(self.file.read_text().splitlines()), 3)

    def test_what_is_no_judge(self):
        begin = time.time()
        self.refused(1, "127.0.0.1", *self.command("http://127.0.0.1:9", "--model", "m"))
        self.assertLess(time.time() - begin, 3)  # never reached: not tried again
        stalls = self.judge(lambda *_: lambda handler: time.sleep(3))
        begin = time.time()
        self.refused(1, "/v1/chat/completions: ", *self.command(stalls, "--model", "m", "--timeout", "1"))
        self.assertLess(time.time() - begin, 8)
        for body, words in (("<html>Hello</html>", "/v1/chat/completions"), ("{}", "choices"),
                            ('{"error": {"message": "no model m"}}', "refused: no model m"),
                            ('{"choices": []}', "choices"), ("[1]", "/v1/chat/completions"),
                            ('{"choices": [{"text": "1"}]}', "message"), ("[" * 5000 + "]" * 5000, "nested deeper")):
            page = self.judge(lambda *_, body=body: lambda handler: handler.send(200, body))
            self.refused(1, words, *self.command(page, "--model", "m"))
            self.assertEqual(len(page.log), 1)
        none = self.judge(lambda *_: lambda handler: handler.send(404, '{"error": {"message": "no model m"}}'))
        self.refused(1, "refused (HTTP 404): no model m", *self.command(none, "--model", "m"))
        self.assertFalse(self.file.exists())

    def test_usage(self):
        judge = self.judge(lambda *_: verdict("1"), models=("one", "two"))
        refused = self.refused(2, "--model: not given", *self.command(judge))
        self.assertIn("one, two", refused.stderr)
        self.refused(2, "'x' does not exist", *self.command(judge, "-a", "x"))
        self.refused(2, "given for both", *self.command(judge, "-b", "semantic"))
        self.refused(2, "--groups: 'x' given", *self.command(judge, "--groups", "outputs,x"))
        self.refused(1, "under both semantic and mask", *self.command(judge, "-b", "mask"))
        refused = self.refused(2, "expected an address", *self.command("http://me:secret@127.0.0.1/"))
        self.assertNotIn("secret", refused.stderr)
        self.refused(1, "there is no run", "isolate", "judge", str(self.folder), "--endpoint", judge.url)
        self.file.write_text('{"model": 1}\nnot the last line\n{}\n')
        self.refused(1, "judgements.jsonl: line 1", *self.command(judge))
        self.assertEqual(judge.log, [])

    def test_stopped_and_killed_and_resumed(self):
        for stop, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
            with self.subTest(stop=stop):
                self.file.unlink(missing_ok=True)
                reached = threading.Event()

                def script(number, _):
                    if number == 6:
                        reached.set()
                        return lambda handler: time.sleep(3)
                    return verdict("tie")
                judge = self.judge(script)
                process = subprocess.Popen([BINARY, *self.command(judge)], env=self.env, stdout=subprocess.PIPE,
                                           stderr=subprocess.PIPE, text=True)
                self.assertTrue(reached.wait(60))
                process.send_signal(stop)
                out, err = process.communicate(timeout=10)
                self.assertEqual((process.returncode, out), (code, ""), err)
                if stop == signal.SIGINT:
                    self.assertIn("the same command goes on", err)
                self.assertEqual(len(self.file.read_text().splitlines()), 5)
                asked = [text for _, _, text in judge.log[:5]]
                with self.file.open("a") as file:
                    file.write('{"model": "the-ju')  # as if killed while writing
                again = self.judge(lambda *_: verdict("tie"))
                self.assertEqual(self.judged(again)["judgements_made"], 2 * self.outputs - 5)
                asked += [text for _, _, text in again.log]
                self.assertEqual(len(asked), 2 * self.outputs)
                self.assertEqual(len(self.file.read_text().splitlines()), 2 * self.outputs)
                keys = {tuple(json.loads(line)[k] for k in ("example", "output", "first", "second"))
                        for line in self.file.read_text().splitlines()}
                self.assertEqual(len(keys), 2 * self.outputs)


if __name__ == "__main__":
    main()
