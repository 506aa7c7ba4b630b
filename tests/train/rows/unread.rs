//! Tests rows of published layouts that were read in part without a word: each is understood or refused.

use std::fs;
use std::sync::Arc;

use omr_base::config::{DatasetConfig, ProgramConfig, Rewards, SftConfig, load};
use omr_data::reward::{Item, Mode, Scorer};
use omr_data::rows::read::RowFile;
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_data::rows::{Form, ReadCounts, Row, read, text_of, write};
use omr_data_tests::rows::layouts::made;
use omr_model_tests::models::encoder;
use serde_json::{Value, json};

use crate::training::tiny::base_model;

/// Writes rows beside four images. Returns the folder, and the data set `{path: rows.jsonl, KEYS}` of a config.
fn entry(rows: &[Value], keys: &str) -> (tempfile::TempDir, DatasetConfig) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    fs::write(at("rows.jsonl"), lines.join("\n")).unwrap();
    for name in ["0.png", "1.png"] {
        fs::copy(made().join("vero/pics").join(name), at(name)).unwrap();
    }
    fs::write(at("sft.yaml"), format!("datasets: [{{path: {}{keys}}}]\n", at("rows.jsonl").display())).unwrap();
    let config: SftConfig = load(Some(&at("sft.yaml")), &[], &|_| None).unwrap();
    (dir, config.datasets[0].clone())
}

/// Reads rows as the data set `{path: rows.jsonl, KEYS}`. Returns the rows or the text of the error.
fn loaded(rows: &[Value], keys: &str) -> Result<Vec<Row>, String> {
    let (_dir, entry) = entry(rows, keys);
    read::read(&entry).map_err(|e| e.to_string())
}

/// Checks that a row is refused with an error that has these parts, and that it loads once the entry has `keys`.
fn refused(row: &Value, parts: &[&str], keys: &str) {
    let error = loaded(std::slice::from_ref(row), "").unwrap_err();
    assert!(error.contains("rows.jsonl row 1") && parts.iter().all(|part| error.contains(part)), "{error}");
    let found = loaded(std::slice::from_ref(row), keys);
    assert!(found.as_ref().is_ok_and(|rows| rows.len() == 1), "{keys}: {found:?}");
}

fn asked(row: &Row) -> String {
    text_of(row.messages.iter().rfind(|message| message.role == "user").unwrap())
}

fn scienceqa() -> Value {
    json!({"image": "0.png", "question": "Which colour are the bars?", "choices": ["red", "blue"], "answer": 1,
        "hint": "Look.", "solution": "The bars are blue."})
}

#[test]
fn the_choices_of_scienceqa_are_not_dropped_with_their_index_as_the_label() {
    refused(
        &scienceqa(),
        &["a value in `choices`, which is not read", "prompt: multiple_choice"],
        ", columns: {choices: ''}",
    );
    let row = json!({"question": "q?", "options": ["x", "y"], "answer": "B"});
    refused(&row, &["`options`", "columns: {options: ''}"], ", columns: {options: ''}");
    // As in MMMU, a list as Python writes it.
    refused(
        &json!({"question": "q?", "options": "['x', 'y']", "answer": "B"}),
        &["`options`"],
        ", prompt: multiple_choice",
    );
    // Rows that are complete without the column load, but not if the label counts the options.
    for (question, options, answer, loads) in [
        ("Red or blue?\nA. red\nB. blue", json!(["red", "blue"]), json!("B"), true),
        ("How many: 3, 4 or 12?", json!([3, 4, 12]), json!("12"), true),
        ("34 of 12?", json!(["3", "4", "12"]), json!("12"), false),
        ("Red or blue?\nA. red\nB. blue", json!(["red", "blue"]), json!(1), false),
        ("q?", json!([]), json!("B"), true),
        ("q?", json!("[]"), json!("B"), true),
        ("q?", json!(null), json!("B"), true),
    ] {
        let row = json!({"question": question, "options": options, "answer": answer});
        assert_eq!(loaded(std::slice::from_ref(&row), "").is_ok(), loads, "{row}");
    }
}

