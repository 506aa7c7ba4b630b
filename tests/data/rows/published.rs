//! Tests the published layouts of `layouts/published.yaml` on the rows that `layouts/published.py` writes, and the table of
//! docs/user/layouts.md. `OMR_WRITE=1 cargo test published` writes the table.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use omr_base::config::{DatasetConfig, SftConfig, load};
use omr_data::rows::read::{self, RowFile};
use omr_data::rows::{ReadCounts, Row, text_of};
use serde::Deserialize;
use serde_json::json;
use zip::ZipArchive;

/// A layout of `published.yaml`, where its fields are explained.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Layout {
    name: String,
    file: String,
    refused: Option<String>,
    keys: Option<String>,
    form: Option<String>,
    asks: Option<String>,
    images: Option<usize>,
    answers: Option<String>,
    label: Option<String>,
    note: Option<String>,
}

fn layouts() -> Vec<Layout> {
    serde_saphyr::from_str(include_str!("layouts/published.yaml")).unwrap()
}

fn rows() -> ZipArchive<Cursor<&'static [u8]>> {
    ZipArchive::new(Cursor::new(&include_bytes!("layouts/published.zip")[..])).unwrap()
}

/// Reads the data set `{path: FILE, KEYS}` of a config as `omr sft` does.
fn loaded(dir: &Path, file: &str, keys: &str) -> Result<Vec<Row>, String> {
    let config = dir.join("sft.yaml");
    fs::write(&config, format!("datasets: [{{path: '{}', {keys}}}]\n", dir.join(file).display())).unwrap();
    let config: SftConfig = load(Some(&config), &[], &|_| None).unwrap();
    let entry: &DatasetConfig = &config.datasets[0];
    let found = read::read(entry).map_err(|e| e.to_string())?;
    let mut counts = ReadCounts::default();
    found.iter().for_each(|row| counts.add(row));
    let counts = counts.with_columns(&RowFile::open(std::slice::from_ref(entry)).unwrap()).unwrap();
    counts.check().map_err(|e| e.to_string())?;
    Ok(found)
}

#[test]
fn published_layouts_load_or_the_error_says_how() {
    let dir = tempfile::tempdir().unwrap();
    rows().extract(dir.path()).unwrap();
    assert_eq!(layouts().len(), 38);
    for layout in layouts() {
        let name = &layout.name;
        if let Some(words) = &layout.refused {
            let error = loaded(dir.path(), &layout.file, "").err();
            assert!(error.as_ref().is_some_and(|error| error.contains(words)), "{name}: {error:?}");
        }
        let Some(form) = &layout.form else { continue };
        let found = loaded(dir.path(), &layout.file, layout.keys.as_deref().unwrap_or_default());
        let found = found.unwrap_or_else(|error| panic!("{name}: {error}"));
        let row = &found[0];
        let asked = text_of(row.messages.iter().rfind(|message| message.role == "user").unwrap());
        let trained = row.trained_messages();
        let answered = trained.last().filter(|message| message.role == "assistant" && !message.masked).map(text_of);
        assert_eq!((row.form, row.images.len()), (form.as_str(), layout.images.unwrap_or(1)), "{name}");
        assert_eq!(asked, layout.asks.as_deref().unwrap_or("Which colour is it?"), "{name}");
        assert_eq!((&answered, &row.ground_truth), (&layout.answers, &layout.label), "{name}");
    }
}

#[test]
fn published_layouts_are_those_of_the_script() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("this machine has no python3: published.py is not run");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (script, out) = (omr_base_tests::root().join("tests/data/rows/layouts/published.py"), dir.path().join("rows"));
    let run = Command::new("python3").arg(script).arg(&out).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let mut packed = rows();
    for i in 0..packed.len() {
        let mut member = packed.by_index(i).unwrap();
        let path: PathBuf = member.enclosed_name().unwrap();
        // Each version of pyarrow writes other bytes, and each version of zlib packs pixels differently.
        let is_same = path.extension().is_some_and(|ending| ["parquet", "arrow", "png"].iter().any(|e| ending == *e));
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut member, &mut bytes).unwrap();
        let made = fs::read(out.join(&path)).unwrap();
        assert!(is_same || made == bytes, "{}: published.py DIR --pack updates published.zip", path.display());
    }
}

