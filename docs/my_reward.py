"""One's own reward for omr: a line of JSON in, a line of JSON out.

reward.command='[python3, omr:my_reward.py, FILE.py, NAME]' calls the function NAME of FILE.py in the form that its
parameters show; without FILE.py, the example below. Several names are added up, as in TRL. key=value passes a keyword.
omr contains this file as omr:my_reward.py; a copy of it that you change works as well.

verl    compute_score(data_source, solution_str, ground_truth, extra_info)   -> number or dict with score
EasyR1  compute_score(reward_input), compute_score(reward_inputs)            -> dict with overall, or a list of them
TRL     name(completions, **columns)                                         -> list of numbers, or None for no score
"""
import asyncio
import importlib.util
import inspect
import json
import os
import sys
import traceback


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    """As verl calls it; gives a number, or a dict with score and what else is to be kept."""
    right = ground_truth in solution_str
    return {"score": right + 0.1 * (len(solution_str) < 400), "acc_score": float(right)}


NAMES = {"overall": "score", "acc": "acc_score", "accuracy": "acc_score", "format": "format_reward_score", "pred": "predict_str"}


def load(path, names):
    """The functions of a file."""
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    spec = importlib.util.spec_from_file_location("reward", path)
    if spec is None:
        raise ValueError(f"found {path}, expected a Python file")
    module = sys.modules["reward"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    known = [name for name, value in vars(module).items() if inspect.isfunction(value)]
    for name in names:
        if not callable(getattr(module, name, None)):
            raise ValueError(f"{path} has no function {name}, only {', '.join(known) or 'none'}")
    return [getattr(module, name) for name in names]


def is_label(value, text, is_own):
    """Whether a value of the row is the one that the label `text` was made of: as JSON, or as the text of verl's label."""
    if isinstance(value, (list, dict)):
        try:
            if json.loads(text) == value:
                return True
        except ValueError:
            pass
    only = value[0] if isinstance(value, list) and len(value) == 1 else value
    return is_own and only is not None and str(only).lower() == text.lower()


def call(function, row, keywords):
    """The result for one response: a dict with score. The field `opened` is what the chat template wrote before it."""
    columns, extra = row.get("columns") or {}, row.get("extra_info") or {}
    response, truth, opened = row["response"], row["ground_truth"], row.get("opened") or ""
    model = columns.get("reward_model")
    own = model.get("ground_truth") if isinstance(model, dict) else None
    # A label that is no list or struct is a text here. verl and EasyR1 pass it as the row has it.
    if isinstance(truth, str) and own != truth:
        truth = next((value for value in [own, *columns.values()] if is_label(value, truth, value is own)), truth)
    parameters = inspect.signature(function).parameters
    if "solution_str" in parameters:
        extra = {"opened": opened, **columns, **({"question": row.get("question")} if row.get("question") else {}), **extra}
        result = function(data_source=row.get("data_source"), solution_str=response, ground_truth=truth,
                          extra_info=extra, **keywords)
    elif "completions" in parameters:
        # A text as prompt has a text as completion; all other rows are conversations.
        prompt = columns.get("prompt") or [{"role": "user", "content": row.get("question")}]
        text = isinstance(prompt, str)
        given = {**extra, "opened": opened, "ground_truth": truth, **columns, "prompts": prompt,
                 "completions": response if text else [{"role": "assistant", "content": response}]}
        given.pop("prompt", None)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            given = {name: value for name, value in given.items() if name in parameters}
        result = function(**{name: [value] for name, value in given.items()}, **keywords)
    elif "reward_input" in parameters or "reward_inputs" in parameters:
        one = {**columns, **extra, "opened": opened, "response": response, "ground_truth": truth}
        result = function(one if "reward_input" in parameters else [one], **keywords)
    else:
        raise TypeError(f"{function.__name__}{inspect.signature(function)}: expected a parameter solution_str (verl), "
                        "completions (TRL), reward_input or reward_inputs (EasyR1)")
    result = asyncio.run(result) if inspect.iscoroutine(result) else result
    if isinstance(result, list) and len(result) == 1:
        if result[0] is None and "completions" in parameters:
            return {"score": None}  # In TRL, a function that has nothing to say about a response: no score.
        result = result[0]
    if isinstance(result, dict):
        if not {"score", "overall"} & result.keys():
            raise TypeError(f"{function.__name__} returned {result!r}, expected a dict with score (or overall)")
        return {NAMES.get(name, name): str(value) if name == "pred" else value for name, value in result.items()}
    if result is None or isinstance(result, (str, list)):
        raise TypeError(f"{function.__name__} returned {result!r}, expected a number, or a dict with score")
    return {"score": float(result)}


def score(functions, row, keywords):
    """The answer for one line. The scores of several functions are added up and also listed by name. A function that
    gives none is left out; without any, there is no score."""
    results = [call(function, row, keywords) for function in functions]
    if len(results) == 1:
        return results[0]
    scores = {f.__name__: result["score"] for f, result in zip(functions, results) if result["score"] is not None}
    return {**scores, "score": sum(scores.values()) if scores else None}


def failure(error):
    """An error as one line, with its place in the user's file. The traceback goes to the log."""
    traceback.print_exception(type(error), error, error.__traceback__)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != globals().get("__file__") and "<" not in f.filename]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return {"error": f"{type(error).__name__}: {error}{place}"}


def main(path=None, *arguments):
    """Answers the lines of standard input. What the functions print goes to the log."""
    lines, answers = sys.stdin, os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdin, sys.stdout = open(os.devnull), sys.stderr
    pairs = [argument.split("=", 1) for argument in arguments if "=" in argument]
    names = [argument for argument in arguments if "=" not in argument] or ["compute_score"]
    functions, keywords, wrong = [compute_score], {}, None
    try:
        keywords = {name: json.loads(value) for name, value in pairs}
        functions = load(path, names) if path else functions
    except (Exception, SystemExit) as error:
        wrong = failure(error)
    for line in lines:
        row = json.loads(line)
        try:
            answer = wrong or score(functions, row, keywords)
        except Exception as error:
            answer = failure(error)
        print(json.dumps({**answer, "id": row["id"]}, default=float), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
