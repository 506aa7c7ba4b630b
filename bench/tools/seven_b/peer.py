"""Runs transformers on the model directory of bench/tools/seven-b: greedy generation in bf16, and log-probs of given tokens in
bf16 and in f32. Reads a JSON object from stdin and prints one."""
import json
import sys
import time

import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration


def in_f32(module):
    """Converts the weights of a module to f32 while it computes. All layers together do not fit into memory in f32."""
    stored = {}

    def before(*_):
        for p in module.parameters():
            stored[p] = p.data
            p.data = p.data.float()

    def after(*_):
        for p, data in stored.items():
            p.data = data
        stored.clear()

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)


def logprobs(model, inputs, ids):
    """Log-probs of `ids` after the prompt, and the most likely id at each place."""
    whole = dict(inputs)
    answer = torch.tensor([ids])
    whole["input_ids"] = torch.cat([inputs["input_ids"], answer], dim=1)
    whole["attention_mask"] = torch.ones_like(whole["input_ids"])
    if "mm_token_type_ids" in inputs:
        kinds = inputs["mm_token_type_ids"]
        whole["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(answer)], dim=1)
    with torch.no_grad():
        logits = model(**whole, use_cache=False, logits_to_keep=len(ids) + 1).logits[0, :-1].double()
    of_all = torch.log_softmax(logits, dim=-1)
    two = of_all.topk(2, dim=-1)
    return {"logprobs": of_all[torch.arange(len(ids)), answer[0]].tolist(), "argmax": two.indices[:, 0].tolist(),
            "margin": (two.values[:, 0] - two.values[:, 1]).tolist()}


def main():
    ask = json.load(sys.stdin)
    torch.set_num_threads(ask["threads"])
    processor = AutoProcessor.from_pretrained(ask["model"])
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ask["question"]}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = dict(processor(text=[text], images=[Image.open(ask["picture"]).convert("RGB")], return_tensors="pt"))
    begun = time.time()
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(ask["model"], dtype=torch.bfloat16).eval()
    out = {"load_s": time.time() - begun, "prompt_tokens": inputs["input_ids"].shape[1]}
    if "loss" in ask:
        model = model.float()
        found = logprobs(model, inputs, processor.tokenizer(ask["loss"], add_special_tokens=False)["input_ids"])
        print(json.dumps({"loss": -sum(found["logprobs"]) / len(found["logprobs"])}))
        return
    if ask["tokens"] > 0:
        times = []

        def stop(ids, scores, **_):
            times.append(time.time())
            return torch.zeros(ids.shape[0], dtype=torch.bool)

        model.generation_config.eos_token_id = None
        begun = time.time()
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=ask["tokens"], stopping_criteria=[stop])
        out |= {"first_token_s": times[0] - begun, "token_s": (times[-1] - times[0]) / max(len(times) - 1, 1)}
        out["ids"] = ids[0, inputs["input_ids"].shape[1]:].tolist()
    begun = time.time()
    out["bf16"] = logprobs(model, inputs, ask["ids"])
    out["forward_s"] = time.time() - begun
    begun = time.time()
    model.model.visual.float()
    language = model.model.language_model
    for module in [*language.layers, language.embed_tokens, language.norm, model.lm_head]:
        in_f32(module)
    out["f32"] = logprobs(model, inputs, ask["ids"])
    out["f32_forward_s"] = time.time() - begun
    print(json.dumps(out))


main()
