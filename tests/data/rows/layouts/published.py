#!/usr/bin/env python3
"""Writes a data set of two rows in each of the published layouts that tests/data/rows/layouts/published.yaml lists.

usage: tests/data/rows/layouts/published.py DIR [--pack] [--help]
  DIR     a new folder. It gets one folder per layout, with the images that the rows name.
  --pack  also writes the files to tests/data/rows/layouts/published.zip, which the tests read.
Files of Parquet and Arrow need pyarrow (pip install pyarrow). Without it they are copied from published.zip.
"""
import base64
import json
import struct
import sys
import zipfile
import zlib
from pathlib import Path

PACKED = Path(__file__).resolve().with_name("published.zip")


def png(i):
    """Returns a PNG of 56 x 56 pixels in one of two colours."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    pixels = zlib.compress((b"\0" + bytes([200 * i, 90, 60] * 56)) * 56, 9)
    head = struct.pack(">IIBBBBB", 56, 56, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def colour(i):
    return ["blue", "red"][i]


def image(i):
    """Returns an image as `datasets` stores it."""
    return {"bytes": png(i), "path": f"{i}.png"}


def text(value):
    return {"type": "text", "text": value}


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def human(value):
    return {"from": "human", "value": value}


def gpt(value):
    return {"from": "gpt", "value": value}


ASK = "Which colour is it?"
MARKED = "<image>" + ASK
COLOURS = ["blue", "red", "green", "white"]


def reasoned(i):
    return f"<think>It is {colour(i)}.</think><answer>{colour(i)}</answer>"


def geo3k(i, **more):
    extra = {"split": "train", "index": i, "answer": colour(i), "question": MARKED, **more}
    reward = {"style": "rule", "ground_truth": colour(i)}
    return {"data_source": "hiyouga/geometry3k", "prompt": [user(MARKED)], "images": [image(i)], "ability": "math",
            "reward_model": reward, "extra_info": extra}


def science(i, image):
    return {"image": image, "question": ASK, "choices": COLOURS, "answer": i, "hint": "", "task": "closed choice",
            "grade": "grade2", "subject": "natural science", "topic": "physics", "category": "Light", "skill": "See",
            "lecture": "Light has colours.", "solution": f"It is {colour(i)}."}


def geometry3k(i):
    return {"problem_text": ASK, "choices": COLOURS, "precise_value": [1.0, 2.0, 3.0, 4.0], "answer": "AB"[i], "data_type": "train",
            "id": i, "problem_type_graph": ["Other"], "problem_type_goal": ["Other"]}


def mmmu(i):
    more = {f"image_{n}": None for n in range(2, 8)}
    return {"id": f"validation_Art_{i}", "question": "<image 1> " + ASK, "options": str(COLOURS), "explanation": "", "image_1": image(i),
            **more, "img_type": "['Photo']", "answer": "AB"[i], "topic_difficulty": "Easy", "question_type": "multiple-choice"}


def docvqa(i):
    return {"questionId": str(i), "question": ASK, "question_types": ["handwritten"], "image": image(i), "docId": 7 + i,
            "answers": [colour(i), colour(i).upper()], "data_split": "val"}


def vqa(i):
    answers = [{"answer": COLOURS[n], "answer_confidence": "yes", "answer_id": n + 1} for n in [i, i, 2]]
    return {"question_type": "what", "multiple_choice_answer": colour(i), "answers": answers, "image_id": i, "answer_type": "other",
            "question_id": i, "question": ASK, "image": image(i)}


def function(role):
    return {"from": role, "value": '{"name": "look", "arguments": {}}'}


# The path of each file of rows, and the row number `i`. The content depends on the ending: .json is an array.
LAYOUTS = {
    "llama_factory/mllm_demo.json": lambda i: {"messages": [user(MARKED), assistant(colour(i))], "images": [f"{i}.png"]},
    "llama_factory_alpaca/alpaca_en_demo.json": lambda i: {"instruction": ASK, "input": f"Image {i}.", "output": colour(i)},
    "llama_factory_v1/v1_multimodal_demo.jsonl": lambda i: {"messages": [
        user([{"type": "image_url", "value": f"{i}.png"}, {"type": "text", "value": ASK}]) | {"loss_weight": 0.0},
        assistant([{"type": "text", "value": colour(i)}]) | {"loss_weight": 1.0}]},
    "llama_factory_tools/glaive_toolcall_en_demo.json": lambda i: {"conversations": [
        human(ASK), function("function_call"), function("observation"), gpt(colour(i))], "tools": '[{"name": "look"}]'},
    "llama_factory_dpo/dpo_en_demo.json": lambda i: {"conversations": [human(ASK)], "chosen": gpt(colour(i)), "rejected": gpt("no")},
    "llama_factory_video/mllm_video_demo.json": lambda i: {
        "messages": [user("<video>" + ASK), assistant(colour(i))], "videos": [f"{i}.mp4"]},
    "verl/geo3k.parquet": geo3k,
    "verl_tools/geo3k_multiturn_w_tool.parquet": lambda i: geo3k(i, need_tools_kwargs=True, tools_kwargs={
        "calc_geo3k_reward": {"create_kwargs": {"ground_truth": colour(i)}}}),
    "verl_sft/pokemon.parquet": lambda i: {"messages": [user(MARKED), assistant(colour(i))], "images": [image(i)]},
    "easyr1/geometry3k.parquet": lambda i: {"images": [image(i)], "problem": MARKED, "answer": colour(i)},
    "easyr1_multi/multi_image.parquet": lambda i: {"images": [image(i), image(1 - i)], "problem": "<image>" + MARKED, "answer": colour(i)},
    "trl/multimodal_open_r1_8k.parquet": lambda i: {"image": image(i), "problem": ASK, "solution": reasoned(i),
        "original_question": ASK, "original_answer": colour(i)},
    "r1_v/geoqa.parquet": lambda i: {"image": image(i), "problem": ASK, "solution": f"<answer> {colour(i)} </answer>"},
    "trl_completion/train.parquet": lambda i: {"prompt": [user(ASK)], "completion": [assistant(colour(i))], "images": [image(i)]},
    "trl_vsft/llava_instruct_mix.parquet": lambda i: {"messages": [
        user([{"type": "text", "text": ASK, "index": None}, {"type": "image", "text": None, "index": 0}]),
        assistant([{"type": "text", "text": colour(i), "index": None}])], "images": [image(i)]},
    "cookbook/data-00000-of-00001.arrow": lambda i: {"messages": [
        user([{"type": "image", "text": None}, text(ASK)]), assistant([text(colour(i))])], "images": [image(i)]},
    "ms_swift/query.jsonl": lambda i: {"system": "Look.", "query": MARKED, "response": colour(i), "history": [["Ready?", "Yes."]],
        "images": [f"{i}.png"]},
    "ms_swift_conversation/conversation.jsonl": lambda i: {"system": "Look.", "conversation": [
        {"human": "Ready?", "assistant": "Yes."}, {"human": ASK, "assistant": colour(i)}]},
    "ms_swift_grounding/grounding.jsonl": lambda i: {
        "messages": [user("<image>Where is <ref-object>?"), assistant("<bbox>")], "images": [f"{i}.png"],
        "objects": {"ref": ["it"], "bbox": [[0, 0, 56, 56]]}},
    "ms_swift_grpo/grpo.jsonl": lambda i: {"messages": [user(MARKED)], "images": [f"{i}.png"], "solution": colour(i)},
    "vero/train.parquet": lambda i: {"prompt": [{"role": "system", "content": [{"type": "text", "text": "Look.", "image": None}]},
        user([{"type": "image", "text": None, "image": f"{i}.png"}, {"type": "text", "text": ASK, "image": None}])],
        "images": [f"{i}.png"], "answer": colour(i), "reward_type": "string_match", "data_source": "colours", "domain": "general"},
    "scienceqa/problems.json": lambda i: science(i, None) | {"split": "train"},
    "scienceqa_hub/train.parquet": lambda i: science(i, image(i)),
    "chartqa/train_human.json": lambda i: {"imgname": f"{i}.png", "query": ASK, "label": colour(i)},
    "chartqa_hub/train.parquet": lambda i: {"image": image(i), "query": ASK, "label": [colour(i)], "human_or_machine": 0},
    "a_okvqa/train.parquet": lambda i: {"image": image(i), "question_id": f"q{i}", "question": ASK, "choices": COLOURS,
        "correct_choice_idx": i, "direct_answers": str([colour(i)] * 10), "rationales": ["It shows."]},
    "llava/sharegpt4v_instruct.json": lambda i: {"id": f"{i}", "image": f"{i}.png", "conversations": [
        human("<image>\n" + ASK), gpt(colour(i))]},
    "llava_onevision/train.parquet": lambda i: {"id": f"{i}", "image": image(i), "conversations": [
        human("<image>\n" + ASK), gpt(colour(i))], "data_source": "colours"},
    "cauldron/train.parquet": lambda i: {"images": [image(i)], "texts": [{"user": ASK, "assistant": colour(i), "source": "colours"},
        {"user": "Sure?", "assistant": "Yes.", "source": "colours"}]},
    "mathverse/testmini.json": lambda i: {"sample_index": f"{i}", "problem_index": f"{i}", "problem_version": "Text Dominant",
        "question": ASK, "image": f"{i}.png", "answer": colour(i), "question_type": "free-form", "metadata": {"split": "testmini"},
        "query_wo": ASK, "query_cot": ASK},
    "geometry3k/train/0/data.json": geometry3k,
    "docvqa/validation.parquet": docvqa,
    "vqav2/validation.parquet": vqa,
    "mmmu/validation.parquet": mmmu,
    "latex_ocr/train.parquet": lambda i: {"image": image(i), "text": f"x^{i}"},
    "nemotron/train.jsonl": lambda i: {"id": f"{i}", "messages": [user([{"type": "image", "image": f"{i}.png"}, text(ASK)]),
        assistant([text(colour(i))])]},
    "openai/train.jsonl": lambda i: {"messages": [user([text(ASK), {"type": "image_url", "image_url": {
        "url": "data:image/png;base64," + base64.b64encode(png(i)).decode()}}]), assistant(colour(i))]},
    "xcomposer/data.json": lambda i: {"id": f"{i}", "image": [f"{i}.png"], "conversations": [
        {"from": "user", "value": "<ImageHere> " + ASK}, {"from": "assistant", "value": colour(i)}]},
}
# Files that are no arrays of rows.
WHOLE = {
    "scienceqa/problems.json": lambda rows: {f"{7 + i}": row for i, row in enumerate(rows)},
    "geometry3k/train/0/data.json": lambda rows: rows[0],
}


def write(root, name, row):
    path = root / name
    path.parent.mkdir(parents=True)
    rows = [row(i) for i in range(2)]
    for i in range(2):
        (path.parent / f"{i}.png").write_bytes(png(i))
    if path.suffix in (".parquet", ".arrow"):
        table(path, name, rows)
        return
    whole = WHOLE.get(name, lambda rows: rows)(rows)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(lines if path.suffix == ".jsonl" else json.dumps(whole, indent=2) + "\n")


def table(path, name, rows):
    try:
        import pyarrow.parquet
    except ImportError:
        with zipfile.ZipFile(PACKED) as packed:
            path.write_bytes(packed.read(name))
        return
    made = pyarrow.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(made, path, write_statistics=False)
    else:
        with pyarrow.ipc.new_stream(str(path), made.schema) as out:
            out.write_table(made)


def pack(root):
    with zipfile.ZipFile(PACKED, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            member = zipfile.ZipInfo(path.relative_to(root).as_posix())
            member.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(member, path.read_bytes())


def main():
    args = [arg for arg in sys.argv[1:] if arg != "--pack"]
    if args in (["-h"], ["--help"]):
        print(__doc__.strip())
        return
    if len(args) != 1 or args[0].startswith("-"):
        sys.exit(f"tests/data/rows/layouts/published.py: found {args}, expected one folder\n{__doc__}")
    root = Path(args[0])
    if root.exists():
        sys.exit(f"tests/data/rows/layouts/published.py: {root} exists, expected a new folder")
    for name, row in LAYOUTS.items():
        write(root, name, row)
    if "--pack" in sys.argv:
        pack(root)


if __name__ == "__main__":
    main()