#[test]
fn multiple_choice_loads_scienceqa_a_okvqa_and_ai2d() {
    let template = ", prompt: multiple_choice";
    let one = |row: Value, keys: &str| loaded(&[row], &format!("{template}{keys}")).map(|mut rows| rows.remove(0));
    let label = |row: &Row| row.ground_truth.clone().unwrap();
    let row = one(scienceqa(), "").unwrap();
    assert_eq!(asked(&row), "Context: Look.\nWhich colour are the bars?\nA. red\nB. blue");
    assert_eq!((label(&row), text_of(row.trained_messages().last().unwrap()).as_str()), ("B".into(), "B"));
    let okvqa = json!({"question": "q?", "choices": ["car", "bus", "tram"], "correct_choice_idx": 2, "direct_answers": "['tram', 'rail']"});
    assert_eq!(label(&one(okvqa.clone(), "").unwrap()), "C");
    assert_eq!(label(&one(okvqa.clone(), ", columns: {answer: correct_choice_idx}").unwrap()), "C");
    let open = &loaded(&[okvqa], ", columns: {answer: direct_answers, choices: ''}").unwrap()[0];
    assert_eq!((label(open), &open.extra["right_answers"]), ("tram".into(), &json!(["tram", "rail"])));
    // CommonsenseQA and ARC name their options.
    let named = |labels: Value, answer: &str| json!({"question": "q?", "choices": {"label": labels, "text": ["bank", "mall"]}, "answer": answer});
    let row = one(named(json!(["A", "B"]), "B"), "").unwrap();
    assert_eq!((asked(&row).as_str(), label(&row).as_str()), ("q?\nA. bank\nB. mall", "B"));
    assert_eq!(label(&one(named(json!(["1", "2"]), "1"), "").unwrap()), "A");
    // AI2D counts in texts. A text that is also another option could mean either.
    let ai2d = |options: [&str; 4], answer: &str| json!({"question": "q?", "options": options, "answer": answer});
    assert_eq!(label(&one(ai2d(["a", "b", "c", "d"], "3"), "").unwrap()), "D");
    let counts = ai2d(["0", "1", "2", "4"], "1");
    assert_eq!(label(&one(counts, "").unwrap()), "B");
    let either = ai2d(["1", "2", "3", "4"], "1");
    let error = one(either.clone(), "").unwrap_err();
    assert!(error.contains("columns: {answer_index: NAME}"), "{error}");
    assert_eq!(label(&one(either.clone(), ", columns: {answer_index: answer}").unwrap()), "B");
    assert_eq!(label(&one(either, ", columns: {answer_index: ''}").unwrap()), "A");
    assert_eq!(label(&one(ai2d(["", "b", "c", ""], "2"), "").unwrap()), "C");
    let error = one(ai2d(["a", "b", "c", "d"], "E"), "").unwrap_err();
    assert!(error.contains("found E in `answer`"), "{error}");
    let error = one(json!({"question": "q?", "answer": "A"}), "").unwrap_err();
    assert!(error.contains("no column `choices` or `options`"), "{error}");
}

