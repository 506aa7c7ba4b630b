//! Tests the charts task: what training may show, what the teacher reads, and the lengths of rows and answers.

use std::collections::HashSet;

use omr_base::config::{RecipeConfig, TaskConfig, TeacherConfig, load};
use omr_base::philox::{Purpose, Random};
use omr_data::image::Processor;
use omr_data::rows::{Row, prompt};
use omr_data::task::charts::{KINDS, Question, Reader, corpus, splits};
use omr_data::task::recipe::{self, Splits};
use omr_data::task::teacher::Reader as _;
use omr_data::text::{CHAT_TEMPLATE, Chat, SPECIAL_TOKENS, Special, train_tokenizer, write_tokenizer_dir};
use serde_json::json;

use crate::models::chat_config;

fn rows(count: usize, tuning: bool, seed: u64) -> Splits {
    let counts = TaskConfig {
        num_sft_questions: count,
        num_rl_questions: count,
        num_heldout_questions: count,
        ..TaskConfig::default()
    };
    splits(&TaskConfig { tuning, shift: 8, heldout_shift: 8, ..counts }, seed).unwrap()
}

/// Returns the values of a row in their order.
fn values(row: &Row) -> String {
    row.extra["values"].to_string()
}

fn exact() -> Reader {
    Reader { config: TeacherConfig { careful: 1.0, misread: 0.0, slip: 0.0, malformed: 0.0 } }
}

/// Returns the exact teacher's answer to a row.
fn answer(row: &Row, index: u64) -> String {
    let seen = exact().read(&row.images[0].decode(&row.place).unwrap()).unwrap();
    let text = row.extra["question"].as_str().unwrap();
    exact().answer(text, seen, &mut Random::new(1, Purpose::Teacher, index)).unwrap()
}

#[test]
fn no_training_image_has_the_values_of_one_that_is_measured_on() {
    let seed = omr_base_tests::seed::seed();
    let of = |rows: &[Row]| rows.iter().map(values).collect::<HashSet<_>>();
    let (reported, tuned) = (rows(600, false, seed), rows(600, true, seed));
    for splits in [&reported, &tuned] {
        let trained: HashSet<_> = of(&splits.teach).union(&of(&splits.train)).cloned().collect();
        assert!(trained.is_disjoint(&of(&splits.heldout)) && trained.is_disjoint(&of(&reported.heldout)));
    }
    assert!(of(&reported.heldout).is_disjoint(&of(&tuned.heldout)));
    let same = rows(600, false, seed);
    assert!(reported.heldout.iter().zip(&same.heldout).all(|(a, b)| a.images == b.images && a.extra == b.extra));
    let other = rows(600, false, seed ^ 1);
    assert!(reported.heldout.iter().zip(&other.heldout).any(|(a, b)| a.images != b.images));
}

#[test]
fn the_teacher_reads_every_image_and_computes_every_answer() {
    let splits = rows(500, false, omr_base_tests::seed::seed());
    let mut forms = HashSet::new();
    for (index, row) in splits.teach.iter().chain(&splits.heldout).enumerate() {
        let seen = exact().read(&row.images[0].decode(&row.place).unwrap()).unwrap();
        assert!(row.extra["values"] == json!(seen.values) && row.extra["form"] == seen.form.name(), "{}", row.place);
        let (gold, answer) = (row.ground_truth.as_ref().unwrap(), answer(row, index as u64));
        assert!(answer.ends_with(&format!(" {gold}.</think><answer>{gold}</answer>")), "{}: {answer}", row.place);
        forms.insert(seen.form.name());
    }
    assert_eq!(forms.len(), 3);
}

#[test]
fn mistakes_are_wrong_and_known_by_their_probabilities() {
    let splits = rows(300, false, 1);
    let right = |config: TeacherConfig| {
        let reader = Reader { config };
        let mut all = splits.teach.iter().enumerate().map(|(index, row)| {
            let seen = reader.read(&row.images[0].decode(&row.place).unwrap()).unwrap();
            let text = row.extra["question"].as_str().unwrap();
            let answer = reader.answer(text, seen, &mut Random::new(1, Purpose::Teacher, index as u64)).unwrap();
            answer.ends_with(&format!("</think><answer>{}</answer>", row.ground_truth.as_ref().unwrap()))
        });
        all.by_ref().filter(|right| *right).count()
    };
    assert_eq!(right(TeacherConfig { slip: 1.0, misread: 0.0, ..TeacherConfig::default() }), 0);
    // A value that is read wrong changes most answers. The label of the largest value often stays.
    let misread = right(TeacherConfig { slip: 0.0, misread: 1.0, malformed: 0.0, careful: 1.0 });
    assert!((10..150).contains(&misread), "{misread}");
    assert!(Question::parse("What is the capital?").is_none());
}

#[test]
fn a_image_has_48_visual_tokens_and_most_careful_answers_have_100_to_200_tokens() {
    let config = omr_base_tests::root().join("configs/charts.yaml");
    let config: RecipeConfig = load(Some(&config), &[], &|_| None).unwrap();
    let (corpus, dir) = (corpus(), tempfile::tempdir().unwrap());
    let words: Vec<&str> = corpus.iter().map(String::as_str).collect();
    let tokenizer = train_tokenizer(&corpus, &SPECIAL_TOKENS, &words, config.base.vocab_size).unwrap();
    write_tokenizer_dir(dir.path(), &tokenizer, CHAT_TEMPLATE).unwrap();
    let chat = Chat::load(dir.path(), &chat_config(&tokenizer)).unwrap();
    let processor =
        Processor::from_json(&recipe::preprocessor_config(omr_data_tests::patches::GRID), "charts").unwrap();
    let mut lengths = Vec::new();
    for (index, row) in rows(200, false, 1).teach.iter().enumerate() {
        let asked = prompt(row, &chat, Some(&processor)).unwrap();
        assert_eq!(asked.ids.iter().filter(|&&id| id == chat.media.unwrap().ids.image).count(), 48);
        assert!(asked.ids.len() <= config.rl.max_prompt_length, "{}", asked.ids.len());
        assert_eq!(row.extra["kind"], KINDS[index % KINDS.len()].1);
        lengths.push(chat.tokenizer.encode(&answer(row, index as u64), Special::Plain).unwrap().len());
    }
    let long = lengths.iter().filter(|n| (100..=200).contains(*n)).count();
    let most = *lengths.iter().max().unwrap();
    println!("{long} of {} answers have 100 to 200 tokens, the longest {most}", lengths.len());
    assert!(2 * long > lengths.len() && most < config.rl.max_response_length, "{long}, {most}: {lengths:?}");
    // Both kinds of attention are used, and an image of 8 x 6 tokens has several windows.
    let vision = &config.base.vision;
    assert!(vision.fullatt_block_indexes.len() < vision.depth && vision.window_size < 168);
}
