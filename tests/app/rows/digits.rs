//! Tests the digits task: the digits that training may use, the teacher, the complete data stage, and the length of a
//! rendered row.

use std::collections::HashSet;
use std::path::Path;

use omr_app::pipeline::Summary;
use omr_base::config::{BaseConfig, DistillConfig, EndpointConfig, StageConfig, TaskConfig, TeacherConfig};
use omr_data::image::{Grid, Processor};
use omr_data::rows::read::{self, entry};
use omr_data::rows::samples::sample::sft_tokens;
use omr_data::rows::{Form, Row, prompt, sft_sample, text_of, write};
use omr_data::task::digits::{self, HELD_OUT, PHRASINGS, Pixels, Reader, SIDE, TUNING, shifted};
use omr_data::task::recipe;
use omr_data::task::teacher::Teacher;
use omr_data::text::{CHAT_TEMPLATE, Chat, SPECIAL_TOKENS, Special, train_tokenizer, write_tokenizer_dir};
use omr_model::nn::family::qwen2_5_vl;
use omr_model_tests::models::chat_config;
use omr_train::eval::samples::Sample;

use crate::pipeline::{run, runtime};

fn task(sft: usize, rl: usize, heldout: usize, tuning: bool) -> TaskConfig {
    let counts = TaskConfig {
        num_sft_questions: sft,
        num_rl_questions: rl,
        num_heldout_questions: heldout,
        ..Default::default()
    };
    TaskConfig { tuning, ..counts }
}

fn halves(row: &Row) -> [Pixels; 2] {
    let rgb = row.images[0].decode(&row.place).unwrap();
    assert_eq!((rgb.width as usize, rgb.height as usize), (2 * SIDE, SIDE));
    [0, SIDE].map(|left| std::array::from_fn(|at| rgb.data[3 * (at / SIDE * 2 * SIDE + left + at % SIDE)]))
}

#[test]
fn no_training_row_shows_a_digit_that_is_measured_on() {
    let all = digits::load().unwrap();
    for (tuning, measured) in [(false, HELD_OUT), (true, TUNING)] {
        let splits = digits::splits(&task(400, 400, 400, tuning), omr_base_tests::seed::seed()).unwrap();
        let by = || (-2..=2).flat_map(|dx| (-2..=2).map(move |dy| [dx, dy]));
        let hidden: HashSet<Pixels> =
            all[measured.clone()].iter().flat_map(|d| by().map(|by| shifted(&d.pixels, by))).collect();
        // In tuning mode, the held-out digits stay hidden, too.
        let reserved: HashSet<Pixels> =
            all[HELD_OUT].iter().flat_map(|d| by().map(|by| shifted(&d.pixels, by))).collect();
        for row in splits.teach.iter().chain(&splits.train) {
            for half in halves(row) {
                assert!(!hidden.contains(&half) && !reserved.contains(&half), "{}", row.id);
            }
        }
        let plain: HashSet<Pixels> = all[measured].iter().map(|d| d.pixels).collect();
        for row in &splits.heldout {
            assert!(halves(row).iter().all(|half| plain.contains(half)), "{}", row.id);
        }
    }
}

