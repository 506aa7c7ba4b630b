//! Tests input that would need too much memory or time. Such input is refused before the work starts, with an error
//! that names the input and without a panic. The tests use the program with two threads, or the function that reads the
//! input.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compression, Crc, write::ZlibEncoder};
use omr_base::config::ScorerConfig;
use omr_base_tests::wait::until;
use omr_data::image::{Limits, Rgb, decode};
use omr_data::reward::{Item, Mode, Scorer};
use omr_data::text::Tokenizer;
use omr_train_tests::training::tiny::base_model;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Result of running the program: its exit status, its last message, and its peak memory in MiB.
struct Ran(Option<i32>, String, u64);

fn omr(dir: &Path, args: &[&str]) -> Ran {
    let printed = dir.join("said");
    let mut child = Command::new(env!("CARGO_BIN_EXE_omr"))
        .args(["--threads", "2"])
        .args(args)
        // Address of the hub, for the tests that use one.
        .env("HF_ENDPOINT", args.last().unwrap())
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(fs::File::create(&printed).unwrap())
        .spawn()
        .unwrap();
    let mut peak = 0;
    until("the end of the program", || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.map_or(peak, |line| line.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10);
        child.try_wait().unwrap().is_some()
    });
    let ended = child.wait().unwrap();
    let printed = fs::read_to_string(printed).unwrap();
    assert!(!printed.contains("panicked"), "{printed}");
    Ran(ended.code(), printed, peak)
}

/// Runs one step of `omr sft` on two copies of `row` and eight short rows.
fn sft(dir: &Path, data_folder: &str, row: &Value, packing_length: usize) -> Ran {
    if !dir.join("model").exists() {
        base_model(&dir.join("model"));
    }
    let rows: String =
        [[row; 2].as_slice(), &[&asks("3 + 5"); 8]].concat().iter().map(|row| format!("{row}\n")).collect();
    fs::write(dir.join("rows.jsonl"), rows).unwrap();
    let datasets = json!([{"path": "rows.jsonl", "data_folder": data_folder}]);
    let config = json!({"model": "model", "max_steps": 1, "max_bad_rows": 0.5, "packing_length": packing_length, "datasets": datasets});
    fs::write(dir.join("sft.yaml"), config.to_string()).unwrap();
    let _ = fs::remove_dir_all(dir.join("out"));
    omr(dir, &["sft", "sft.yaml", "--out", "out"])
}

/// Asserts that [`sft`] leaves the two rows out, as recorded in `rejected.jsonl`, and uses less than `most` MiB.
fn left_out(dir: &Path, data_folder: &str, row: &Value, most: u64, what: &[&str]) {
    let Ran(code, printed, peak) = sft(dir, data_folder, row, 512);
    assert!(code == Some(0) && peak < most, "{printed} at {peak}");
    let rejected = fs::read_to_string(dir.join("out/rejected.jsonl")).unwrap();
    assert!(what.iter().all(|what| rejected.matches(what).count() == 2), "{rejected}");
}

fn asks(question: &str) -> Value {
    json!({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "8"}]})
}

fn with_images(name: &str) -> Value {
    let mut row = asks("<image>What?");
    row["images"] = json!([name]);
    row
}

fn zeros(mebibytes: usize) -> Vec<u8> {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
    (0..mebibytes).for_each(|_| packed.write_all(&[0; 1 << 20]).unwrap());
    packed.finish().unwrap()
}

/// Returns a PNG of this size and pixel type, with a profile that unpacks to `profile` MiB.
fn png(side: u32, kind: [u8; 2], profile: usize, pixels: &[u8]) -> Vec<u8> {
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |name: &[u8; 4], data: &[u8]| {
        let mut crc = Crc::new();
        crc.update(&[&name[..], data].concat());
        out.extend([&(data.len() as u32).to_be_bytes()[..], name, data, &crc.sum().to_be_bytes()].concat());
    };
    chunk(b"IHDR", &[&side.to_be_bytes()[..], &side.to_be_bytes(), &kind, &[0; 3]].concat());
    chunk(b"iCCP", &[b"x\0\0", &zeros(profile)[..]].concat());
    chunk(b"IDAT", pixels);
    chunk(b"IEND", &[]);
    out
}

/// Returns a JPEG of 64 x 64 pixels whose header gives another size.
fn jpeg(side: u16) -> Vec<u8> {
    let mut bytes = omr_data::image::jpeg(&Rgb { width: 64, height: 64, data: vec![0; 3 * 64 * 64] }, 75).unwrap();
    let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    bytes[frame + 5..frame + 9].copy_from_slice(&[side.to_be_bytes(), side.to_be_bytes()].concat());
    bytes
}

