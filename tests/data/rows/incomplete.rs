//! Tests that rows never vanish or double in silence: missing shards, files that were cut or joined, links, and lists in
//! a README.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_ipc::writer::StreamWriter;
use omr_base::config::DatasetConfig;
use omr_data::rows::read::{self, entry};

/// Returns the number of rows, or the error.
fn count(entry: &DatasetConfig) -> Result<usize, String> {
    read::read(entry).map(|rows| rows.len()).map_err(|e| e.to_string())
}

fn of(path: &Path) -> Result<usize, String> {
    count(&entry(path))
}

/// Errors if `found` is not an error with all `parts`.
fn refused(found: Result<usize, String>, parts: &[&str]) {
    let error = found.expect_err("rows are missing in silence");
    parts.iter().for_each(|part| assert!(error.contains(part), "{part}: {error}"));
}

fn jsonl(path: &Path, rows: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let row = |i| format!("{{\"question\": \"q{i}\", \"answer\": \"{i}\"}}\n");
    fs::write(path, (0..rows).map(row).collect::<String>()).unwrap();
}

/// Returns the bytes of an Arrow stream of `batches` batches of 5 rows.
fn arrow(batches: usize) -> Vec<u8> {
    let texts = |kind: &str| Arc::new(StringArray::from_iter_values((0..5).map(|i| format!("{kind}{i}")))) as ArrayRef;
    let batch = RecordBatch::try_from_iter([("question", texts("q")), ("answer", texts("a"))]).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    (0..batches).for_each(|_| writer.write(&batch).unwrap());
    writer.into_inner().unwrap()
}

/// Returns the bytes of a tar file of `rows` rows, each with two members of one block.
fn tar(rows: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for i in 0..rows {
        for (ending, text) in [("question", format!("q{i}")), ("answer", format!("{i}"))] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, format!("{i:03}.{ending}"), text.as_bytes()).unwrap();
        }
    }
    tar.into_inner().unwrap()
}

#[test]
fn a_missing_shard_ends_the_run_and_a_cache_of_map_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["hub/train-00000-of-00003.jsonl", "hub/train-00002-of-00003.jsonl"] {
        jsonl(&at(name), 4);
    }
    refused(of(&at("hub")), &["train-00001-of-00003", "no file (1 missing in all)"]);
    refused(of(&at("hub/train-*.jsonl")), &["train-00001-of-00003.jsonl", "no file (1 missing in all)"]);
    assert_eq!(of(&at("hub/train-0000[02]-of-00003.jsonl")), Ok(8), "a pattern names the files");
    assert_eq!(of(&at("hub/train-00000-of-00003.jsonl")), Ok(4), "a path names the file");
    jsonl(&at("hub/train-00001-of-00003.jsonl"), 4);
    assert_eq!(of(&at("hub")), Ok(12));

    fs::create_dir(at("saved")).unwrap();
    let names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"];
    let files = names.map(|name| format!("{{\"filename\": \"{name}\"}}")).join(",");
    fs::write(at("saved/state.json"), format!("{{\"_data_files\": [{files}]}}")).unwrap();
    names.iter().for_each(|name| fs::write(at("saved").join(name), arrow(1)).unwrap());
    fs::write(at("saved/cache-0123456789abcdef.arrow"), arrow(2)).unwrap();
    assert_eq!(of(&at("saved")), Ok(10));
    fs::remove_file(at("saved").join(names[1])).unwrap();
    refused(of(&at("saved")), &["data-00001-of-00002.arrow", "no file (1 missing in all)"]);
}

#[test]
fn shards_of_any_width_that_begin_with_0_or_1_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (folder, names, gone) in [
        ("stage", ["r-0-of-3.jsonl", "r-1-of-3.jsonl"], "r-2-of-3.jsonl"),
        ("one", ["x-001-of-003.jsonl", "x-003-of-003.jsonl"], "x-002-of-003.jsonl"),
        (
            "hash",
            ["train-00000-of-00003-ab12.jsonl", "train-00001-of-00003-cd34.jsonl"],
            "train-00002-of-00003-ab12.jsonl",
        ),
    ] {
        names.iter().for_each(|name| jsonl(&at(folder).join(name), 4));
        refused(of(&at(folder)), &[gone, "no file (1 missing in all)"]);
        jsonl(&at(folder).join(gone), 4);
        assert_eq!(of(&at(folder)), Ok(12));
    }
    // A number that counts no files.
    jsonl(&at("other/best-1-of-4000000000.jsonl"), 4);
    assert_eq!(of(&at("other")), Ok(4));
}

