//! Tests that results of commands never replace files of the user, devices, pipes and links.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::Output;

use rustix::fs::{CWD, FileType, mknodat};

use crate::cli::generate::model_dir;
use crate::cli::help::omr;

fn run(dir: &Path, args: &[&str]) -> Output {
    omr().current_dir(dir).args(["--device", "cpu", "--threads", "1"]).args(args).output().unwrap()
}

fn refused(dir: &Path, args: &[&str], parts: &[&str]) {
    let done = run(dir, args);
    let text = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(2) && parts.iter().all(|part| text.contains(part)), "{args:?}: {text}");
}

/// Commands with the result file of each, which comes last if the command names it.
const COMMANDS: [(&[&str], &str); 8] = [
    (&["plan", "sft.yaml", "--launches"], "out"),
    (&["score", "--logprobs", "line.jsonl", "--model", "model", "--out"], "out"),
    (&["eval", "--tasks", "logicvista", "--data", "bench", "--limit", "1", "--dump-prompts"], "out"),
    (&["bench", "rms_norm", "--seconds", "0.001", "--json"], "out"),
    (&["data", "inspect", "rows.jsonl", "--out", "folder"], "folder/inspect.html"),
    (&["data", "preview", "rows.jsonl", "--model", "model", "--rows", "1", "--out", "folder"], "folder/preview.html"),
    (&["report", "bench_run", "--out"], "out"),
    (&["man", "--out", "folder"], "folder/omr-sft.1"),
];

fn inputs(dir: &Path) {
    let golden = omr_base_tests::golden::dir().join("eval/logicvista_thinking/data.parquet");
    ["folder", "model", "bench/logicvista", "bench_run"]
        .iter()
        .for_each(|name| fs::create_dir_all(dir.join(name)).unwrap());
    fs::copy(golden, dir.join("bench/logicvista/data.parquet")).unwrap();
    fs::write(dir.join("bench_run/metrics.jsonl"), "{\"step\":1,\"loss\":0.5}\n").unwrap();
    fs::write(dir.join("rows.jsonl"), "{\"question\": \"What is this?\", \"answer\": \"One\"}\n").unwrap();
    fs::write(dir.join("line.jsonl"), "{\"id\": 1, \"prompt\": \"What is this?\", \"response\": \"One\"}\n").unwrap();
    fs::write(dir.join("sft.yaml"), "model: model\ndatasets: [x.jsonl]\nlora: {rank: 8}\n").unwrap();
    model_dir(&dir.join("model"));
}

#[test]
fn no_command_replaces_a_file_a_link_or_a_pipe_that_it_is_pointed_at() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    for (command, name) in COMMANDS {
        let (path, mine) = (dir.path().join(name), dir.path().join("mine"));
        let args = if name == "out" { &[command, &["out"]].concat()[..] } else { command };
        fs::write(&mine, "mine").unwrap();
        symlink(&mine, &path).unwrap();
        refused(dir.path(), args, &["found a file that exists", "--overwrite"]);
        assert_eq!(fs::read_to_string(&mine).unwrap(), "mine", "{args:?}");
        let done = run(dir.path(), &[args, &["--overwrite"]].concat());
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        assert!(path.is_symlink() && fs::metadata(&mine).unwrap().len() > 4, "{args:?}");
        // Some commands write more than one file into their folder.
        fs::remove_dir_all(dir.path().join("folder")).unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        let _ = fs::remove_file(&path);
        mknodat(CWD, &path, FileType::Fifo, 0o600.into(), 0).unwrap();
        let reader = std::thread::spawn({
            let path = path.clone();
            move || fs::read(path).unwrap()
        });
        let done = run(dir.path(), args);
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        assert!(!reader.join().unwrap().is_empty() && fs::metadata(&path).unwrap().file_type().is_fifo(), "{args:?}");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        // Other pages of the manual exist by now.
        refused(dir.path(), &[args, &["--overwrite"]].concat(), &["found a folder"]);
        fs::remove_dir(&path).unwrap();
        fs::remove_dir_all(dir.path().join("folder")).unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
    }
}

#[test]
fn a_result_can_go_to_standard_output_and_never_to_an_input() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let report = |out: &str| run(dir.path(), &["report", "bench_run", "--out", out]).stdout;
    let page = report("-");
    assert!(page.starts_with(b"<!") && page == report("/dev/stdout") && page == report("/proc/self/fd/1"));
    let (score, dump) = (COMMANDS[1].0, COMMANDS[2].0);
    refused(dir.path(), &[score, &["line.jsonl", "--overwrite"]].concat(), &["a file that this command reads"]);
    refused(dir.path(), &[score, &["model/config.json", "--overwrite"]].concat(), &["a file that this command reads"]);
    let data = "bench/logicvista/data.parquet";
    refused(dir.path(), &[dump, &[data, "--overwrite"]].concat(), &["a file that this command reads"]);
    // A folder is created only at a new name, also if a link leads nowhere.
    symlink("nothing", dir.path().join("link")).unwrap();
    refused(dir.path(), &["export", "--quantize", "int8", "model", "--out", "link"], &["which exists"]);
    // What a later command continues must be a regular file.
    let generate = ["generate", "--model", "model", "--jsonl", "line.jsonl", "max_tokens=1", "--out"];
    refused(dir.path(), &[&generate[..], &["/dev/null"]].concat(), &["expected a regular file"]);
    fs::write(dir.path().join("a.jsonl.partial"), "mine").unwrap();
    refused(dir.path(), &[&generate[..], &["a.jsonl"]].concat(), &["a.jsonl.partial", "--overwrite"]);
    fs::remove_file(dir.path().join("a.jsonl.partial")).unwrap();
    symlink("rows.jsonl", dir.path().join("a.jsonl.partial")).unwrap();
    refused(dir.path(), &[&generate[..], &["a.jsonl", "--overwrite"]].concat(), &["a.jsonl.partial", "found a link"]);
    fs::remove_file(dir.path().join("a.jsonl.partial")).unwrap();
    fs::write(dir.path().join("a.jsonl"), "mine").unwrap();
    refused(dir.path(), &[&generate[..], &["a.jsonl"]].concat(), &["--overwrite replaces the file", "--fresh"]);
    let done = run(dir.path(), &[&generate[..], &["a.jsonl", "--overwrite"]].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(fs::read_to_string(dir.path().join("a.jsonl")).unwrap().contains("\"response\""));
}
