//! Tests the parts of a response and its question that a score uses: thinking, boxes, options, format.

use omr_base::config::{Format, Rubric, ScorerConfig};
use omr_data::reward::{Mode, Score, score};
use omr_verify::extract;
use omr_verify::question::options;

fn strict(response: &str, gold: &str) -> Score {
    score(response, gold, None, Mode::Strict)
}

#[test]
fn an_answer_inside_a_thinking_that_never_closed_earns_nothing() {
    for response in [
        "<think>So the answer is \\boxed{8}, but let me check",
        "<think>3 + 5 = <answer>8</answer> or is it",
        "<think>It must be\n8",
        "<analysis>\\boxed{8}",
    ] {
        assert_eq!(strict(response, "8").score, Some(0.0), "{response:?}");
    }
    // The published scorer rewards such responses.
    assert_eq!(score("<think>\\boxed{8}", "8", None, Mode::Compat).score, Some(1.0));
    // Text before a second thinking counts as part of the response.
    assert_eq!(strict("<think>a</think><answer>8</answer><think>or", "8").acc_score, 1.0);
}

#[test]
fn a_thinking_that_began_in_the_prompt_is_no_answer() {
    let response = "maybe \\boxed{7}, no</think>The result is \\boxed{8}";
    assert_eq!((strict(response, "8").score, strict(response, "7").acc_score), (Some(1.0), 0.0));
    for mode in [Mode::Strict, Mode::Compat] {
        assert_eq!(extract::strip_think(response, mode), "The result is \\boxed{8}");
    }
    assert_eq!(strict("maybe \\boxed{8}</think>", "8").acc_score, 0.0);
}

#[test]
fn several_boxes_are_the_list_of_them_all() {
    let two = "<think>t</think>$x = \\boxed{3}$ or $x = \\boxed{8}$";
    assert_eq!(strict(two, "3, 8").acc_score, 1.0);
    assert_eq!((strict(two, "8").acc_score, strict(two, "3").acc_score), (0.0, 0.0));
    assert_eq!(score(two, "8", None, Mode::Compat).acc_score, 1.0);
    for same in ["\\boxed{8}, that is \\boxed{8.}", "\\boxed{\\boxed{8}}", "\\boxed{} and \\boxed{8}"] {
        assert_eq!(strict(same, "8").acc_score, 1.0, "{same:?}");
    }
    assert_eq!(strict(two, "3, 8").predict_str, "3, 8");
}

#[test]
fn the_text_of_an_option_answers_its_letter() {
    let question = "How long is it?\nA. 12 cm\nB. 15 cm\nC. half a meter\nD. 15.0 cm";
    let right = |answer: &str, gold: &str, mode| score(answer, gold, Some(question), mode).acc_score;
    for (answer, gold, want) in [
        ("\\boxed{12 cm}", "A", 1.0),
        ("\\boxed{12 cm}", "C", 0.0),
        ("\\boxed{A}", "12 cm", 1.0),
        ("\\boxed{C}", "12 cm", 0.0),
        ("\\boxed{A}", "A", 1.0),
        ("\\boxed{B}", "A", 0.0),
        ("<answer>\\boxed{A}</answer>", "12 cm", 1.0),
        ("<answer>\\boxed{C}</answer>", "12 cm", 0.0),
        ("<answer>\\boxed{(A) 12 cm}</answer>", "A", 1.0),
        // Two options have this text.
        ("\\boxed{15 cm}", "B", 0.0),
        // No option has this text.
        ("\\boxed{13 cm}", "A", 0.0),
    ] {
        assert_eq!(right(answer, gold, Mode::Strict), want, "{answer:?} for {gold:?}");
    }
    assert_eq!(right("\\boxed{A}", "12 cm", Mode::Compat), 0.0);
    assert_eq!(score("\\boxed{A}", "12 cm", None, Mode::Strict).acc_score, 0.0);
}

#[test]
fn weight_and_format_are_what_the_config_says() {
    let rubric =
        |format, format_weight, mode| ScorerConfig { format, format_weight, ..ScorerConfig::default() }.rubric(mode);
    assert_eq!(Rubric::from(Mode::Strict), rubric(Format::ThinkAnswerBoxed, 0.1, Mode::Strict));
    let (tagged, boxed) = ("<think>t</think><answer>8</answer>", "<think>t</think>It is \\boxed{8}");
    for (response, format, formatted) in [
        (tagged, Format::ThinkAnswerBoxed, 1.0),
        (tagged, Format::ThinkAnswer, 1.0),
        (tagged, Format::ThinkBoxed, 0.0),
        (boxed, Format::ThinkAnswerBoxed, 1.0),
        (boxed, Format::ThinkAnswer, 0.0),
        (boxed, Format::ThinkBoxed, 1.0),
        ("\\boxed{8}", Format::ThinkAnswerBoxed, 1.0),
        ("\\boxed{8}", Format::ThinkBoxed, 0.0),
    ] {
        for mode in [Mode::Strict, Mode::Compat] {
            let got = score(response, "8", None, rubric(format, 0.5, mode));
            assert_eq!(got.format_reward_score, formatted, "{response:?} {}", format.name());
            assert_eq!(got.score, Some(0.5 + 0.5 * formatted), "{response:?} {}", format.name());
        }
    }
    assert_eq!(score("It looks like 8.", "8", None, rubric(Format::ThinkAnswer, 0.0, Mode::Strict)).score, Some(1.0));
}

#[test]
fn options_are_listed_in_lines_or_in_one() {
    let four = [('A', "12"), ('B', "15 cm"), ('C', "$x^2$"), ('D', "none")];
    for question in [
        "How long?\nA. 12\nB. 15 cm\nC. $x^2$\nD. none\nAnswer with the letter.",
        "How long? A. 12  B. 15 cm  C. $x^2$  D. none",
        "How long?\nChoices: (A) 12 (B) 15 cm\n(C) $x^2$ (D) none",
        "How long?\n(A) 12\n(B) 15 cm\n(C) $x^2$\n(D) none",
        "How long? A) 12, B) 15 cm, C) $x^2$, D) none",
        "How long?\n- **A.** 12\n- **B.** 15 cm\n- **C.** $x^2$\n- **D.** none",
        "What angle has A. And B?\nA: 12\nB: 15 cm\nC: $x^2$\nD: none",
    ] {
        assert_eq!(options(question), four, "{question:?}");
    }
}

#[test]
fn letters_out_of_order_are_no_options() {
    for question in [
        "",
        "What is 3 + 5?",
        "A. 12",
        "B. 12\nA. 15",
        "A. 12\nC. 15",
        "A. 12\nB.\nC. 15",
        "A. 12\nB. 15\nA. 3\nB. 4",
        "Is the point A. or B?",
    ] {
        assert_eq!(options(question), [], "{question:?}");
    }
}