fn zip(path: &Path, mebibytes: usize) {
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    zip.start_file("a.png", zip::write::SimpleFileOptions::default()).unwrap();
    (0..mebibytes).for_each(|_| zip.write_all(&[0; 1 << 20]).unwrap());
    zip.finish().unwrap();
}

/// Runs `omr download` with a hub whose listing is `tree` (headers and body). If `endless` is true, the hub then sends
/// spaces without end.
fn download(dir: &Path, tree: &str, endless: bool) -> Ran {
    let (listener, tree) = (TcpListener::bind("127.0.0.1:0").unwrap(), tree.to_owned());
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut request) = (stream.unwrap(), [0; 4096]);
            let asked = stream.read(&mut request).unwrap();
            let lists = String::from_utf8_lossy(&request[..asked]).contains("/tree/");
            let reply = if lists { tree.as_str() } else { "\r\n{\"sha\": \"c\"}" };
            let mut sent = stream.write_all(format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{reply}").as_bytes());
            while endless && lists && sent.is_ok() {
                sent = stream.write_all(&[b' '; 1 << 16]);
            }
        }
    });
    omr(dir, &["download", "datasets/a/b", "--to", "to", "--include", "*", "--include", &address])
}

/// A listing whose next page is the same page.
const AGAIN: &str = "link: <?again>; rel=\"next\"\r\n\r\n[]";

fn added(tokens: usize) -> Value {
    let token = |i: usize| {
        json!({"id": 600 + i, "content": format!("<{i}>"), "special": false, "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false})
    };
    (0..tokens).map(token).collect()
}

#[test]
fn rows_of_twelve_million_spaces_are_overlong_before_they_are_encoded() {
    let dir = tempfile::tempdir().unwrap();
    let row = asks(&format!("{}x", " ".repeat(12_000_000)));
    left_out(dir.path(), ".", &row, 400, &["\"overlong\"", "12000002 bytes of text"]);
}

#[test]
fn a_bomb_in_a_zip_of_images_is_refused_by_its_ratio() {
    let dir = tempfile::tempdir().unwrap();
    zip(&dir.path().join("a.zip"), 120);
    left_out(dir.path(), "a.zip", &with_images("a.png"), 200, &["found 125829120 bytes"]);
}

#[test]
fn small_files_of_large_images_are_refused_from_their_headers() {
    for (bytes, what) in [
        (jpeg(13_000), "that declares 13000 x 13000 pixels"),
        (png(13_000, [16, 6], 0, &[]), "13000 x 13000 pixels of 8 bytes, expected at most 715827880 bytes"),
    ] {
        let error = decode(&bytes, &Limits::default(), "p").unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    // A profile that unpacks to more than the limit is ignored.
    assert!(decode(&png(1, [8, 2], 80, &zeros(1)), &Limits::default(), "p").is_ok());
}

#[test]
fn a_hub_that_sends_without_end_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let file = |path: &str| {
        format!("{{\"type\": \"file\", \"path\": \"{path}\", \"size\": {}, \"oid\": \"{:040}\"}}", u64::MAX, 0)
    };
    let two = format!("\r\n[{}, {}]", file("a"), file("b"));
    let twice = format!("\r\n[{}, {}]", file("a"), file("a"));
    for (tree, endless, status, what) in [
        ("\r\n[", true, 1, "a reply of more than 67108864 bytes"),
        (AGAIN, false, 1, "a next page"),
        (two.as_str(), false, 2, "for the missing files and"),
        (twice.as_str(), false, 1, "\"a\" twice in its listing"),
    ] {
        let Ran(code, printed, peak) = download(dir.path(), tree, endless);
        assert!(code == Some(status) && printed.contains(what) && peak < 300, "{printed} at {peak}");
    }
}

#[test]
fn tokenizers_that_could_hang_or_fill_memory_are_refused_by_part() {
    let dir = tempfile::tempdir().unwrap();
    base_model(dir.path());
    let whole: Value = serde_json::from_slice(&fs::read(dir.path().join("tokenizer.json")).unwrap()).unwrap();
    let alone = tempfile::tempdir().unwrap();
    let printed = |part: &str, value: Value| {
        let mut json = whole.clone();
        *json.pointer_mut(part).unwrap() = value;
        let file = alone.path().join("t.json");
        fs::write(&file, json.to_string()).unwrap();
        Tokenizer::load(&file).err().map_or("read".to_owned(), |e| e.to_string())
    };
    let replaces = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaa"});
    let cuts = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    for (part, value, found) in [
        ("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "Precompiled"),
        ("normalizer", json!({"type": "Prepend", "prepend": "x".repeat(50_000)}), "xxx"),
        ("normalizer", json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, replaces]}), "Replace"),
        ("pre_tokenizer", cuts("(a+)+$"), "(a+)+$"),
        ("model/dropout", json!(0.1), "0.1"),
        ("model/end_of_word_suffix", json!("</w>"), "</w>"),
        ("model/type", json!("Unigram"), "Unigram"),
        ("added_tokens", added(20_000), "20000"),
    ] {
        let error = printed(&format!("/{part}"), value);
        let place = format!("t.json: {}: found", part.replace('/', "."));
        assert!(error.contains(&place) && error.contains(found), "{part}: {error}");
    }
    let llama = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    assert_eq!(printed("/pre_tokenizer/pretokenizers/0", cuts(llama)), "read");
    assert_eq!(
        printed("/post_processor", json!({"type": "Sequence", "processors": [whole["post_processor"]]})),
        "read"
    );
}

