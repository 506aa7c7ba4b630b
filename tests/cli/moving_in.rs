//! Checks docs/MOVING_IN.md: its configs work, and the program answers each key of another system as the page does.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use omr::config::{Config, RlConfig, SftConfig, keys, load};
use serde_json::Value;

use super::help::omr;
use crate::data::layouts::made;
use crate::train::tiny;

/// A row of a table: settings of another system, our lines, and what differs.
struct Row<'a> {
    theirs: Vec<&'a str>,
    ours: Vec<&'a str>,
    differs: &'a str,
}

/// Returns the text in backticks.
fn code(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Returns the tables of the page: the name of our config, and the rows.
fn tables(page: &str) -> Vec<(&str, Vec<Row<'_>>)> {
    let mut out: Vec<(&str, Vec<Row>)> = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" |").map(str::trim).collect();
        let [theirs, ours, differs] = cells[..] else { panic!("{line}") };
        match code(theirs)[..] {
            [] => out.push((code(ours)[0], Vec::new())),
            _ => out.last_mut().unwrap().1.push(Row { theirs: code(theirs), ours: code(ours), differs }),
        }
    }
    out
}

/// Appends the paths of all keys and groups in `value`.
fn paths(at: &str, value: &Value, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| {
            paths(format!("{at}.{name}").trim_start_matches('.'), value, out);
        }),
        Value::Array(list) => list.iter().for_each(|value| paths(&format!("{at}[]"), value, out)),
        _ => {}
    }
}

/// Returns what the program expects instead of `key`, without the hint.
fn answer<C: Config>(key: &str) -> String {
    let error = load::<C>(None, &[format!("{key}=1")], &|_| None).err().unwrap_or_else(|| panic!("{key} is a key"));
    assert_eq!(error.exit_code(), 2, "{error}");
    let text = error.to_string();
    let found = text.strip_prefix(&format!("command line: {key}: found the unknown key ")).expect(&text);
    let (_, expected) = found.split_once(", expected ").expect(&text);
    expected.strip_suffix(" (`omr config` lists all keys with their names in other systems)").expect(&text).to_owned()
}

/// Checks the keys of a row. Returns those that omr does not have.
fn check<'a, C: Config>(row: &Row<'a>) -> Vec<&'a str> {
    let mut ours = Vec::new();
    for line in &row.ours {
        match line.starts_with("--") {
            true => ours.push((*line).to_owned()),
            false => paths("", &serde_saphyr::from_str(line).expect(line), &mut ours),
        }
    }
    let known = keys::<C>();
    let names = row.theirs.iter().map(|setting| setting.split([':', '=']).next().unwrap());
    let (same, foreign): (Vec<&str>, Vec<&str>) = names.partition(|name| known.iter().any(|key| key.path == *name));
    same.iter().for_each(|name| assert!(ours.iter().any(|key| key == name), "{name} is a key, the page has {ours:?}"));
    for name in &foreign {
        let answer = answer::<C>(name);
        let (keys, note) =
            answer.split_once(" (").map_or((&*answer, None), |(keys, note)| (keys, note.strip_suffix(')')));
        match keys {
            "nothing" => assert!(row.ours.is_empty(), "{name}: {answer}, the page has {ours:?}"),
            _ => assert!(keys.split(" or ").any(|key| ours.iter().any(|o| o == key)), "{name}: {answer}, {ours:?}"),
        }
        assert!(note.is_none_or(|note| note == row.differs), "{name}: {answer}, the page has {}", row.differs);
    }
    foreign
}

/// Checks all rows of a table, and that one error contains all of its keys.
fn check_all<C: Config>(rows: &[Row]) {
    let foreign: Vec<&str> = rows.iter().flat_map(check::<C>).collect();
    assert!(foreign.len() >= 5, "{foreign:?}");
    let typed: Vec<String> = foreign.iter().map(|key| format!("{key}=1")).collect();
    let text = load::<C>(None, &typed, &|_| None).err().unwrap().to_string();
    assert!(text.contains(&format!("found {} unknown keys, expected instead: ", foreign.len())), "{text}");
    let listed: Vec<&str> = text.split([' ', ',', ';']).collect();
    foreign.iter().for_each(|key| assert!(listed.contains(key), "{key} is not in {text}"));
}

#[test]
fn moving_in_names_the_keys_that_the_program_names_and_its_configs_work() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/MOVING_IN.md")).unwrap();
    assert!(page.lines().count() <= 120);
    let tables = tables(&page);
    assert_eq!(
        tables.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["sft.yaml", "rl.yaml", "sft.yaml", "rl.yaml"]
    );
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    tiny::tuned_model(&at("base"));
    fs::create_dir(at("data")).unwrap();
    let copy = |from: &str, to: &str| {
        let copied = Command::new("cp").arg("-r").arg(made().join(from)).arg(at(to)).status().unwrap();
        assert!(copied.success(), "{from}");
    };
    ["llama_factory/.", "verl/.", "trl/."].iter().for_each(|layout| copy(layout, "data"));
    copy("verl/train.parquet", "data/test.parquet");
    // The rows name their images by paths from the working directory.
    copy("verl", "verl");
    symlink(root.join("docs"), at("docs")).unwrap();
    for (name, rows) in &tables {
        let lines = rows.iter().flat_map(|row| &row.ours).filter(|line| !line.starts_with("--"));
        fs::write(at(name), lines.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        let command = name.strip_suffix(".yaml").unwrap();
        let args = ["--device", "cpu", command, *name, "--out", "out", "--dry-run"];
        let output = omr().current_dir(dir.path()).args(args).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && text.contains("read 60 rows: 60 images"), "{name}: {text}");
        match command {
            "sft" => check_all::<SftConfig>(rows),
            _ => check_all::<RlConfig>(rows),
        }
    }
}