#[test]
fn videos_objects_and_tools_are_not_trained_as_marks_or_dropped() {
    let chat = |more: Value| {
        let mut row = json!({"messages": [{"role": "user", "content": "<video>Why? <bbox>"}, {"role": "assistant", "content": "So."}]});
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let none = |name: &str| format!(", columns: {{{name}: ''}}");
    refused(&chat(json!({"kto_tag": false})), &["a value in `kto_tag`"], &none("kto_tag"));
    // TRL's rows for KTO. Of other data sets, `label` is a class or a text.
    refused(&json!({"prompt": "q?", "completion": "bad", "label": false}), &["a value in `label`"], &none("label"));
    loaded(&[json!({"prompt": "q?", "completion": "good", "label": 3})], "").unwrap();
    refused(&chat(json!({"videos": ["a.mp4"]})), &["video files are not supported"], &none("videos"));
    refused(
        &chat(json!({"objects": {"ref": ["cat"], "bbox": [[1, 2, 3, 4]]}})),
        &["coordinates in the text"],
        &none("objects"),
    );
    refused(&chat(json!({"tools": "[{\"name\": \"zoom\"}]"})), &["tools are not supported"], &none("tools"));
    loaded(&[chat(json!({"videos": [], "tools": null, "objects": {"ref": [], "bbox": []}}))], "").unwrap();
    // The reasoning of a message is a part of its answer.
    for name in ["reasoning_content", "reasoning", "thinking"] {
        let answer = json!({"role": "assistant", "content": "So.", name: "Because."});
        let row = &loaded(&[json!({"messages": [{"role": "user", "content": "Why?"}, answer]})], "").unwrap()[0];
        assert_eq!(text_of(&row.messages[1]), "<think>\nBecause.\n</think>\n\nSo.");
    }
    let labels =
        ["final_answer", "expected_answer"].map(|name| loaded(&[json!({"problem": "q?", name: "3"})], "").unwrap());
    assert!(labels.iter().all(|rows| rows[0].ground_truth.as_deref() == Some("3")));
    let listed = json!({"role": "system", "content": "Tools: zoom, crop."});
    let row = json!({"messages": [listed, {"role": "user", "content": "q"}], "tools": ["zoom", "crop"]});
    loaded(&[row], "").unwrap();
    // verl's geo3k_multiturn_w_tool.
    let prompt = json!([{"role": "user", "content": "What is x? 3 or 4?"}]);
    let extra = json!({"need_tools_kwargs": true, "tools_kwargs": {"calc": {"create_kwargs": {"ground_truth": "3"}}}});
    let row = json!({"prompt": prompt, "reward_model": {"ground_truth": "3"}, "extra_info": extra});
    refused(&row, &["`extra_info.tools_kwargs`", "no tools"], &none("tools_kwargs"));
}

#[test]
fn turns_with_loss_weight_0_are_not_trained() {
    for name in ["loss_weight", "loss_scale"] {
        refused(&json!({"question": "q", "answer": "a", name: 0.5}), &[name], &format!(", columns: {{{name}: ''}}"));
    }
    let chat = |name: &str, value: f64| {
        let answer = json!({"role": "assistant", "content": "a", name: value});
        json!({"messages": [{"role": "user", "content": "q", "loss_weight": 0.0}, answer]})
    };
    refused(
        &chat("loss_scale", 0.0),
        &["`messages[1].loss_scale`", "`loss`, `weight` or `loss_weight`"],
        ", columns: {loss_scale: ''}",
    );
    // LLaMA-Factory v1 writes the weight of every turn.
    let found = loaded(&[chat("loss_weight", 0.0), chat("loss_weight", 1.0)], "").unwrap();
    assert_eq!(found.iter().map(|row| row.messages[1].masked).collect::<Vec<_>>(), [true, false]);
    let error = loaded(&[chat("loss_weight", 0.5)], "").unwrap_err();
    assert!(error.contains("loss_weight 0.5 in messages[1], which has role assistant, expected 0 or 1"), "{error}");
}

#[test]
fn second_images_and_numbered_marks_are_not_dropped() {
    let mmmu = json!({"question": "<image>See <image 2>.", "answer": "A", "image_1": "0.png", "image_2": "1.png"});
    let error = loaded(&[mmmu], ", columns: {images: image_1}").unwrap_err();
    assert!(error.contains("a value in `image_2`") && error.contains("one column"), "{error}");
    let marked = json!({"question": "See <image 1>.", "answer": "A", "image": "0.png"});
    assert!(loaded(&[marked], "").unwrap_err().contains("image marks, such as `<image 1>`"));
    // A column of any name is found by its content.
    let row = json!({"question": "q", "answer": "1", "image": "0.png", "mask": "1.png"});
    let check = |keys: &str| {
        let (_dir, entry) = entry(std::slice::from_ref(&row), keys);
        let mut counts = ReadCounts::default();
        read::read(&entry).unwrap().iter().for_each(|row| counts.add(row));
        counts.with_columns(&RowFile::open(&[entry]).unwrap()).unwrap().check()
    };
    let error = check("").unwrap_err().to_string();
    assert!(error.contains("`mask` with images that is not read") && error.contains("{mask: ''}"), "{error}");
    check(", columns: {mask: ''}").unwrap();
}

#[test]
fn preference_rows_say_that_dpo_is_not_supported() {
    let [good, bad] = ["yes", "no"].map(|text| json!([{"role": "assistant", "content": text}]));
    let prompt = json!([{"role": "user", "content": "q"}]);
    refused(&json!({"prompt": prompt, "chosen": good, "rejected": bad}), &["DPO"], ", columns: {chosen: ''}");
    let error = loaded(&[json!({"chosen": good, "rejected": bad})], "").unwrap_err();
    assert!(error.contains("preference rows (DPO) are not supported"), "{error}");
    // UltraFeedback's messages are the preferred conversation, so SFT loses nothing.
    let messages = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "yes"}]);
    loaded(&[json!({"messages": messages, "chosen": good, "rejected": bad})], "").unwrap();
}

