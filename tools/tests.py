"""Tests of tools/pages, and of the parts of tools/smollm2 that need no package. `tools/check` runs them."""
import contextlib
import io
import json
import re
import struct
import unittest

from gpu_check.tests import loaded

smollm2, pages = loaded("smollm2"), loaded("pages")


def bits(value):
    return struct.unpack("<I", struct.pack("<f", value))[0]


class SmolLM2(unittest.TestCase):
    def refused(self, parts, function, *arguments):
        with self.assertRaises(SystemExit) as ended:
            function(*arguments)
        for part in parts:
            self.assertIn(part, str(ended.exception))

    def test_tensors_have_their_hugging_face_names(self):
        for name, want in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output_norm.weight", "model.norm.weight"),
            ("output.weight", "lm_head.weight"),
            ("blk.12.attn_q.weight", "model.layers.12.self_attn.q_proj.weight"),
            ("blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
        ]:
            self.assertEqual(smollm2.tensor_name(name), want)
        for name in ["blk.0.attn_q.bias", "blk.0.ffn_gate_inp.weight", "rope_freqs.weight", "output"]:
            self.refused([name, "expected those of a Llama model"], smollm2.tensor_name, name)

    def test_rows_of_q_are_in_halves_instead_of_pairs(self):
        # Two heads of four rows.
        self.assertEqual(smollm2.rotary_order(8, 2), [0, 2, 1, 3, 4, 6, 5, 7])
        self.assertEqual(smollm2.rotary_order(6, 1), [0, 2, 4, 1, 3, 5])

    def test_bf16_rounds_to_the_nearest_even(self):
        for value, want in [(1.0, 0x3F80), (-2.5, 0xC020), (1 + 2**-8, 0x3F80), (1 + 3 * 2**-8, 0x3F82), (1 + 2**-8 + 2**-20, 0x3F81)]:
            self.assertEqual(smollm2.bfloat16(bits(value)), want, value)

    def test_the_tokenizer_has_the_vocabulary_and_splits_digits(self):
        arguments = [["<s>", "a", "b", "ab"], [3, 1, 1, 1], ["a b"]]
        made = smollm2.tokenizer(*arguments, "smollm")
        self.assertEqual(made["model"]["vocab"], {"<s>": 0, "a": 1, "b": 2, "ab": 3})
        self.assertEqual(made["model"]["merges"], [["a", "b"]])
        self.assertEqual([(token["id"], token["content"], token["special"]) for token in made["added_tokens"]], [(0, "<s>", True)])
        kinds = [[part["type"] for part in smollm2.tokenizer(*arguments, pre)["pre_tokenizer"]["pretokenizers"]] for pre in ["smollm", "gpt-2"]]
        self.assertEqual(kinds, [["Digits", "ByteLevel"], ["ByteLevel"]])
        self.refused(["found the tokenizer llama-bpe"], smollm2.tokenizer, *arguments, "llama-bpe")
        self.refused(["kinds [1, 6]"], smollm2.tokenizer, ["a", "b"], [1, 6], [], "smollm")

    def test_the_configs_have_the_values_of_the_file(self):
        fields = {
            "llama.embedding_length": 576, "llama.feed_forward_length": 1536, "llama.block_count": 30, "llama.attention.head_count": 9,
            "llama.attention.head_count_kv": 3, "llama.context_length": 8192, "llama.attention.layer_norm_rms_epsilon": 9.999999747378752e-06,
            "llama.rope.freq_base": 1e5, "tokenizer.ggml.tokens": ["<e>", "<b>", "<p>"], "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 0, "tokenizer.ggml.padding_token_id": 2, "tokenizer.ggml.unknown_token_id": 0, "tokenizer.chat_template": "T",
        }
        config = smollm2.config(fields.__getitem__, True, "bf16")
        self.assertEqual((config["rms_norm_eps"], config["vocab_size"], config["torch_dtype"]), (1e-5, 3, "bfloat16"))
        self.assertEqual((config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]), (1, 0, 2))
        tokens = smollm2.tokenizer_config(fields.__getitem__)
        self.assertEqual([tokens[f"{name}_token"] for name in ("bos", "eos", "pad", "unk")], ["<b>", "<e>", "<p>", "<e>"])
        self.assertTrue(json.dumps(config) and json.dumps(tokens))

    def test_wrong_arguments_are_named(self):
        with contextlib.redirect_stderr(io.StringIO()) as said, self.assertRaises(SystemExit):
            smollm2.parse(["out", "--dtype", "f16"])
        self.assertIn("f16", said.getvalue())


