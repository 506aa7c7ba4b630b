"""Tests of the installed module (tools/check-verifier-python). OMR names the program, MATH_VERIFY a Python with math-verify,
TRL and VERL one with trl or verl; without them, recorded verdicts and calls are compared."""
import ast
import functools
import importlib.resources
import inspect
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import omr_verify

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
OMR = os.environ.get("OMR")


def lines(path):
    return [json.loads(line) for line in (ROOT / path).read_text().splitlines()]


PAIRS = lines("tests/goldens/verify/cases.jsonl")
GOLDS, ANSWERS = [pair["gold"] for pair in PAIRS], [pair["answer"] for pair in PAIRS]

# Texts that make parsers slow: deep nesting, huge powers, long numbers, many marks, unfinished tags.
HOSTILE = [
    "9^{9^{9^{9^{9}}}}", "((((((((((10!)!)!)!)!)!)!)!)!)!)", "\\frac{1}{" * 20000, "(" * 100000, "{" * 100000,
    "\\boxed{" * 50000, "\\boxed{" * 5000 + "5" + "}" * 5000, "<think>" * 100000, "<answer>" * 50000 + "</answer>" * 50000,
    "1" * 1000000, "1+" * 100000 + "1", "x^" * 50000, "\\sqrt{" * 3000 + "2" + "}" * 3000, "$" * 200000, "\0" * 1000,
    "1,2,3," * 100000, "2^{1000000000}", "\\sum_{k=1}^{10^{12}} k^k", "\\int " * 10000, "7 " * 500000, "\ud800\udfff 5",
    "(x+1)^{5000}(y+1)^{5000}", "=".join("x" * 3000), "\u0665" * 10000, "",
]