#[test]
fn any_of_several_right_answers_is_right() {
    let vqa = |text: &str| json!({"answer": text, "answer_confidence": "yes", "answer_id": 1});
    let rows = [
        json!({"question": "Date?", "answers": ["5 May", "May 5"]}),
        json!({"question": "What?", "answers": [vqa("net"), vqa("racket"), vqa("racket")]}),
    ];
    let found = loaded(&rows, "").unwrap();
    assert_eq!(found.iter().map(|row| row.ground_truth.as_deref().unwrap()).collect::<Vec<_>>(), ["5 May", "racket"]);
    // The answers survive the data stages.
    let dir = tempfile::tempdir().unwrap();
    write::write(&dir.path().join("rows.parquet"), &found, Form::Rl).unwrap();
    let again = read::read(&read::entry(dir.path().join("rows.parquet"))).unwrap();
    for (row, answers, wrong) in [(0, ["5 May", "May 5"], "6 June"), (1, ["racket", "net"], "ball")] {
        for row in [&found[row], &again[row]] {
            let right = |answer: &str| {
                let (response, ground_truth) =
                    (format!("<answer>{answer}</answer>"), row.ground_truth.clone().unwrap());
                Scorer::rules(Mode::Strict).by_rules(&Item { response, ground_truth, ..row.item() }).unwrap().acc_score
            };
            assert_eq!((answers.map(&right), right(wrong)), ([1.0, 1.0], 0.0));
        }
    }
    // Beside a label, `answers` may be a list of options.
    let both = json!({"question": "q?", "answer": "red", "answers": ["red", "blue"]});
    assert_eq!(loaded(std::slice::from_ref(&both), "").unwrap()[0].extra.get("right_answers"), None);
    let named = loaded(&[both], ", columns: {answer: answer, answers: answers}").unwrap();
    assert_eq!(named[0].extra["right_answers"], json!(["red", "blue"]));
}

#[test]
fn rl_refuses_rows_with_an_empty_answer() {
    let dir = tempfile::tempdir().unwrap();
    base_model(dir.path());
    let encoder = encoder(dir.path(), EncodingPurpose::Ask);
    let rows = loaded(&["", " ", "7"].map(|answer| json!({"question": "q", "answer": answer})), "").unwrap();
    let measured = rows.iter().map(|row| encoder.measure(row).map_err(|bad| bad.reason.name()));
    let ok: Vec<_> = measured.map(|measured| measured.map(|_| ())).collect();
    assert_eq!(ok, [Err("no_ground_truth"), Err("no_ground_truth"), Ok(())]);
}

#[test]
fn a_label_that_is_a_struct_is_a_bad_row_unless_a_program_scores_it() {
    let dir = tempfile::tempdir().unwrap();
    base_model(dir.path());
    let row = |kind: &str| json!({"question": "q", "answer": {"target": 98}, "extra_info": {"reward_type": kind}});
    let rows = loaded(&[row(""), row("countdown")], "").unwrap();
    let program =
        ProgramConfig { command: ["sh", "-c", "cat"].map(str::to_owned).to_vec(), ..ProgramConfig::default() };
    let programs = Rewards::from([("countdown".to_owned(), program)]);
    let scorer = Scorer::rules(Mode::Strict).with_programs(&programs, "rewards").unwrap();
    let asks = encoder(dir.path(), EncodingPurpose::Ask).scored_by(Arc::new(scorer));
    let measured =
        |i: usize| asks.measure(&rows[i]).map(drop).map_err(|bad| (bad.reason.name(), bad.error.to_string()));
    let (reason, text) = measured(0).unwrap_err();
    assert!(reason == "wrong_label" && text.contains("a struct as the label"), "{reason}: {text}");
    assert_eq!(measured(1), Ok(()));
    // SFT cannot train on it.
    let bad = encoder(dir.path(), EncodingPurpose::Train).measure(&rows[1]).unwrap_err();
    assert!(bad.error.to_string().contains("found a list or a struct as the answer"), "{}", bad.error);
}

