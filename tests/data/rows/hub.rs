//! Tests which files belong to the configurations of a data set, in the layouts of the Hugging Face hub.

use std::fs;
use std::path::Path;

use omr_base::config::DatasetConfig;
use omr_data::rows::files::paths;
use omr_data::rows::read::{self, entry};

/// Writes files of one row each. Returns the folder.
fn folder(files: &str, readme: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in files.split_whitespace() {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{\"question\": \"q\", \"answer\": \"1\"}\n").unwrap();
    }
    if !readme.is_empty() {
        fs::write(dir.path().join("README.md"), format!("---\n{readme}\n---\n")).unwrap();
    }
    dir
}

/// Returns the files of configurations and of a split, separated by spaces, or the error.
fn of(dir: &Path, names: &[&str], split: Option<&str>) -> String {
    let name = names.iter().map(|name| (*name).to_owned()).collect();
    match paths::of(&DatasetConfig { name, split: split.map(str::to_owned), ..entry(dir) }) {
        Ok(files) => {
            let inner = |path: &std::path::PathBuf| path.strip_prefix(dir).unwrap().display().to_string();
            files.iter().map(inner).collect::<Vec<_>>().join(" ")
        }
        Err(error) => error.to_string().replace(dir.to_str().unwrap(), "DIR"),
    }
}

#[test]
fn a_name_is_that_of_a_file_or_of_a_folder_if_there_is_no_readme() {
    let files = "b/train-00000-of-00001.jsonl a.jsonl mmk12_train.jsonl mmk12_hard.jsonl Virl39K-00000-of-00002.jsonl \
        Virl39K-00001-of-00002.jsonl x/deep/train.jsonl val.jsonl images/b.png";
    let dir = folder(files, "");
    let of = |names: &[&str]| of(dir.path(), names, None);
    assert_eq!(of(&["b"]), "b/train-00000-of-00001.jsonl");
    assert_eq!(of(&["mmk12"]), "mmk12_train.jsonl", "a split at the end of a name");
    assert_eq!(of(&["mmk12*"]), "mmk12_hard.jsonl mmk12_train.jsonl");
    assert_eq!(of(&["virl39k"]), "Virl39K-00000-of-00002.jsonl Virl39K-00001-of-00002.jsonl");
    assert_eq!(of(&["deep", "a"]), "x/deep/train.jsonl a.jsonl", "the order of the names");
    assert_eq!(of(&["a", "a*", "[a]"]), "a.jsonl", "a file is read once");
    let error = of(&["a", "c"]);
    assert!(
        error.starts_with("DIR: name: found c, expected a configuration") && error.contains("mmk12_hard"),
        "{error}"
    );
    assert!(!error.contains("-00001-of") && !error.contains("images"), "{error}");
    let error = of(&["*"]);
    assert!(error.contains("several splits: train, val"), "{error}");
    fs::remove_file(dir.path().join("val.jsonl")).unwrap();
    assert_eq!(of(&["*"]).split(' ').count(), 7);
    // A file without a split in its name belongs to train if no file has one.
    let plain = folder("a.jsonl b.jsonl", "");
    assert_eq!(super::hub::of(plain.path(), &["a"], Some("train")), "a.jsonl");
    let error = super::hub::of(plain.path(), &["a"], Some("test"));
    assert!(error.starts_with("DIR: split: found test"), "{error}");
}

#[test]
fn configurations_of_a_readme_have_files_a_folder_or_both() {
    let files = "data/train-00000-of-00001.jsonl data/test-00000-of-00001.jsonl one/a.jsonl one/b.jsonl two/train/x.jsonl \
        two/test/y.jsonl three/inner/z.jsonl lost/p.jsonl";
    let readme = "configs:
- config_name: default
  data_files: [{split: train, path: data/train-*}, {split: test, path: data/test-*}]
- {config_name: one, data_files: [{split: easy, path: ./one/a.jsonl}, {split: hard, path: one/b.jsonl}]}
- {config_name: two, data_dir: ./two}
- {config_name: three, data_dir: three, data_files: inner/*.jsonl}
- {config_name: gone, data_files: gone/*}
- {config_name: of_a_script, description: x}";
    let dir = folder(files, readme);
    let of = |names: &[&str], split: Option<&str>| of(dir.path(), names, split);
    assert_eq!(of(&[], Some("test")), "data/test-00000-of-00001.jsonl", "the default");
    assert!(of(&[], None).contains("several splits: test, train"));
    assert_eq!(of(&["one"], Some("hard")), "one/b.jsonl");
    assert!(of(&["one"], None).contains("several splits: easy, hard"), "{}", of(&["one"], None));
    assert_eq!(of(&["two"], Some("test")), "two/test/y.jsonl");
    assert_eq!(of(&["two"], Some("train")), "two/train/x.jsonl");
    assert_eq!(of(&["three"], None), "three/inner/z.jsonl");
    assert_eq!(of(&["t*"], Some("train")), "two/train/x.jsonl three/inner/z.jsonl");
    assert_eq!(of(&["lost"], None), "lost/p.jsonl", "a folder that the README does not list");
    let error = of(&["gone"], None);
    assert!(
        error.starts_with("DIR: name: found gone") && error.contains("\"gone/*\", the folder has data/test"),
        "{error}"
    );
    let error = of(&["three"], Some("test"));
    assert!(error.starts_with("DIR: split: found test"), "{error}");
    let error = of(&["five"], None);
    assert!(error.contains("one of default, one, two, three, gone, a list of them, or '*' for all"), "{error}");
    assert_eq!(
        read::read(&DatasetConfig { name: vec!["three".into(), "lost".into()], ..entry(dir.path()) }).unwrap().len(),
        2
    );
}
