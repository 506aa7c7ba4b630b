//! Tests `omr data inspect` as users run it.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

fn omr(dir: &Path, args: &[&str]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_omr"));
    for variable in ["OAI_BASE_URL", "OAI_API_KEY", "MODEL_VERSION", "USE_LLM_JUDGE"] {
        command.env_remove(variable);
    }
    command.current_dir(dir).arg("data").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn questions(dir: &Path, questions: &[&str]) {
    let line = |q: &&str| json!({"problem": q, "answer": 5}).to_string();
    std::fs::write(dir.join("questions.jsonl"), questions.iter().map(line).collect::<Vec<_>>().join("\n")).unwrap();
}

#[test]
fn inspect_shows_rows_and_names_faults() {
    let dir = tempfile::tempdir().unwrap();
    questions(dir.path(), &["how many?", "how few?"]);
    let output = omr(dir.path(), &["inspect", "questions.jsonl", "--show", "1", "--out", "out"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(
        shown.contains("questions: 2 rows") && shown.contains("user: how many?") && !shown.contains("how few?"),
        "{shown}"
    );
    let summary: Value = serde_json::from_slice(&std::fs::read(dir.path().join("out/summary.json")).unwrap()).unwrap();
    assert_eq!((&summary["in"], &summary["kept"]), (&json!(2), &json!(2)));
    assert_eq!(summary["datasets"][0]["labels"], json!({"a whole number": 2}));

    questions(dir.path(), &["how many?", "how <image> few?"]);
    let output = omr(dir.path(), &["inspect", "questions.jsonl"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("row 2"), "{}", text(&output.stderr));
    let page = std::fs::read_to_string(dir.path().join("inspect.html")).unwrap();
    assert!(page.contains("1 wrong_image_count"), "{page}");
}

#[test]
fn inspect_writes_one_page_of_a_folder_or_of_what_any_config_names() {
    let dir = tempfile::tempdir().unwrap();
    let image = image::GrayImage::from_pixel(30, 28, image::Luma([9]));
    std::fs::create_dir(dir.path().join("rows")).unwrap();
    let line = json!({"question": "</script><b>how many?", "answer": 5, "image": "a.png", "odd": [1]});
    for name in ["rows/one.jsonl", "rows/two.jsonl"] {
        std::fs::write(dir.path().join(name), line.to_string()).unwrap();
    }
    image.save(dir.path().join("rows/a.png")).unwrap();
    let list = "[{path: rows/one.jsonl}, {path: rows/two.jsonl}]";
    for (name, text) in [
        ("data.yaml", format!("datasets: {list}\n")),
        ("sft.yaml", format!("datasets: {list}\npacking_length: 256\nmodel: none\n")),
        ("rl.yaml", "train_files: [rows/one.jsonl]\nval_files: [rows/two.jsonl]\n".to_owned()),
        ("eval.yaml", format!("data: {list}\ntasks: [digits]\n")),
        ("recipe.yaml", format!("seed: 1\nsft: {{max_steps: 1}}\ndata:\n  datasets: {list}\n")),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    for place in ["rows", "rows/*.jsonl", "data.yaml", "sft.yaml", "rl.yaml", "eval.yaml", "recipe.yaml"] {
        let output = omr(dir.path(), &["inspect", place]);
        assert_eq!(output.status.code(), Some(0), "{place}: {}", text(&output.stderr));
        let page = std::fs::read_to_string(dir.path().join("inspect.html")).unwrap();
        assert_eq!(page.matches("<section class=\"browser\"").count(), 1);
        assert_eq!(page.matches("data:image/png;base64,").count(), 2, "{place}: an image a row");
        assert!(page.contains("odd") && page.contains("a whole number") && !page.contains("</script><b>"), "{place}");
        for word in ["src=\"http", "href=\"http", "url(http", "@import", "fetch("] {
            assert!(!page.contains(word), "{place}: {word}");
        }
    }
    std::fs::write(dir.path().join("empty.yaml"), "tasks: [mathvision_reason_testmini_reward]\n").unwrap();
    let data = format!("data_dir={}/eval", omr_base_tests::golden::dir().display());
    let output = omr(dir.path(), &["inspect", "empty.yaml", &data, "limit=3"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.contains("mathvision_reason_testmini_reward: 3 rows") && shown.contains("images: 3"), "{shown}");
    let output = omr(dir.path(), &["inspect", "empty.yaml"]);
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("omr eval"), "{}", text(&output.stderr));
}