#[test]
fn a_wrong_name_in_columns_is_found_in_json_and_names_the_columns_of_the_file() {
    let row = json!({"id": "1", "conversations": [{"from": "human", "value": "q"}], "image": null});
    let error = loaded(std::slice::from_ref(&row), ", columns: {messages: conversation}").unwrap_err();
    let parts = "found columns id, conversations, image, expected `conversation`, which columns.messages names";
    assert!(error.contains(parts), "{error}");
    let error = loaded(std::slice::from_ref(&row), ", columns: {capton: ''}").unwrap_err();
    assert!(error.contains("`capton`, which columns.capton names"), "{error}");
    // A column may occur only after the rows that are looked at first.
    let mut rows = vec![json!({"question": "q", "answer": "1"}); 1200];
    rows.push(json!({"question": "q", "answer": "1", "pic": "0.png"}));
    let found = loaded(&rows, ", columns: {images: pic}").unwrap();
    assert_eq!(found.iter().filter(|row| !row.images.is_empty()).count(), 1);
    let mut entry = read::entry(made().join("webdataset/squares-0000.tar"));
    entry.columns.question = Some("nothing".into());
    assert!(read::read(&entry).unwrap_err().to_string().contains("`nothing`, which columns.question names"));
}

#[test]
fn a_worked_solution_is_trained_and_the_short_answer_beside_it_is_the_label() {
    let row = json!({"problem": "What is 2 + 3?", "solution": "We add and get 5.", "answer": "5"});
    let rows = loaded(&[row], "").unwrap();
    assert_eq!(text_of(&rows[0].trained_messages()[1]), "We add and get 5.");
    assert_eq!(rows[0].ground_truth.as_deref(), Some("5"));
    for (solution, label) in [("generated_solution", "expected_answer"), ("r1_solution_1", "final_answer")] {
        let row = json!({"problem": "What is 2 + 3?", solution: "<think>2 + 3</think> It is 5.", label: "5"});
        let rows = loaded(&[row], "").unwrap();
        assert_eq!(text_of(&rows[0].trained_messages()[1]), "<think>2 + 3</think> It is 5.");
        assert_eq!(rows[0].ground_truth.as_deref(), Some("5"));
        let unlabelled = json!({"problem": "What is 2 + 3?", solution: "long", label: null});
        assert_eq!(loaded(&[unlabelled], "").unwrap()[0].ground_truth, None);
    }
    // Rows without a solution, or with several, are trained on the answer.
    for solution in [json!(""), json!(["one way", "another"]), json!(null)] {
        let rows = loaded(&[json!({"problem": "What is 2 + 3?", "solution": solution, "answer": "5"})], "").unwrap();
        assert_eq!(text_of(&rows[0].trained_messages()[1]), "5");
    }
}

#[test]
fn the_system_prompt_and_the_passage_of_a_question_are_not_dropped() {
    let orca = json!({"system_prompt": "Answer in French.", "question": "Yes?", "response": "Oui."});
    assert_eq!(text_of(&loaded(&[orca], "").unwrap()[0].messages[0]), "Answer in French.");
    let squad = json!({"context": "Ann has a cat.", "question": "Who has a cat?", "answer": "Ann"});
    refused(&squad, &["a value in `context`"], ", prompt: '{{ context }} {{ question }}'");
    let whole = json!({"context": "Ann has a cat.", "question": "Ann has a cat. Who?", "answer": "Ann"});
    assert!(loaded(&[whole], "").is_ok());
}

#[test]
fn options_in_columns_of_their_letters_are_not_dropped() {
    let row = json!({"question": "Which is red?", "A": "sky", "B": "blood", "answer": "B"});
    refused(&row, &["a value in `A`", "{{ A }}"], ", prompt: '{{ question }} A. {{ A }} B. {{ B }}'");
}

