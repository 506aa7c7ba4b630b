//! Tests cases that were once wrong in the comparison page: the scale of bars, and messages about bad rows.

use std::fs;
use std::path::Path;

use crate::cli::evaluation::evaluation;
use crate::cli::training;

#[test]
fn bars_of_two_evaluations_stand_in_one_column_at_one_scale() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("run")).unwrap();
    let outs = [("run/a", "C"), ("run/b", "E")]
        .map(|(name, letter)| evaluation(dir.path(), name, &format!("<think>t</think><answer>{letter}</answer>")));
    let page = dir.path().join("both.html");
    let (code, _, stderr) = training::run(&["report", &outs[0], &outs[1], "--out", page.to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
    let page = fs::read_to_string(&page).unwrap();

    let shares = outs.each_ref().map(|out| {
        let summary = fs::read_to_string(Path::new(out).join("summary.json")).unwrap();
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        100.0 * summary["tasks"]["logicvista_thinking"]["metrics"]["acc_score"].as_f64().unwrap()
    });
    assert!(shares[0] > shares[1] && shares[1] > 0.0, "{shares:?}");
    // Each bar has its own row: a drawing with a width of 100 in the first column, and its number in the second.
    let rows: Vec<&str> = page.split("<div class=\"run ").skip(1).collect();
    assert_eq!(rows.len(), 2);
    let widths = [rows[0], rows[1]].map(|row| -> f64 {
        let (drawing, figure) = row.split_once("</svg><p class=\"value\">").unwrap();
        assert!(drawing.contains("viewBox=\"0 0 100 26\" preserveAspectRatio=\"none\"") && !figure.contains("<svg"));
        drawing.split_once("<rect y=\"4\" width=\"").unwrap().1.split('"').next().unwrap().parse().unwrap()
    });
    // The width of the first column in windows of 1,400 pixels (982 minus the names) and of 420 pixels. The width is
    // the same for all bars of a page.
    for (rule, column) in [
        (".run { display: grid; grid-template-columns: minmax(0, 1fr) 150px; gap: 16px;", 982.0 - 308.0 - 166.0),
        (".run { grid-template-columns: minmax(0, 1fr) 54px; gap: 8px; }", 362.0 - 62.0),
    ] {
        assert!(page.contains(rule), "{rule}");
        let drawn = widths.map(|width| column * width / 100.0);
        assert!(
            drawn.iter().zip(shares).all(|(drawn, share)| (drawn - column * share / 100.0).abs() < 0.1),
            "{drawn:?}"
        );
    }
    // Runs are named by the part in which their folders differ.
    assert!(page.contains("</i>a</span>") && page.contains(">b, rules</th>"), "{page}");
    assert!(!page.contains(&format!("{}/run", dir.path().display())), "a whole path names a run");
}

#[test]
fn reasons_of_bad_rows_are_one_line_that_reads_as_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let rows = "{\"problem\": \"<image> One?\", \"answer\": 1, \"images\": [\"gone.png\"]}\n{\"answer\": 2}\n";
    fs::write(dir.path().join("rows.jsonl"), rows).unwrap();
    let (place, out) = (dir.path().join("rows.jsonl"), dir.path().join("out"));
    fs::write(dir.path().join("f.yaml"), format!("datasets: ['{}']\n", place.display())).unwrap();
    let config = dir.path().join("f.yaml");
    let (code, _, printed) = training::run(&[
        "data",
        "format",
        config.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "max_bad_rows=0.5",
    ]);
    let line = printed.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert_eq!(code, 2, "{printed}");
    assert!(line.contains("found 2 bad rows of 2, expected at most 50 % of the rows (1 "), "{line}");
    assert!(line.contains("; 1 missing_image, the first: ") && !line.contains("  "), "{line}");
}
