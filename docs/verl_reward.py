"""omr's verifier as a reward of verl: custom_reward_function.path=docs/verl_reward.py (reward.custom_reward_function.path
since 0.8). OMR names the binary and its flags, such as OMR="omr score --jsonl --mode compat"."""
import json
import os
import shlex
import subprocess
import threading

LOCK, OPEN = threading.Lock(), {}


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    """What `omr score` says of a response: score, acc_score, format_reward_score, predict_str."""
    extra, texts = extra_info or {}, {"response": solution_str, "ground_truth": ground_truth}
    line = json.dumps({**texts, "question": extra.get("question"), "extra_info": extra}, default=str)
    with LOCK:  # verl's reward loop calls from several threads, and its workers are forks.
        omr = OPEN.get(os.getpid()) or subprocess.Popen(
            shlex.split(os.environ.get("OMR", "omr score --jsonl")), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        OPEN[os.getpid()] = omr
        try:
            omr.stdin.write(line.encode() + b"\n")
            omr.stdin.flush()
            answer = omr.stdout.readline()
            if not answer:
                raise RuntimeError(f"{omr.args} has ended; why is on stderr")
        except BaseException:  # A caller's time-out, too: the answer that still comes would be taken for the next one.
            OPEN.pop(os.getpid()).kill()
            raise
    scored = json.loads(answer)
    return {key: scored[key] for key in ("score", "acc_score", "format_reward_score", "predict_str")}