class Pages(unittest.TestCase):
    def test_a_false_path_or_link_is_found(self):
        text = "`configs/digits.yaml`, [SFT](sft.md) and [its part](sft.md#the-best-checkpoint), `runs/digits`, `ops/mod.rs`"
        self.assertEqual(pages.path_problems("docs/user/rl.md", text), [])
        for planted, said in [
            ("`configs/digit.yaml`", "the path configs/digit.yaml does not exist"),
            ("[SFT](stf.md)", "the link stf.md leads nowhere"),
            ("[SFT](sft.md#the-worst)", "names no heading"),
            ("[config](../../configs/digits.yaml)", "leaves the site"),
            ("`src/base/lib.rs`", "is a file for developers"),
            ("`ops/mot.rs`", "the path src/runtime/ops/mot.rs does not exist"),
        ]:
            self.assertIn(said, " ".join(pages.path_problems("docs/user/rl.md", text + planted)), planted)

    def test_a_false_figure_is_found(self):
        module = pages.figures()
        for page in module.PAGES:
            text = (pages.ROOT / page).read_text()
            self.assertEqual(pages.figure_problems(page, text, module), [], page)
            number = re.search(r"<!-- figures:.*?\n\|[^\n]* (\d+\.\d)", text, re.S)
            planted = text[:number.start(1)] + "99.9" + text[number.end(1):]
            self.assertIn("differs from bench/results", " ".join(pages.figure_problems(page, planted, module)), page)
        self.assertIn("does not know the page", pages.figure_problems("docs/user/sft.md", "\n<!-- figures:cpu -->", module)[0])

    def test_a_false_command_flag_or_key_is_found(self):
        path = pages.ROOT / "target/release/omr"
        if not path.is_file():
            self.skipTest("needs target/release/omr")
        program = pages.Program(path)
        self.addCleanup(program.folder.cleanup)
        checker = pages.Checker(program)
        made = "cat > a.yaml <<'YAML'\nmodel: base\nYAML\n"
        right = "omr sft a.yaml --out runs/a learning_rate=1e-4 --gpus 2  # `learning_rate=1`\nprintf x | omr score --jsonl"
        self.assertEqual(checker.page("docs/user/sft.md", f"```sh\n{made}{right}\n```\nSet `rollout.n=16`, `omr plan CONFIG --gpus N`."), [])
        for planted, said in [
            (f"```sh\n{made}omr sft a.yaml --out runs/a learning_rat=1\n```", "unknown key learning_rat"),
            ("```sh\nomr sft a.yaml --out runs/a learning_rate=fast\n```", "learning_rate: found fast"),
            ("```sh\nomr sft a.yaml --oud runs/a\n```", "--oud"),
            ("```sh\nsrun omr stf a.yaml --out runs/a\n```", "stf"),
            ("```sh\ncat > a.yaml <<'YAML'\nmodell: base\nYAML\n```", "modell"),
            ("```yaml\nrollout: {m: 8}\n```", "rollout.m"),
            ("Set `omr rl CONFIG --out DIR --fres` or", "--fres"),
            ("Set `rollout.m=16` or", "no config has the key rollout.m"),
            ("Set `--lora-module NAME` or", "no command has the flag --lora-module"),
        ]:
            self.assertIn(said, " ".join(checker.page("docs/user/sft.md", planted)), planted)


if __name__ == "__main__":
    unittest.main()