#[test]
fn half_of_a_download_or_of_a_data_stage_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let touch = |name: &str, text: &str| {
        fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        fs::write(at(name), text).unwrap();
    };
    let places = ["set", "set/data", "set/data/*.jsonl"];
    let all_refused = |parts: &[&str]| places.iter().for_each(|place| refused(of(&at(place)), parts));
    jsonl(&at("set/data/a.jsonl"), 4);
    places.iter().for_each(|place| assert_eq!(of(&at(place)), Ok(4)));
    // A file that omr, aria2 or the Hugging Face library is downloading.
    for partial in [
        "set/data/b.jsonl.0123456789ab.incomplete",
        "set/data/b.jsonl.aria2",
        "set/.cache/huggingface/download/data/x.0123.incomplete",
    ] {
        touch(partial, "{");
        all_refused(&[partial.rsplit('/').next().unwrap(), "has not finished"]);
        assert_eq!(of(&at("set/data/a.jsonl")), Ok(4), "a path names the file");
        fs::remove_file(at(partial)).unwrap();
    }
    // The record of a download that was killed between two files, that finished, and whose second file is gone.
    let checked = |path: &str| format!("{{\"path\": \"{path}\", \"size\": 1, \"hash\": \"\", \"modified\": 0}}\n");
    let listing = r#"{"repo": "o/n", "revision": "main", "commit": "c", "include": [], "files": ["data/a.jsonl", "data/b.jsonl", "README.md"]}"#;
    touch("set/.download.jsonl", &checked("data/a.jsonl"));
    all_refused(&["files of a download that has not finished", ".download.jsonl"]);
    touch("set/.download.jsonl", &format!("{}{listing}\n", checked("data/a.jsonl")));
    all_refused(&["data/b.jsonl", "found no file"]);
    jsonl(&at("set/data/b.jsonl"), 4);
    places.iter().for_each(|place| assert_eq!(of(&at(place)), Ok(8)));
    // Another listing was begun after the complete one.
    touch("set/.download.jsonl", &format!("{listing}\n{}", checked("data/c.jsonl")));
    all_refused(&["files of a download that has not finished"]);
    fs::remove_file(at("set/.download.jsonl")).unwrap();
    // A stage writes `summary.json` at its end.
    touch("set/data/config.yaml", "# omr 0.1.0\nform: sft\n");
    all_refused(&["files of a command that has not finished"]);
    touch("set/data/summary.json", "{}");
    places.iter().for_each(|place| assert_eq!(of(&at(place)), Ok(8)));
}

#[test]
fn a_snapshot_whose_blob_is_being_downloaded_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let repo = home.path().join("datasets--o--n");
    jsonl(&repo.join("blobs/0123"), 4);
    fs::create_dir_all(repo.join("snapshots/c0ffee")).unwrap();
    symlink("../../blobs/0123", repo.join("snapshots/c0ffee/a.jsonl")).unwrap();
    assert_eq!(of(&repo.join("snapshots/c0ffee")), Ok(4));
    // An older attempt at a blob that is complete now.
    fs::write(repo.join("blobs/0123.incomplete"), "").unwrap();
    assert_eq!(of(&repo.join("snapshots/c0ffee")), Ok(4));
    fs::write(repo.join("blobs/4567.89ab.incomplete"), "").unwrap();
    refused(of(&repo.join("snapshots/c0ffee")), &["4567.89ab.incomplete"]);
}

#[test]
fn an_arrow_stream_that_was_cut_between_batches_or_joined_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.arrow");
    let (two, three) = (arrow(2), arrow(3));
    fs::write(&path, &two).unwrap();
    assert_eq!(of(&path), Ok(10));
    // A stream begins as a longer one does, up to its end mark of 8 bytes.
    let common = two.len() - 8;
    assert_eq!(two[..common], three[..common]);
    fs::write(&path, &three[..common]).unwrap();
    refused(of(&path), &["rows.arrow", "the mark of its end is missing"]);
    fs::write(&path, [&two[..], &two].concat()).unwrap();
    refused(of(&path), &["bytes follow its end"]);
}

