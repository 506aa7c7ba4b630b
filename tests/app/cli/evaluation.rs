//! Tests the HTML pages of evaluations: their content, and that they contain no reference outside the file.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::training::run;

const TASK: &str = "logicvista_thinking";

/// Makes a finished evaluation in which the recorded answer is the same for every question. Returns its path.
pub fn evaluation(dir: &Path, name: &str, answer: &str) -> String {
    let data = dir.join("data").join(TASK);
    fs::create_dir_all(&data).unwrap();
    fs::copy(omr_base_tests::golden::dir().join("eval").join(TASK).join("data.parquet"), data.join("data.parquet"))
        .unwrap();
    let line = |i| json!({"task": TASK, "index": i, "responses": [answer]}).to_string() + "\n";
    let (answers, out) = (dir.join(format!("{name}.jsonl")), dir.join(name));
    fs::write(&answers, (0..14).map(line).collect::<String>()).unwrap();
    let (data, answers, out) =
        (dir.join("data"), answers.to_str().unwrap().to_owned(), out.to_str().unwrap().to_owned());
    let args = ["eval", "--data", data.to_str().unwrap(), "--responses", &answers, "--out", &out];
    let (code, _, stderr) = run(&args);
    assert_eq!(code, 0, "{stderr}");
    out
}

/// Asserts that the page does not fetch, open or send anything. All its links are data URLs or places in
/// the page, and its only `http` address is the XML namespace of SVG.
fn stays_in_the_file(page: &str) {
    for (at, _) in page.match_indices("http").filter(|(at, _)| !page[*at..].starts_with("http-equiv")) {
        assert!(page[at..].starts_with("http://www.w3.org/2000/svg"), "{}", &page[at..(at + 60).min(page.len())]);
    }
    for word in ["src=\"", "href=\""] {
        for (at, _) in page.match_indices(word) {
            let is_inside = page[at + word.len()..].starts_with(['#']) || page[at + word.len()..].starts_with("data:");
            assert!(is_inside, "{}", &page[at..(at + 60).min(page.len())]);
        }
    }
    for word in
        ["@import", "url(", "fetch(", "XMLHttpRequest", "WebSocket", "import(", "<iframe", "<form", "sendBeacon"]
    {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn one_evaluation_is_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let out = evaluation(dir.path(), "a", "<think>It is </script><b>bold</b>.</think><answer>A</answer>");
    let written = fs::read_to_string(Path::new(&out).join("report.html")).unwrap();
    let (code, stdout, stderr) = run(&["report", &out]);
    assert!(code == 0 && stdout.trim() == format!("{out}/report.html"), "{stderr}");
    let page = fs::read_to_string(stdout.trim()).unwrap();
    assert_eq!(written, page);
    stays_in_the_file(&page);
    for part in [
        ", rules</th>",
        "Accuracy by task",
        "By length of the answer",
        "<th scope=\"row\">logicvista_thinking: inductive</th>",
        "14 of 14 questions",
        "14 of them have images",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    assert!(page.contains("class=\"ci95\"") && !page.contains("</script><b>"), "{page}");
    assert_eq!(page.matches("\"data:image/png;base64,iVBOR").count(), 14);
    assert!(!page.contains(", published"), "14 of 448 questions have no published score");
    assert!(page.contains("judge off") && !page.contains("were not measured here"));
}

#[test]
fn two_evaluations_are_paired_question_by_question() {
    let dir = tempfile::tempdir().unwrap();
    let answers = ["A", "B"].map(|letter| format!("<think>t</think><answer>{letter}</answer>"));
    let [a, b] = [("a", &answers[0]), ("b", &answers[1])].map(|(name, answer)| evaluation(dir.path(), name, answer));
    let out = dir.path().join("both.html");
    let (code, stdout, stderr) = run(&["report", &a, &b, "--out", out.to_str().unwrap()]);
    assert!(code == 0 && stdout.trim() == out.to_str().unwrap(), "{stderr}");
    let page = fs::read_to_string(&out).unwrap();
    stays_in_the_file(&page);
    let right = |out: &str| {
        let text = fs::read_to_string(Path::new(out).join("samples.jsonl")).unwrap();
        text.matches("\"acc_score\":1.0,\"format_reward_score\"").count()
    };
    // All answers of a run are one fixed letter, which differs between the runs. A question that one run answers
    // correctly is therefore wrong in the other run.
    let (first, second) = (right(&a), right(&b));
    assert!(first > 0 && second > 0, "{first} {second}");
    let pairs = format!("14 questions: {second} gained, {first} lost");
    assert!(page.contains(&pairs), "{pairs} is not in {page}");
    for part in
        ["2 evaluations", "The answers side by side", "\"flipped\",\"gained\"", "\"flipped\",\"lost\"", "wrong in all"]
    {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn of_three_evaluations_the_questions_that_flipped_come_first_with_their_images() {
    let dir = tempfile::tempdir().unwrap();
    let outs = ["A", "B", "C"].map(|letter| {
        let answer = format!("<think>t</think><answer>{letter}</answer>");
        evaluation(dir.path(), &letter.to_lowercase(), &answer)
    });
    let out = dir.path().join("three.html");
    let (code, _, stderr) = run(&["report", &outs[0], &outs[1], &outs[2], "--out", out.to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
    let page = fs::read_to_string(&out).unwrap();
    stays_in_the_file(&page);
    let [first, last] =
        ["right in some", "wrong in all"].map(|flip| page.find(&format!("\"flipped\",\"{flip}\"")).unwrap());
    assert!(first < last && page.matches("\"data:image/png;base64,iVBOR").count() == 14);
    assert_eq!(page.matches("<h3>Differences on the same questions</h3>").count(), 2);
}