#[test]
fn training_rows_ask_only_the_kinds_that_are_named() {
    let named = |kinds: &[&str]| Some(kinds.iter().map(|kind| (*kind).to_owned()).collect());
    let config =
        TaskConfig { sft_kinds: named(&["read", "sum"]), rl_kinds: named(&["larger"]), ..task(8, 8, 8, false) };
    let splits = digits::splits(&config, 1).unwrap();
    let kinds = |rows: &[Row]| -> Vec<String> {
        rows.iter().take(4).map(|row| row.extra["kind"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(kinds(&splits.teach), ["sum", "read", "sum", "read"]);
    assert_eq!(kinds(&splits.train), ["larger"; 4]);
    assert_eq!(kinds(&splits.heldout), ["sum", "difference", "larger", "read"]);
    for wrong in [&["product"][..], &[]] {
        let refused = digits::splits(&TaskConfig { sft_kinds: named(wrong), ..task(8, 8, 8, false) }, 1).err().unwrap();
        let text = refused.to_string();
        assert!(text.contains("task.sft_kinds") && text.contains("sum, difference, larger, read"), "{text}");
    }
}

#[test]
fn rows_are_the_same_for_a_seed_and_survive_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let rows = |seed| digits::splits(&task(40, 40, 40, false), seed).unwrap();
    let (one, same, other) = (rows(1), rows(1), rows(2));
    let path = dir.path().join("heldout.parquet");
    write(&path, &one.heldout, Form::Rl).unwrap();
    let back = read::read(&entry(&path)).unwrap();
    let key = |r: &Row| (r.id.clone(), r.messages.clone(), r.images.clone(), r.ground_truth.clone(), r.extra.clone());
    for ((a, b), c) in one.heldout.iter().zip(&same.heldout).zip(&back) {
        assert_eq!(key(a), key(b));
        assert_eq!(key(a), key(c));
    }
    // Intervals of accuracies know which questions have a digit in common.
    let names = ["left", "right"].map(|side| format!("digit-{}", back[0].extra[side]));
    assert_eq!(Sample::of("digits", 0, &back[0]).clusters, names);
    assert!(one.heldout.iter().zip(&other.heldout).any(|(a, b)| a.images != b.images));
    for (k, row) in one.heldout.iter().enumerate() {
        assert_eq!(row.extra["kind"], PHRASINGS[k % 4].0.name());
    }
}

fn config(path: &Path, teacher: &Teacher, concurrency: usize) -> DistillConfig {
    let teacher = EndpointConfig { concurrency, max_tokens: 64, timeout_s: 60.0, ..teacher.endpoint() };
    DistillConfig {
        stage: StageConfig { datasets: vec![entry(path)], ..StageConfig::default() },
        num_rollouts: 4,
        teacher: Some(teacher),
        system_prompt: Some(String::new()),
        seed: 1,
        ..DistillConfig::default()
    }
}

fn distilled(dir: &Path, name: &str, rows: &[Row], teacher: &TeacherConfig, concurrency: usize) -> Summary {
    let path = dir.join("questions.parquet");
    write(&path, rows, Form::Rl).unwrap();
    let reader = Reader::new(teacher, digits::TRAIN, 2).unwrap();
    let teacher = runtime().block_on(Teacher::start(digits::NAME, reader)).unwrap();
    run(&config(&path, &teacher, concurrency), &dir.join(name), None).unwrap().0
}

#[test]
fn a_teacher_reads_what_it_is_shown_whatever_the_concurrency() {
    let dir = tempfile::tempdir().unwrap();
    let splits = digits::splits(&task(60, 0, 60, false), 1).unwrap();
    let exact = TeacherConfig { misread: 0.0, slip: 0.0, malformed: 0.0, ..TeacherConfig::default() };
    let summary = distilled(dir.path(), "exact", &splits.teach, &exact, 4);
    // A shift cuts off ink at the border, so even known digits are not always recognised.
    assert!(summary.kept >= 228, "digits of training are read right: {:?}", summary.rejected);
    let summary = distilled(dir.path(), "unseen", &splits.heldout, &exact, 4);
    assert!(summary.kept >= 192, "most unseen digits are read right: {:?}", summary.rejected);

    let usual = TeacherConfig::default();
    let one = distilled(dir.path(), "one", &splits.teach, &usual, 1);
    let many = distilled(dir.path(), "many", &splits.teach, &usual, 16);
    assert_eq!(one, many);
    for file in ["questions.parquet", "rejected.jsonl", "summary.json"] {
        let read = |run: &str| std::fs::read(dir.path().join(run).join(file)).unwrap();
        assert_eq!(read("one"), read("many"), "{file}");
    }
    assert!((120..190).contains(&one.kept), "{one:?}");
    assert!(one.rejected.contains_key("wrong_answer") && one.rejected.contains_key("no_think"), "{one:?}");

    let rows = read::read(&entry(dir.path().join("one/questions.parquet"))).unwrap();
    let texts: Vec<String> = rows.iter().map(|r| text_of(r.messages.last().unwrap())).collect();
    let careful = texts.iter().filter(|t| t.contains(" and ")).count() as f64 / texts.len() as f64;
    assert!((0.6..0.9).contains(&careful), "{careful}");
    for row in &rows {
        assert_eq!(row.messages.iter().map(|m| m.role.as_str()).collect::<Vec<_>>(), ["user", "assistant"]);
    }
}

/// Returns a tokenizer for the task, trained like the recipe's.
fn chat(dir: &Path) -> Chat {
    let words = digits::words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let tokenizer = train_tokenizer(digits::corpus(), &SPECIAL_TOKENS, &words, 512).unwrap();
    write_tokenizer_dir(dir, &tokenizer, CHAT_TEMPLATE).unwrap();
    Chat::load(dir, &chat_config(&tokenizer)).unwrap()
}

#[test]
fn a_rendered_row_has_at_most_64_tokens_and_its_answer_is_what_is_trained() {
    let dir = tempfile::tempdir().unwrap();
    let chat = chat(dir.path());
    let processor =
        Processor::from_json(&recipe::preprocessor_config(omr_data_tests::patches::GRID), "digits").unwrap();
    let splits = digits::splits(&task(4, 0, 0, false), 1).unwrap();
    let tokens = |text: &String| chat.tokenizer.encode(text, Special::Plain).unwrap().len();
    let answers = digits::corpus().into_iter().filter(|t| t.starts_with("<think>"));
    let answers: Vec<(String, usize)> = answers.map(|t| (t.clone(), tokens(&t))).collect();
    let mut longest = 0;
    for (k, row) in splits.teach.iter().enumerate() {
        for phrasing in PHRASINGS[k].1 {
            let mut row = row.clone();
            row.messages[0].content[1] = omr_data::text::Part::Text(phrasing.to_owned());
            let asked = prompt(&row, &chat, Some(&processor)).unwrap();
            assert_eq!(asked.images[0].grid_thw, [1, 2, 4]);
            assert_eq!(asked.ids.iter().filter(|&&id| id == chat.media.unwrap().ids.image).count(), 2);
            for (i, answer) in answers.iter().enumerate() {
                longest = longest.max(asked.ids.len() + answer.1 + 1);
                if i % 40 != 0 {
                    continue;
                }
                let answer = &answer.0;
                row.messages.truncate(1);
                row.messages.push(omr_data::text::Message::text("assistant", answer.clone()));
                let sample = sft_sample(&row, &chat, Some(&processor)).unwrap();
                let split = asked.ids.len();
                assert_eq!(sample.input_ids[..split], asked.ids);
                let mut want = chat.tokenizer.encode(answer, Special::Plain).unwrap();
                want.push(chat.turn.end);
                assert_eq!(sample.input_ids[split..], want);
                assert!(sample.loss_mask.iter().enumerate().all(|(t, &m)| m == (t >= split)));
            }
        }
    }
    println!("longest row: {longest} tokens");
    assert!(longest <= 64, "{longest}");
    let config =
        omr_model::llm::new_model::model_config(&qwen2_5_vl::FAMILY, &BaseConfig::default(), &chat.tokenizer).unwrap();
    let media = config.media.unwrap();
    assert_eq!(
        (media.ids.image, media.tower.out_hidden_size),
        (chat.media.unwrap().ids.image, config.text.hidden_size)
    );
}

#[test]
fn turns_before_the_last_are_trained_as_they_would_be_generated() {
    let dir = tempfile::tempdir().unwrap();
    let chat = chat(dir.path());
    let processor =
        Processor::from_json(&recipe::preprocessor_config(omr_data_tests::patches::GRID), "digits").unwrap();
    let mut row = digits::splits(&task(1, 0, 0, false), 1).unwrap().teach.remove(0);
    use omr_data::text::Message;
    let text = |role: &str, text: &str| Message::text(role, text);
    row.messages.extend([text("assistant", "8<|im_end|>"), text("user", "Why?"), text("assistant", "3 + 5")]);
    let sample = sft_sample(&row, &chat, Some(&processor)).unwrap();
    assert_eq!(sample.input_ids.len(), sample.loss_mask.len());
    let trained: Vec<u32> =
        sample.input_ids.iter().zip(&sample.loss_mask).filter(|(_, m)| **m).map(|(id, _)| *id).collect();
    let mut want = chat.tokenizer.encode("8<|im_end|>", Special::Plain).unwrap();
    assert!(!want.contains(&chat.turn.end));
    want.push(chat.turn.end);
    want.extend(chat.tokenizer.encode("3 + 5", Special::Plain).unwrap());
    want.push(chat.turn.end);
    assert_eq!(trained, want);
    let whole = chat.encode(&row.messages, false, Special::Plain).unwrap();
    let once: Vec<u32> = sample.input_ids.iter().copied().filter(|&id| id != chat.media.unwrap().ids.image).collect();
    let whole: Vec<u32> = whole.into_iter().filter(|&id| id != chat.media.unwrap().ids.image).collect();
    assert_eq!(once, whole[..whole.len() - 1], "all but the line end after the last turn");

    // With `train_newline`, the line end after each answer is trained, as in lmms-engine and LLaMA-Factory.
    let grids = [Grid::image(2, 4)];
    let (ids, mask) = sft_tokens(&row, &chat, false, &grids).unwrap();
    let (with_newline, its_mask) = sft_tokens(&row, &chat, true, &grids).unwrap();
    let line_end = *whole.last().unwrap();
    assert_eq!(with_newline, [&ids[..], &[line_end]].concat());
    let targets = |mask: &[bool]| (0..mask.len()).filter(|&i| mask[i]).collect::<Vec<_>>();
    let added: Vec<usize> = targets(&its_mask).into_iter().filter(|&i| !mask.get(i).is_some_and(|&m| m)).collect();
    assert_eq!(added.iter().map(|&i| with_newline[i]).collect::<Vec<_>>(), [line_end, line_end]);
    assert!(added.iter().all(|&i| with_newline[i - 1] == chat.turn.end));

    row.messages.pop();
    assert!(sft_sample(&row, &chat, Some(&processor)).is_err_and(|e| e.to_string().contains("teach row 1")));
}