def by_program(command, rows, *arguments):
    """What the program answers to JSON lines."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    done = subprocess.run([OMR, "--quiet", command, "--jsonl", *arguments], input=text, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def responses():
    """Complete responses: the answer of each pair after thinking, or alone, in turn."""
    forms = ["<think>I count.</think><answer>{}</answer>", "{}", "<think>a</think>\n\\boxed{{{}}}", "Let me see.\nSo\n{}"]
    return [forms[i % 4].format(answer) for i, answer in enumerate(ANSWERS)]


class Verdicts(unittest.TestCase):
    def test_2024_pairs_have_the_recorded_verdicts(self):
        compat = omr_verify.verify_many(GOLDS, ANSWERS, "compat")
        self.assertEqual(compat, [pair["equal"] for pair in PAIRS])
        strict = omr_verify.verify_many(GOLDS, ANSWERS)
        accepted = [pair["id"] for pair, equal in zip(PAIRS, strict) if equal and pair["truth"] is False]
        self.assertEqual((len(PAIRS), accepted), (2024, []))
        self.assertGreater(sum(strict), 800)

    @unittest.skipUnless(OMR, "OMR is not set")
    def test_2024_pairs_have_the_verdicts_of_the_program(self):
        for mode in ("strict", "compat"):
            rows = [{"gold": gold, "answer": answer} for gold, answer in zip(GOLDS, ANSWERS)]
            expected = [row["equal"] for row in by_program("verify", rows, "--mode", mode)]
            self.assertEqual(omr_verify.verify_many(GOLDS, ANSWERS, mode), expected)
            self.assertEqual([omr_verify.verify(g, a, mode) for g, a in zip(GOLDS[::20], ANSWERS[::20])], expected[::20])

    @unittest.skipUnless(OMR, "OMR is not set")
    def test_2024_responses_have_the_scores_of_the_program(self):
        question = "Which one? A. 12 B. 15 C. red"
        questions = [question if i % 3 == 0 else None for i in range(len(GOLDS))]
        rows = [{"response": response, "ground_truth": gold, "question": question}
                for response, gold, question in zip(responses(), GOLDS, questions)]
        for settings in ({}, {"mode": "compat"}, {"format": "think_boxed", "format_weight": 0.5}, {"flexible_extract": True},
                         {"format": "think_answer", "mode": "compat", "format_weight": 0.0}):
            overrides = [f"{'' if key == 'mode' else 'reward.'}{key}={json.dumps(value)}" for key, value in settings.items()]
            expected = by_program("score", rows, *overrides)
            for one in expected:
                one.pop("judge")
            self.assertEqual(omr_verify.score_many(responses(), GOLDS, questions, **settings), expected)

    def test_reward_types_have_the_recorded_scores_of_vero_and_those_of_the_program(self):
        cases = json.loads((ROOT / "verifier/tests/data/vero/rewards.json").read_text())["cases"]
        left_out = ("molmo2", "judge_without_judge")
        without_rule = ("instruction_following", "llm_judge")
        kind = lambda case: str(case["extra_info"].get("reward_type") or "").strip().lower()
        cases = [case for case in cases if case["category"] not in left_out and not kind(case).startswith(without_rule)]
        self.assertGreater(len(cases), 500)
        for case in cases:
            extra = case["extra_info"] if kind(case) else {**case["extra_info"], "reward_type": "unknown"}
            scored = omr_verify.score(case["response"], case["ground_truth"], extra_info=extra, mode="compat")
            self.assertAlmostEqual(scored["acc_score"], case["accuracy"], 12, case)
            self.assertEqual(scored["format_reward_score"], case["format"], case)
        for mode in ("strict", "compat") if OMR else ():
            rows = [{key: case[key] for key in ("response", "ground_truth", "extra_info")} for case in cases]
            for row in rows:
                try:
                    scored = omr_verify.score(row["response"], row["ground_truth"], None, row["extra_info"], mode=mode)
                except ValueError as error:
                    with self.assertRaises(RuntimeError, msg=f"{row}: {error}"):
                        by_program("score", [row], "--mode", mode)
                    continue
                row["expected"] = scored
            rows = [row for row in rows if "expected" in row]
            for row, program in zip(rows, by_program("score", rows, "--mode", mode), strict=True):
                program.pop("judge")
                program["why"] = row["expected"]["why"]  # In the program, in the case in which the row has it.
                self.assertEqual(row["expected"], program, row)

    def test_further_right_answers_count(self):
        for further in (["7", "8"], '["7", "8"]', ("7", 8)):
            scored = omr_verify.score("\\boxed{8}", "6", extra_info={"right_answers": further})
            self.assertEqual(scored["acc_score"], 1.0)
        wrong = omr_verify.score("\\boxed{9}", "6", extra_info={"right_answers": ["7"]})
        self.assertEqual((wrong["acc_score"], wrong["predict_str"]), (0.0, "9"))

    def test_an_answer_is_extracted_as_in_the_crate(self):
        self.assertEqual(omr_verify.extract("<think>\\boxed{3}</think>It is \\boxed{5}."), ("5", "boxed"))
        self.assertEqual(omr_verify.extract("<answer>5</answer><answer>6</answer>", "compat"), ("5", "answer_tag"))
        self.assertEqual(omr_verify.extract("red"), ("", "none"))


class Arguments(unittest.TestCase):
    def test_numbers_are_texts(self):
        self.assertTrue(omr_verify.verify(5, "5.0"))
        self.assertTrue(omr_verify.verify("1/2", 0.5))

    def test_wrong_arguments_are_named(self):
        numeric = {"reward_type": "numeric"}
        for error, text, call in [
            (TypeError, "found list, expected a text", lambda: omr_verify.verify(["5"], "5")),
            (TypeError, "found bool", lambda: omr_verify.verify(True, "1")),
            (ValueError, 'found "strct", expected one of ["strict", "compat"]', lambda: omr_verify.verify("1", "1", "strct")),
            (ValueError, "zip()", lambda: omr_verify.verify_many(["1"], [])),
            (ValueError, "zip()", lambda: omr_verify.score_many(["1"], ["1"], questions=[])),
            (TypeError, "mod", lambda: omr_verify.score("1", "1", mod="compat")),
            (ValueError, 'found "boxed"', lambda: omr_verify.score("1", "1", format="boxed")),
            (ValueError, "format_weight 2", lambda: omr_verify.score("1", "1", format_weight=2)),
            (TypeError, "ground_truth and solution", lambda: omr_verify.trl_reward(["1"], answer=["1"])),
            (TypeError, "mod", lambda: omr_verify.trl_reward(["1"], ["1"], settings={"mod": 1})),
            (ValueError, "response 1: found the label", lambda: omr_verify.score_many(["1"] * 2, [1, "x"], None, [numeric] * 2)),
            (ValueError, "response 1: TypeError('found list", lambda: omr_verify.score_many(["1", []], ["1", "1"])),
            (ValueError, 'reward_type "numerc"', lambda: omr_verify.score("1", 1, extra_info={"reward_type": "numerc"})),
            (ValueError, 'reward_type "llm_judge"', lambda: omr_verify.score("1", 1, extra_info={"reward_type": "llm_judge"})),
            (ValueError, "'a'", lambda: omr_verify.score("1", 1, extra_info={**numeric, "tolerance": "a"})),
        ]:
            with self.assertRaises(error) as raised:
                call()
            self.assertIn(text, str(raised.exception))

    def test_the_stubs_name_every_function_and_argument(self):
        package = importlib.resources.files(omr_verify)
        self.assertTrue((package / "py.typed").is_file())
        tree = ast.parse((package / "__init__.pyi").read_text())
        stubs = {node.name: node.args for node in tree.body if isinstance(node, ast.FunctionDef)}
        functions = {name: one for name, one in vars(omr_verify).items() if inspect.isfunction(one) and name[0] != "_"}
        self.assertEqual(set(stubs), set(functions))
        for name, function in functions.items():
            named = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
            stub = [argument.arg for argument in stubs[name].args + stubs[name].kwonlyargs]
            self.assertEqual(named, stub[:len(named)], name)


class Trainers(unittest.TestCase):
    def test_verl_calls_compute_score(self):
        call = json.loads((HERE / "calls.json").read_text())["verl"]
        scored = functools.partial(omr_verify.compute_score, mode="strict")(**call)
        self.assertEqual(scored, omr_verify.score(call["solution_str"], call["ground_truth"], call["extra_info"]["question"]))
        self.assertEqual(scored["acc_score"], 1.0)
        with_model = {"reward_router_address": "localhost:1", "reward_model_tokenizer": object()}
        self.assertEqual(omr_verify.compute_score(**call, **with_model), scored)

    def test_trl_calls_trl_reward(self):
        for call in json.loads((HERE / "calls.json").read_text())["trl"]:
            rewards = omr_verify.trl_reward(**call["arguments"], trainer_state=object(), log_extra=print, log_metric=print)
            self.assertEqual(rewards, call["rewards"])

    def test_completions_are_texts_or_messages(self):
        parts = [{"type": "image", "text": None}, {"type": "image"}, {"type": "text", "text": "\\boxed{"}, {"type": "text", "text": "5}"}]
        say = lambda content: [{"role": "assistant", "content": content}]
        completions = ["\\boxed{5}", say("\\boxed{5}"), say(parts), say("\\boxed{4}") + say("\\boxed{5}"), say(None), [], "6"]
        expected = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
        self.assertEqual(omr_verify.trl_reward(completions, solution=["5"] * 7), expected)

    def test_the_options_of_a_prompt_count(self):
        prompts = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which? A. 12 B. 15"}]}]]
        self.assertEqual(omr_verify.trl_reward(["\\boxed{15}"], ["B"], prompts=prompts), [1.0])
        self.assertEqual(omr_verify.trl_reward(["\\boxed{15}"], ["B"]), [0.1])

    def test_the_functions_can_be_sent_to_other_processes(self):
        for function in (omr_verify.compute_score, omr_verify.trl_reward, omr_verify.verify):
            self.assertIs(pickle.loads(pickle.dumps(function)), function)

    def run_trainer(self, name, script):
        """Runs a script with a Python that has a trainer, and this module."""
        if not os.environ.get(name):
            self.skipTest(f"{name} is not set")
        path = {**os.environ, "PYTHONPATH": str(Path(omr_verify.__file__).parents[1])}
        done = subprocess.run([os.environ[name], HERE / script], capture_output=True, text=True, env=path)
        self.assertEqual(done.returncode, 0, done.stderr)
        print(done.stdout.splitlines()[-1], file=sys.stderr)

    def test_a_step_of_trl_is_rewarded(self):
        self.run_trainer("TRL", "trl_step.py")

    def test_the_reward_loop_of_verl_scores(self):
        self.run_trainer("VERL", "verl_loop.py")


class Threads(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.expected = omr_verify.verify_many(GOLDS, ANSWERS)

    def test_eight_threads_get_the_same_verdicts(self):
        with ThreadPoolExecutor(8) as pool:
            many = [pool.submit(omr_verify.verify_many, GOLDS, ANSWERS, threads=1 + i % 3) for i in range(8)]
            single = list(pool.map(omr_verify.verify, GOLDS, ANSWERS))
        self.assertEqual(single, self.expected)
        for one in many:
            self.assertEqual(one.result(), self.expected)

    def test_another_thread_than_the_main_one_gets_the_score_and_not_0(self):
        """verl pull request 5635: the alarm of math-verify is an error there, which became the score 0."""
        found = []
        thread = threading.Thread(target=lambda: found.append(omr_verify.compute_score("math", "\\boxed{\\frac{1}{2}}", "0.5")))
        thread.start()
        thread.join()
        self.assertEqual(found[0]["acc_score"], 1.0)

    def test_no_signal_of_the_caller_is_touched(self):
        """An alarm that the caller has set still rings, and its handler stays."""
        rung = []
        before = signal.signal(signal.SIGALRM, lambda *_: rung.append(True))
        handler = signal.getsignal(signal.SIGALRM)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            omr_verify.verify_many(GOLDS, ANSWERS)
            self.assertIs(signal.getsignal(signal.SIGALRM), handler)
            while not rung:
                time.sleep(0.01)
        finally:
            signal.signal(signal.SIGALRM, before)
        self.assertEqual(rung, [True])

    def test_other_threads_run_while_one_verifies(self):
        thread = threading.Thread(target=omr_verify.verify_many, args=(GOLDS * 3, ANSWERS * 3, "compat", 1))
        thread.start()
        turns = 0
        while thread.is_alive():
            turns += 1
        self.assertGreater(turns, 0, "the lock was kept until all was done")

    def test_an_interrupt_ends_a_batch(self):
        for threads in (1, 2):
            timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            begun = time.monotonic()
            with self.assertRaises(KeyboardInterrupt):
                omr_verify.verify_many(GOLDS * 200, ANSWERS * 200, "compat", threads)
            self.assertLess(time.monotonic() - begun, 60)


class Bounds(unittest.TestCase):
    def test_hostile_texts_return(self):
        for mode in ("strict", "compat"):
            for text in HOSTILE:
                begun = time.thread_time()
                for gold, answer in ((text, "5"), ("5", text), (text, text + " "), ("\\frac{1}{2}", text)):
                    self.assertIn(omr_verify.verify(gold, answer, mode), (True, False))
                omr_verify.score(text, "5", "A. 5 B. 6", mode=mode)
                self.assertLess(time.thread_time() - begun, 60, f"{mode}: {text[:20]!r} ({len(text)})")

    def test_a_pool_of_processes_answers_every_item(self):
        """maxtext pull request 3629: a worker that hangs in math-verify held up the trainer. All of these return, also in a
        fork of a process that has used threads before."""
        omr_verify.verify_many(GOLDS[:100], ANSWERS[:100], threads=4)
        for method in ("fork", "spawn"):
            with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
                hostile = pool.map(omr_verify.verify, ["5"] * len(HOSTILE), [text.replace("\ud800\udfff", "") for text in HOSTILE])
                many = pool.submit(omr_verify.verify_many, GOLDS, ANSWERS, threads=4)
                self.assertEqual(many.result(timeout=300), omr_verify.verify_many(GOLDS, ANSWERS))
                self.assertEqual(len(list(hostile)), len(HOSTILE))

    def test_pairs_a_second_are_printed(self):
        def rate(golds, answers, mode, threads):
            seconds = []
            for _ in range(3):
                begun = time.perf_counter()
                omr_verify.verify_many(golds, answers, mode, threads)
                seconds.append(time.perf_counter() - begun)
            return f"{len(golds) / min(seconds):.0f}"

        for mode in ("strict", "compat"):
            rates = ", ".join(f"{rate(GOLDS, ANSWERS, mode, threads)} on {threads}" for threads in (1, 2))
            print(f"{mode}, pairs a second by threads: {rates}", file=sys.stderr)
        if not os.environ.get("MATH_VERIFY"):
            return
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            file.writelines(json.dumps(pair) + "\n" for pair in PAIRS[::10])
            file.flush()
            done = subprocess.run([os.environ["MATH_VERIFY"], HERE / "peer.py", file.name], capture_output=True, text=True, check=True)
        print(f"math-verify, pairs a second: {float(done.stdout):.0f} (every tenth pair)", file=sys.stderr)


if __name__ == "__main__":
    unittest.main()
