//! Tests of scores: by the rules, by a judge, and by a user's own reward process.

pub mod judge;
pub mod process;
pub mod protocol;

use omr_base::config::{Rubric, ScorerConfig};
use omr_data::reward::{Item, Mode, Scorer, Shares, score};
use omr_verify::Format;

#[test]
fn strict_and_compat_part_where_the_original_is_wrong() {
    // (response, gold, strict accuracy, compat accuracy)
    let cases = [
        ("<think>\\boxed{7}</think><answer>8</answer>", "8", 1.0, 1.0),
        ("<think>maybe <answer>3</answer></think><answer>8</answer>", "8", 1.0, 0.0),
        ("<think>x</think><answer>5</answer> no: <answer>8</answer>", "8", 1.0, 0.0),
        ("<think>x</think><answer>12345678901</answer>", "1234567890", 0.0, 1.0),
        ("the result is -7", "-7", 1.0, 0.0),
        ("so the total is 1,234", "1234", 1.0, 0.0),
        ("<answer></answer>", "", 0.0, 1.0),
        ("<think>a</think><answer>Circle</answer>", "C", 0.0, 1.0),
        ("<think>a</think><answer>J</answer>", "J", 1.0, 1.0),
    ];
    for (response, gold, strict, compat) in cases {
        assert_eq!(score(response, gold, None, Mode::Strict).acc_score, strict, "strict {response:?}");
        assert_eq!(score(response, gold, None, Mode::Compat).acc_score, compat, "compat {response:?}");
    }
    let padded = " <think>a</think><answer>5</answer>\n";
    assert_eq!(score(padded, "5", None, Mode::Strict).score, Some(1.0));
    assert_eq!(score(padded, "5", None, Mode::Compat).score, Some(0.9));
}

#[test]
fn an_answer_in_thinking_that_the_template_opened_is_no_answer() {
    let item = |opened: &str, response: &str| Item {
        opened: opened.to_owned(),
        response: response.to_owned(),
        ground_truth: "7".to_owned(),
        ..Item::default()
    };
    let cut = "It may be \\boxed{7}, but";
    // (opened, response, strict score, compat accuracy)
    for (opened, response, strict, compat) in [
        ("<think>\n", cut, 0.0, 1.0),
        ("", cut, 1.0, 1.0),
        ("<think>\n", "3+4</think>\n\\boxed{7}", 1.0, 1.0),
        ("<think>\n\n</think>\n\n", "It is 7", 0.9, 1.0),
        ("The sum is ", "7", 0.9, 1.0),
    ] {
        let item = item(opened, response);
        assert_eq!(Scorer::rules(Mode::Strict).by_rules(&item).unwrap().score, Some(strict), "{item:?}");
        assert_eq!(Scorer::rules(Mode::Compat).by_rules(&item).unwrap().acc_score, compat, "{item:?}");
    }
}

#[test]
fn a_format_that_asks_for_thinking_is_refused_if_the_prompt_has_closed_it() {
    let scorer = |format: Format, mode: Mode| {
        let config = ScorerConfig { format, ..ScorerConfig::default() };
        Scorer::new(mode, None, &config, "reward", None, || unreachable!()).unwrap()
    };
    let closed = "<think>\n\n</think>\n\n";
    let error = scorer(Format::ThinkBoxed, Mode::Strict).check_opened(closed, false).unwrap_err().to_string();
    assert!(error.contains("reward.format: found the format think_boxed"), "{error}");
    assert!(Scorer::rules(Mode::Strict).check_opened(closed, true).is_err(), "a reward_type asks for thinking");
    assert_eq!(Scorer::rules(Mode::Strict).check_opened(closed, false).unwrap(), None);
    assert_eq!(scorer(Format::ThinkBoxed, Mode::Strict).check_opened("<think>\n", false).unwrap(), None);
    let warning = scorer(Format::ThinkBoxed, Mode::Compat).check_opened("<think>\n", false).unwrap().unwrap();
    assert!(warning.contains("the chat template opens the thinking"), "{warning}");
}

#[test]
fn the_score_is_nine_parts_accuracy_and_one_part_format() {
    for (response, want) in [
        ("<think>3 + 5 = 8.</think><answer>8</answer>", 1.0),
        ("<think>3 + 5 = 9.</think><answer>9</answer>", 0.1),
        ("It looks like 8.", 0.9),
        ("", 0.0),
        ("<think>3 + 5", 0.0),
    ] {
        assert_eq!(score(response, "8", None, Mode::Strict).score, Some(want), "{response:?}");
    }
}

#[test]
fn a_bare_answer_in_the_last_line_counts_only_with_flexible_extract() {
    let config = ScorerConfig { flexible_extract: true, ..ScorerConfig::default() };
    let acc = |response: &str, gold: &str, rubric: Rubric| score(response, gold, None, rubric).acc_score;
    let (plain, flexible) = (Rubric::from(Mode::Strict), config.rubric(Mode::Strict));
    for (response, gold, right) in [
        ("I count 3 corners.\nred", "red", 1.0),
        ("<think>t</think>\nIt is a circle.\n**red**\n", "red", 1.0),
        ("It is red.\nblue", "red", 0.0),
        ("red\nIt has 3 corners, as the others have.", "red", 0.0),
        ("<think>It is\nred", "red", 0.0),
        ("\\boxed{blue}\nred", "red", 0.0),
        ("The sum is\n15 + 63", "78", 0.0),
    ] {
        assert_eq!((acc(response, gold, plain), acc(response, gold, flexible)), (0.0, right), "{response:?}");
        assert_eq!(acc(response, gold, config.rubric(Mode::Compat)), acc(response, gold, Mode::Compat.into()));
    }
}

#[test]
fn a_few_responses_without_an_answer_are_no_warning() {
    let mut shares = Shares::default();
    for i in 0..20 {
        let response = if i == 7 { "blue \u{1b}" } else { "\\boxed{1 + 1}" };
        shares.count(response, &score(response, "2", None, Mode::Strict).why);
    }
    assert_eq!(shares.named(), [("no_answer_ratio", 0.05), ("unevaluated_ratio", 0.95)]);
    assert_eq!(shares.warning(), None);
    shares.count("green", "no answer");
    shares.count("green", "no answer");
    let warning = shares.warning().unwrap();
    assert!(warning.starts_with("13.6 % of 22 responses") && warning.contains(r#""blue \u{1b}""#), "{warning}");
}