#[test]
fn an_answer_that_is_json_is_trained_as_it_is() {
    for answer in ["{\"name\": \"John\"}", "[{\"bbox_2d\": [1, 2], \"label\": \"cat\"}]"] {
        let rows = loaded(&[json!({"question": "Find it.", "response": answer})], "").unwrap();
        assert_eq!(text_of(&rows[0].messages[1]), answer);
    }
    let turns = "[{\"role\": \"assistant\", \"content\": \"yes\"}]";
    let rows = loaded(&[json!({"prompt": "Is it?", "completion": turns})], "").unwrap();
    assert_eq!(text_of(&rows[0].messages[1]), "yes");
}

#[test]
fn marks_of_images_that_no_one_reads_are_refused_in_any_spelling() {
    for question in ["Add <image1>.", "Add <image_1>.", "<|image_1|> Add.", "<|vision_start|><|image_pad|>Add."] {
        let row = json!({"question": question, "answer": "5", "images": ["0.png", "1.png"]});
        refused(&row, &["other image marks"], ", prompt: '<image><image>{{ answer }}'");
    }
    // MathVision's mark of its only image stays in the text, as in lmms-eval.
    let row = json!({"question": "Add <image1>.", "answer": "5", "images": ["0.png"]});
    assert_eq!(asked(&loaded(&[row], "").unwrap()[0]), "Add <image1>.");
}

#[test]
fn pass_rates_of_a_column_order_a_curriculum() {
    let rows = loaded(&[json!({"question": "1 + 1", "answer": "2", "pass_rate": 0.5})], "").unwrap();
    assert_eq!(rows[0].extra["pass_rate"], 0.5);
}

#[test]
fn an_image_beside_an_empty_list_or_in_a_part_of_transformers_is_read() {
    let beside = json!({"question": "What is it?", "answer": "5", "images": [], "image": "0.png"});
    assert_eq!(loaded(&[beside], "").unwrap()[0].images.len(), 1);
    for key in ["url", "path"] {
        let content = json!([{"type": "image", key: "0.png"}, {"type": "text", "text": "What is it?"}]);
        let turns = json!([{"role": "user", "content": content}, {"role": "assistant", "content": "5"}]);
        assert_eq!(loaded(&[json!({"messages": turns})], "").unwrap()[0].images.len(), 1, "{key}");
    }
}

#[test]
fn the_reasoning_of_a_row_is_not_dropped_beside_a_completion_of_messages() {
    let turn = |role: &str, text: &str| json!({"role": role, "content": text});
    let completion = [turn("assistant", "Wait."), turn("user", "Yes?"), turn("assistant", "It is 6.")];
    for key in ["thinking", "reasoning_content"] {
        let row = json!({"prompt": [turn("user", "2 * 3?")], "completion": completion, key: "2 * 3 = 6"});
        let texts: Vec<String> = loaded(&[row], "").unwrap()[0].messages.iter().map(text_of).collect();
        assert_eq!(texts, ["2 * 3?", "Wait.", "Yes?", "<think>\n2 * 3 = 6\n</think>\n\nIt is 6."]);
    }
    let own = json!({"role": "assistant", "content": "It is 6.", "reasoning": "own"});
    let row = json!({"prompt": "2 * 3?", "completion": [own], "thinking": "2 * 3 = 6"});
    assert_eq!(text_of(&loaded(&[row], "").unwrap()[0].messages[1]), "<think>\nown\n</think>\n\nIt is 6.");
}

#[test]
fn settings_of_the_template_in_a_row_are_not_ignored() {
    let turns = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]);
    let row = json!({"messages": turns, "chat_template_kwargs": {"enable_thinking": false}});
    refused(&row, &["a value in `chat_template_kwargs`", "of the config"], ", columns: {chat_template_kwargs: ''}");
}

#[test]
fn sizes_of_a_single_image_are_refused() {
    let image = json!({"type": "image", "image": "0.png", "max_pixels": 1000});
    let turns = json!([{"role": "user", "content": [image]}, {"role": "assistant", "content": "5"}]);
    let column = json!({"question": "What is it?", "answer": "5", "images": [{"path": "0.png", "resized_height": 28}]});
    for (row, key) in [(json!({"messages": turns}), "max_pixels"), (column, "resized_height")] {
        let error = loaded(&[row], "").unwrap_err();
        assert!(["rows.jsonl row 1", key, "image_max_pixels"].iter().all(|part| error.contains(part)), "{error}");
    }
}