#[test]
fn a_tar_file_that_was_cut_is_refused_and_a_joined_one_has_all_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.tar");
    let whole = tar(6);
    fs::write(&path, &whole).unwrap();
    assert_eq!(of(&path), Ok(6));
    fs::write(&path, &whole[..3 * 2 * 1024]).unwrap();
    refused(of(&path), &["rows.tar", "its end mark"]);
    fs::write(&path, [&whole[..], &tar(2)].concat()).unwrap();
    assert_eq!(of(&path), Ok(8));
    let mut zeroed = whole.clone();
    zeroed[4 * 1024..4 * 1024 + 512].fill(0);
    fs::write(&path, zeroed).unwrap();
    refused(of(&path), &["an incomplete or damaged tar file"]);
}

#[test]
fn a_hard_link_in_a_tar_file_is_its_target_and_other_kinds_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.tar");
    let make = |kind: tar::EntryType| {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, text) in [("0.question", "q"), ("0.answer", "1"), ("1.question", "r")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        tar.append_link(&mut header, "1.answer", "0.answer").unwrap();
        fs::write(&path, tar.into_inner().unwrap()).unwrap();
    };
    make(tar::EntryType::Link);
    let rows = read::read(&entry(&path)).unwrap();
    assert_eq!(rows.iter().map(|row| row.ground_truth.as_deref()).collect::<Vec<_>>(), [Some("1"), Some("1")]);
    make(tar::EntryType::Symlink);
    refused(of(&path), &["1.answer", "neither a file nor a hard link"]);
}

#[test]
fn a_quote_that_is_never_closed_swallows_no_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.csv");
    fs::write(&path, "question,answer\na,1\n\"b \"\"x\"\"\",2\nc,3\n").unwrap();
    assert_eq!(of(&path), Ok(3));
    fs::write(&path, "question,answer\na,1\nb,\"2\nc,3\nd,4\n").unwrap();
    refused(of(&path), &["rows.csv", "byte 20", "never closed"]);
}

#[test]
fn a_readme_chooses_its_default_configuration_and_broken_yaml_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    jsonl(&dir.path().join("a/rows.jsonl"), 3);
    jsonl(&dir.path().join("b/rows.jsonl"), 4);
    let readme = |yaml: &str| fs::write(dir.path().join("README.md"), format!("---\n{yaml}\n---\n# rows\n")).unwrap();
    assert_eq!(of(dir.path()), Ok(7));
    let configs = |more: &str| {
        format!("configs:\n- config_name: one\n  data_files: a/*\n{more}- config_name: two\n  data_files: b/*")
    };
    readme(&configs("  default: true\n"));
    assert_eq!(of(dir.path()), Ok(3));
    assert_eq!(count(&DatasetConfig { name: vec!["two".into()], ..entry(dir.path()) }), Ok(4));
    readme(&configs(""));
    refused(of(dir.path()), &["name: found nothing", "one of one, two"]);
    readme("configs: [");
    refused(of(dir.path()), &["README.md", "YAML"]);
    readme("license: mit");
    assert_eq!(of(dir.path()), Ok(7));
}

#[test]
fn a_link_to_a_folder_that_is_read_already_is_named() {
    let dir = tempfile::tempdir().unwrap();
    jsonl(&dir.path().join("a/rows.jsonl"), 3);
    symlink(dir.path(), dir.path().join("a/again")).unwrap();
    refused(of(dir.path()), &["again", "already contains"]);
}

#[test]
fn a_folder_of_a_pattern_that_cannot_be_listed_ends_the_run() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["p/a", "p/b"] {
        jsonl(&dir.path().join(name).join("rows.jsonl"), 4);
    }
    let closed = dir.path().join("p/b");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o0)).unwrap();
    // Root lists every folder.
    if fs::read_dir(&closed).is_err() {
        refused(of(&dir.path().join("p/*/*.jsonl")), &["p/b"]);
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(of(&dir.path().join("p/*/*.jsonl")), Ok(8));
    symlink("missing", dir.path().join("p/b/more.jsonl")).unwrap();
    refused(of(&dir.path().join("p/*/*.jsonl")), &["p/b/more.jsonl"]);
}

#[test]
fn a_weight_that_makes_an_epoch_of_billions_of_rows_is_refused() {
    let weighted = |weight| [DatasetConfig { weight, ..entry("x") }];
    assert_eq!(read::epoch(&weighted(2.5), &[4], 1).unwrap().len(), 10);
    let error = read::epoch(&weighted(1e6), &[20_000], 1).unwrap_err().to_string();
    assert!(error.contains("datasets[0].weight") && error.contains("20000 rows"), "{error}");
}