/// Environment variable that is set in the process that is killed.
const KILLED: &str = "OMR_TEST_KILLED";

fn scorer(script: &str) -> Scorer {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let config = ScorerConfig { command, workers: 1, ..ScorerConfig::default() };
    Scorer::new(Mode::Strict, None, &config, "reward", None, || unreachable!("no judge is asked")).unwrap()
}

/// Waits until a file contains `count` process ids, and returns them.
fn ids(file: &Path, count: usize) -> Vec<String> {
    let read = || fs::read_to_string(file).unwrap_or_default();
    until("the ids", || read().ends_with('\n') && read().split_whitespace().count() == count);
    let ids = read().split_whitespace().map(str::to_owned).collect();
    fs::remove_file(file).unwrap();
    ids
}

/// Waits until these processes have ended.
fn end(ids: &[String], what: &str) {
    let runs = |id: &String| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
    };
    until(what, || !ids.iter().any(runs));
}

#[test]
fn all_that_a_reward_command_started_ends_with_the_run() {
    let killed = std::env::var_os(KILLED);
    let dir = killed.is_none().then(|| tempfile::tempdir().unwrap());
    let folder = dir.as_ref().map_or(PathBuf::from(killed.clone().unwrap_or_default()), |dir| dir.path().to_owned());
    let file = folder.join("ids");
    // The scorer and its child processes ignore the end of their input, and one of them leaves the group of the others.
    let file_name = file.display();
    let script = format!(
        "sleep 9999 >&- 2>&- & setsid sh -c 'echo $$ >> {file_name}; exec sleep 9999 >&- 2>&-' & \
         echo $! $$ >> {file_name}; exec sleep 9999 >&- 2>&-"
    );
    let scorer = scorer(&script);
    if killed.is_some() {
        loop {
            std::thread::park();
        }
    }
    let first = ids(&file, 3);
    drop(scorer);
    end(&first, "the end of all processes of a run that ends");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["faults::bounds::all_that_a_reward_command_started_ends_with_the_run", "--exact"]);
    let mut child = command.env(KILLED, &folder).stdout(Stdio::null()).spawn().unwrap();
    let second = ids(&file, 3);
    child.kill().unwrap();
    child.wait().unwrap();
    end(&second, "the end of all processes of a run that is killed");
}

#[test]
fn scores_whose_squares_overflow_are_refused_by_name() {
    let item = Item { place: "rows.jsonl row 1".to_owned(), ..Item::default() };
    let scored = scorer("read -r line; echo '{\"score\": 1e200}'").score_all(vec![item]).remove(0);
    let error = scored.unwrap_err().to_string();
    assert!(error.contains("rows.jsonl row 1") && error.contains("a number from -1e15 to 1e15"), "{error}");
}

#[test]
fn a_page_runs_the_scripts_it_was_made_with_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rows.jsonl"), "{\"problem\": \"3 + 5\", \"answer\": \"8\"}\n").unwrap();
    let Ran(code, printed, ..) = omr(dir.path(), &["data", "inspect", "rows.jsonl", "--out", "seen"]);
    assert_eq!(code, Some(0), "{printed}");
    let page = fs::read_to_string(dir.path().join("seen/inspect.html")).unwrap();
    let (_, script) = page.split_once("<script>").unwrap();
    let hash = STANDARD.encode(Sha256::digest(script.split("</script>").next().unwrap()));
    assert!(page.contains(&format!("script-src 'sha256-{hash}';")), "{}", &page[..600]);
}
