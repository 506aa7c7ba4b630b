//! Tests pairs on which a reward was wrong (`tests/data/rewards.jsonl`). A row with a `response` is graded as a complete
//! response, the others are compared as answers.

use std::path::Path;

use omr_verify::{Mode, grade, verify};
use serde_json::Value;

/// Asserts the verdicts of all rows of a category, and the reasons that the rows state.
fn judge(category: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rewards.jsonl");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let (mut cases, mut wrong) = (0, Vec::new());
    for row in rows.filter(|row| row["category"] == category) {
        let gold = row["gold"].as_str().unwrap();
        let (equal, why) = match (row["response"].as_str(), row["answer"].as_str()) {
            (Some(response), _) => {
                let grade = grade(response, gold, row["question"].as_str(), Mode::Strict);
                (grade.correct, grade.why)
            }
            (None, answer) => {
                let verdict = verify(gold, answer.unwrap(), Mode::Strict);
                (verdict.equal, verdict.why)
            }
        };
        cases += 1;
        if Some(equal) != row["truth"].as_bool() || row["why"].as_str().is_some_and(|want| want != why) {
            wrong.push(format!("{row}: {equal}, {why}"));
        }
    }
    println!("{category}: {cases} rows");
    assert!(wrong.is_empty() && cases > 4, "{cases} rows\n{}", wrong.join("\n"));
}

#[test]
fn a_sum_that_repeats_the_question_is_no_answer() {
    judge("unevaluated");
}

#[test]
fn a_division_that_stands_in_the_question_is_no_answer() {
    judge("asked");
}

#[test]
fn fractions_powers_roots_and_ends_of_calculations_stay_right() {
    judge("number");
}

#[test]
fn a_response_that_is_only_the_answer_was_no_answer() {
    judge("complete response");
}

#[test]
fn full_stops_ended_an_answer_or_hid_its_number() {
    for (response, gold, truth) in [
        ("First, 3*4 = 12\nSo the final answer is $7$.", "7", true),
        ("First, 3*4 = 12\nSo the final answer is $7$.", "12", false),
        ("First, 3*4 = 12\nSo it is **7**.", "7", true),
        ("First, 3*4 = 12\nSo it is **7**.", "12", false),
        ("<think>t</think>\\boxed{\\text{B. cat}}", "B", true),
        ("<think>t</think><answer>Dr. Lee</answer>", "Dr. Lee", true),
    ] {
        assert_eq!(grade(response, gold, None, Mode::Strict).correct, truth, "{response}, {gold}");
    }
}

#[test]
fn a_box_inside_a_formula_was_the_label() {
    for (label, answer) in [
        ("So $x = -\\boxed{5}$", "5"),
        ("\\boxed{3}\\sqrt{2}", "3"),
        ("2^{\\boxed{3}}", "3"),
        ("\\boxed{5} \\times 10^3", "5"),
        ("\\boxed{7", "7"),
    ] {
        assert!(!verify(label, answer, Mode::Strict).equal, "{label}, {answer}");
    }
    let question = "How many?\nA. 12\nB. 15";
    assert!(grade("<answer>15</answer>", "So it is $\\boxed{B}$.", Some(question), Mode::Strict).correct);
    assert!(!grade("and 7 cats", "She has so on.\n#### 7", None, Mode::Strict).correct);
}

#[test]
fn a_letter_in_a_sentence_or_an_equation_was_the_chosen_option() {
    judge("choice");
}

#[test]
fn money_was_equal_to_a_percentage() {
    judge("money");
}

#[test]
fn a_block_of_code_with_a_language_was_not_read() {
    judge("code");
}

#[test]
fn chinese_sentences_around_units_were_not_read() {
    judge("chinese");
}

#[test]
fn german_words_after_units_were_not_read_and_denials_were_ignored() {
    judge("german");
}

#[test]
fn yes_was_the_opposite_of_true() {
    judge("polar");
}

#[test]
fn options_without_a_space_behind_their_letters_are_options() {
    let question = "Angle 2 is equal to ()\nChoices:\nA:50\u{b0}\nB:60\u{b0}\nC:65\u{b0}\nD:90\u{b0}";
    let right = |answer: &str| grade(&format!("<answer>{answer}</answer>"), "C", Some(question), Mode::Strict).correct;
    for answer in ["65\u{b0}", "65^\\circ", "C:65\u{b0}", "\\text{C:65}^\\circ", "C.65\u{b0}", "C"] {
        assert!(right(answer), "{answer}");
    }
    for answer in ["60\u{b0}", "B:60\u{b0}", "D.90", "B.C."] {
        assert!(!right(answer), "{answer}");
    }
}

#[test]
fn a_box_with_an_open_escaped_brace_is_a_box() {
    let system = "\\left\\{\\begin{array}{l}x=1\\\\ y=2\\end{array}\\right.";
    let response = format!("<think>x</think>\\boxed{{{system}}}");
    let grade = grade(&response, &format!("\\boxed{{{system}}}"), None, Mode::Strict);
    assert!(grade.correct && grade.answer.contains("x=1"), "{grade:?}");
    for response in [response, "<think>x</think>\\\\boxed{5}".to_owned()] {
        let score = omr_verify::extract::format_score(&response, Mode::Strict, omr_verify::Format::ThinkAnswerBoxed);
        assert_eq!(score, 1.0, "{response}");
    }
}