/// Returns the table of docs/user/layouts.md.
fn table() -> String {
    let row = |layout: &Layout| {
        let entry = match (&layout.form, &layout.keys, &layout.refused) {
            (Some(_), Some(keys), _) => format!("`{{path: .., {}}}`", keys.replace('|', "\\|")),
            (Some(_), None, _) => "right at once".to_owned(),
            (None, _, refused) => format!("refused: {}", refused.as_deref().unwrap_or_default()),
        };
        let note = layout.note.as_ref().map_or(String::new(), |note| format!("; {note}"));
        let form = layout.form.as_deref().unwrap_or("none");
        format!("| {} | {form} | {entry}{note} |\n", layout.name)
    };
    let rows: String = layouts().iter().map(row).collect();
    format!("| layout | read as | entry |\n| --- | --- | --- |\n{rows}")
}

#[test]
fn published_layouts_are_in_the_table_of_the_page() {
    let page = omr_base_tests::root().join("docs/user/layouts.md");
    let text = fs::read_to_string(&page).unwrap();
    let (start, end) = ("<!-- layouts -->\n", "<!-- /layouts -->\n");
    let (before, rest) = text.split_once(start).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let fresh = format!("{before}{start}{}{end}{after}", table());
    if std::env::var_os("OMR_WRITE").is_some() {
        fs::write(&page, &fresh).unwrap();
    } else {
        assert!(text == fresh, "docs/user/layouts.md is old: OMR_WRITE=1 cargo test published");
    }
}

#[test]
fn pairs_without_an_answer_and_prompts_over_pairs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let read = |row: serde_json::Value, keys: &str| {
        fs::write(dir.path().join("rows.jsonl"), row.to_string()).unwrap();
        loaded(dir.path(), "rows.jsonl", keys)
    };
    let error = read(json!({"texts": [{"user": "q"}]}), "").unwrap_err();
    assert!(error.contains("row 1: found nothing in `texts[0].content`"), "{error}");
    let error = read(json!({"texts": [{"user": "q", "assistant": "a"}]}), "prompt: Look at it.").unwrap_err();
    assert!(error.contains("a conversation with answers in `texts`"), "{error}");
    // A question takes precedence over a column of this name, which may hold anything.
    let row = json!({"question": "q", "answer": "1", "texts": ["a", "b"]});
    assert_eq!(read(row, "").unwrap()[0].form, "question + answer");
}

#[test]
fn rows_in_gzip_files_are_read_in_order_and_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| {
        let file = fs::File::create(dir.path().join(name)).unwrap();
        let mut out = flate2::write::GzEncoder::new(file, flate2::Compression::best());
        std::io::Write::write_all(&mut out, text).unwrap();
        out.finish().unwrap();
    };
    let row = |i: usize| json!({"question": format!("q{i}"), "answer": i}).to_string();
    let rows: Vec<String> = (0..200).map(row).collect();
    write("train.jsonl.gz", rows.join("\n").as_bytes());
    write("rows.json.gz", format!("[{}]", rows.join(",")).as_bytes());
    let lines: String = (0..200).map(|i| format!("q{i},{i}\n")).collect();
    write("rows.csv.gz", format!("question,answer\n{lines}").as_bytes());
    for name in ["train.jsonl.gz", "rows.json.gz", "rows.csv.gz"] {
        let file = &RowFile::open(&[read::entry(dir.path().join(name))]).unwrap()[0];
        let mut places = Vec::new();
        let mut take = |at, row: Result<Row, _>| {
            places.push((at, row.unwrap()));
            Ok(())
        };
        file.for_range(0..usize::MAX, &mut take).unwrap();
        assert_eq!((places.len(), file.name.as_str()), (200, name.split('.').next().unwrap()));
        for (i, (at, row)) in places.iter().enumerate().rev() {
            let again = file.row(*at).unwrap().unwrap();
            assert_eq!((&again.messages, &again.ground_truth), (&row.messages, &Some(i.to_string())), "{name}");
        }
    }
    // A folder is searched for them, and their name is a split.
    let folder = DatasetConfig { split: Some("train".into()), ..read::entry(dir.path()) };
    assert_eq!(read::read(&folder).unwrap().len(), 200);
    let bytes = fs::read(dir.path().join("train.jsonl.gz")).unwrap();
    fs::write(dir.path().join("cut.jsonl.gz"), &bytes[..bytes.len() / 2]).unwrap();
    write("bomb.jsonl.gz", &vec![b' '; 17 << 20]);
    for (name, part) in [("cut", "an incomplete or damaged gzip file"), ("bomb", "at most 200 times its size")] {
        let error = loaded(dir.path(), &format!("{name}.jsonl.gz"), "").unwrap_err();
        assert!(error.contains(&format!("{name}.jsonl.gz: ")) && error.contains(part), "{error}");
    }
}
