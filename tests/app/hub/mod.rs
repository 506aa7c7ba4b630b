//! Tests `omr download` and `omr upload` against a hub server on this machine.

pub mod benchmarks;
pub mod upload;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use omr_base_tests::hub::server::{Fault, Hub};
use omr_base_tests::wait::until_async;

/// Returns pseudo-random bytes.
fn bytes(len: usize, salt: u32) -> Vec<u8> {
    (0..len as u32).map(|i| ((i ^ salt).wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("README.md", b"# tiny\n".to_vec()),
        ("config.json", b"{}\n".to_vec()),
        ("data/train-0.parquet", bytes(300_000, 1)),
        ("data/empty.txt", Vec::new()),
        ("model.safetensors", bytes(1_000_000, 2)),
    ]
}

fn command(hub: &str, dir: &Path, args: &[&str]) -> Command {
    program(hub, dir, "download", args)
}

/// Returns a command of the program that uses this hub.
fn program(hub: &str, dir: &Path, name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
    command.current_dir(dir).arg(name).args(args).env("HF_ENDPOINT", hub).env("HF_HOME", dir.join("home"));
    for name in ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "HF_HUB_CACHE"] {
        command.env_remove(name);
    }
    command
}

struct Done {
    code: Option<i32>,
    printed: String,
}

fn done(output: Output) -> Done {
    Done { code: output.status.code(), printed: String::from_utf8_lossy(&output.stderr).into_owned() }
}

async fn run(mut command: Command) -> Done {
    done(tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap())
}

fn assert_whole(dir: &Path, files: &[(&str, Vec<u8>)]) {
    for (path, bytes) in files {
        assert!(std::fs::read(dir.join(path)).unwrap() == *bytes, "{path}");
    }
    let left: Vec<_> = walk(dir).into_iter().filter(|name| name.ends_with(".incomplete")).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn walk(dir: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => out.extend(walk(&path)),
            false => out.push(path.display().to_string()),
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_arrives_whole_and_a_finished_folder_asks_for_the_listing_alone() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&files()).await;
    let mut first = command(&hub.url, dir.path(), &["org/tiny", "--to", "out"]);
    first.env("HF_TOKEN", "hf_secret");
    let first = run(first).await;
    assert_eq!(first.code, Some(0), "{}", first.printed);
    assert!(first.printed.contains("5 files, 1.2 MiB; 1.2 MiB to download into out"), "{}", first.printed);
    assert_whole(&dir.path().join("out"), &files());
    let seen = hub.seen();
    let on_cdn: Vec<_> = seen.iter().filter(|seen| seen.on_cdn).collect();
    assert_eq!(on_cdn.len(), 2);
    assert!(on_cdn.iter().all(|seen| seen.token.is_none()), "the token left the hub's host: {on_cdn:?}");
    assert!(seen.iter().filter(|seen| !seen.on_cdn).all(|seen| seen.token.as_deref() == Some("Bearer hf_secret")));

    // Downloads into the same folder again, then as a data set without a token, then offline.
    let again = run(command(&hub.url, dir.path(), &["org/tiny", "--to", "out"])).await;
    assert!(
        again.code == Some(0) && again.printed.contains("out already contains all of org/tiny"),
        "{}",
        again.printed
    );
    let seen = hub.seen();
    assert!(!seen.is_empty() && seen.iter().all(|seen| seen.path.starts_with("/api/")), "{seen:?}");
    let mut offline = command(&hub.url, dir.path(), &["org/tiny", "--to", "out"]);
    let offline = run({
        offline.env("HF_HUB_OFFLINE", "1");
        offline
    });
    let offline = offline.await;
    assert!(offline.code == Some(0) && hub.seen().is_empty(), "{}", offline.printed);
    let mut nothing = command(&hub.url, dir.path(), &["org/tiny", "--to", "none"]);
    nothing.env("HF_HUB_OFFLINE", "1");
    let nothing = run(nothing).await;
    assert!(nothing.code == Some(2) && nothing.printed.contains("HF_HUB_OFFLINE"), "{}", nothing.printed);
    assert!(!dir.path().join("none").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_broken_and_cut_connections_are_tried_again_from_where_they_ended() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&files()).await;
    hub.fail(
        "model.safetensors",
        &[Fault::Status(429, ""), Fault::Cut(250_000), Fault::Status(503, ""), Fault::Cut(100_000)],
    );
    hub.fail("data/train-0.parquet", &[Fault::Cut(1000), Fault::NoRange]);
    hub.fail("config.json", &[Fault::Corrupt]);
    hub.fail("api", &[Fault::Status(429, ""), Fault::Status(502, "")]);
    let got = run(command(&hub.url, dir.path(), &["org/tiny@refs/pr/1", "--to", "out"])).await;
    assert_eq!(got.code, Some(0), "{}", got.printed);
    assert_whole(&dir.path().join("out"), &files());
    let ranges: Vec<_> =
        hub.seen().into_iter().filter(|s| s.on_cdn && s.path.contains("model")).filter_map(|s| s.range).collect();
    assert_eq!(ranges, ["bytes=250000-", "bytes=250000-", "bytes=350000-"]);
}

/// The bytes that are sent again each time are no progress.
#[ignore = "slow: 40 seconds"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_ends_if_the_server_begins_again_and_stops_early_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&files()).await;
    let cuts: Vec<Fault> = (0..100).map(|i| Fault::NoRangeCut(500_000 + i % 2)).collect();
    hub.fail("model.safetensors", &cuts);
    let got = run(command(&hub.url, dir.path(), &["org/tiny", "--to", "out", "--include", "*.safetensors"])).await;
    assert!(got.code == Some(1) && got.printed.contains("model.safetensors"), "{}", got.printed);
    let requests = hub.seen().iter().filter(|seen| seen.on_cdn).count();
    assert!(requests < 20, "{requests}");
    assert!(!dir.path().join("out/model.safetensors").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_file_resumes_at_the_other_host_until_that_host_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&files()).await;
    // The address on the other host expires after the second interruption.
    let expired = Fault::Status(403, "");
    hub.fail("model.safetensors", &[Fault::Cut(250_000), Fault::Cut(100_000), expired, Fault::Cut(50_000)]);
    let mut command = command(&hub.url, dir.path(), &["org/tiny", "--to", "out", "--include", "*.safetensors"]);
    command.env("HF_TOKEN", "hf_secret");
    let got = run(command).await;
    assert_eq!(got.code, Some(0), "{}", got.printed);
    assert!(std::fs::read(dir.path().join("out/model.safetensors")).unwrap() == bytes(1_000_000, 2));
    let seen = hub.seen();
    let ranges_of = |is_cdn: bool| -> Vec<&str> {
        let of_file = seen.iter().filter(|seen| seen.on_cdn == is_cdn && seen.path.contains("model.safetensors"));
        of_file.map(|seen| seen.range.as_deref().unwrap_or("all")).collect()
    };
    assert_eq!(ranges_of(false), ["all", "bytes=350000-"]);
    let resumed = ["all", "bytes=250000-", "bytes=350000-", "bytes=350000-", "bytes=400000-"];
    assert_eq!(ranges_of(true), resumed);
    assert!(seen.iter().filter(|seen| seen.on_cdn).all(|seen| seen.token.is_none()), "the token left the hub's host");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_another_hash_gets_no_name_and_ends_the_download() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&files()).await;
    hub.fail("model.safetensors", &[Fault::Corrupt; 9]);
    let got = run(command(&hub.url, dir.path(), &["org/tiny", "--to", "out", "--max-workers", "1"])).await;
    assert_eq!(got.code, Some(1), "{}", got.printed);
    assert!(got.printed.contains("model.safetensors") && got.printed.contains("sha256"), "{}", got.printed);
    assert!(!dir.path().join("out/model.safetensors").exists());
    // A corrupt partial file from an earlier process does no harm when the hub sends the listed content.
    let mut left = std::fs::read_dir(dir.path().join("out")).unwrap().map(|e| e.unwrap().path());
    let half = left.find(|path| path.extension().is_some_and(|e| e == "incomplete")).unwrap();
    std::fs::write(half, bytes(400_000, 9)).unwrap();
    hub.fail("model.safetensors", &[]);
    let got = run(command(&hub.url, dir.path(), &["org/tiny", "--to", "out"])).await;
    assert_eq!(got.code, Some(0), "{}", got.printed);
    assert_whole(&dir.path().join("out"), &files());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_download_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&files()).await;
    hub.fail("model.safetensors", &[Fault::Stall(600_000)]);
    let mut first = command(&hub.url, dir.path(), &["datasets/org/rows", "--to", "out"]);
    let mut child = first.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let out = dir.path().join("out");
    let half = || -> Option<u64> {
        let mut paths = std::fs::read_dir(&out).ok()?.map(|e| e.unwrap().path());
        let half = paths.find(|path| path.display().to_string().contains("model.safetensors."))?;
        Some(half.metadata().ok()?.len())
    };
    until_async("half of the file", async || half() == Some(600_000)).await;
    let busy = run(command(&hub.url, dir.path(), &["datasets/org/rows", "--to", "out"])).await;
    assert!(busy.code == Some(2) && busy.printed.contains("another download"), "{}", busy.printed);
    child.kill().unwrap();
    child.wait().unwrap();
    hub.seen();
    // There is no model with this name, so the repository is found as a data set.
    let second = run(command(&hub.url, dir.path(), &["org/rows", "--to", "out"])).await;
    assert_eq!(second.code, Some(0), "{}", second.printed);
    assert_whole(&out, &files());
    let seen = hub.seen();
    let fetched = seen.iter().filter(|s| s.on_cdn).filter(|s| s.path.contains("model")).map(|s| s.range.as_deref());
    assert_eq!(fetched.collect::<Vec<_>>(), [Some("bytes=600000-")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_had_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&files()).await;
    let refused = async |args: &[&str], token: Option<&str>, words: &[&str]| {
        let mut command = command(&hub.url, dir.path(), &[args, &["--to", "out"]].concat());
        command.envs(token.map(|token| ("HF_TOKEN", token)));
        let got = run(command).await;
        assert_eq!(got.code, Some(2), "{args:?}: {}", got.printed);
        words.iter().for_each(|word| assert!(got.printed.contains(word), "{args:?}: {}", got.printed));
    };
    refused(&["org/tinny"], None, &["org/tinny: found no such repository", "did you mean org/tiny?"]).await;
    refused(&["datasets/org/row"], None, &["did you mean org/rows?"]).await;
    refused(&["no/where"], None, &["HF_TOKEN"]).await;
    refused(&["no/where"], Some("hf_old"), &["a token that", "settings/tokens"]).await;
    refused(&["org/tiny@v1.4"], None, &["no revision v1.4", "did you mean v1.5?"]).await;
    refused(&["org/tiny", "--include", "modl.safetensors"], None, &["did you mean model.safetensors?"]).await;
    refused(&["org/tiny", "--include", "[z"], None, &["--include"]).await;
    refused(&["gpt"], None, &["sft-data"]).await;
    hub.state.lock().unwrap().locked = Some((401, "GatedRepo"));
    refused(&["org/tiny"], None, &["accept its terms at", "/org/tiny", "HF_TOKEN"]).await;
    for (status, words) in [(403, "accept the terms"), (401, "settings/tokens")] {
        hub.fail("README.md", &[Fault::Status(status, "GatedRepo")]);
        refused(&["org/tiny", "--include", "README.md"], Some("hf_x"), &[words]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_newer_commits_foreign_files_and_full_disks() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&files()).await;
    let args = ["org/tiny", "--to", "out", "--include", "*.parquet", "--include", "config.json"];
    let got = run(command(&hub.url, dir.path(), &args)).await;
    assert_eq!(got.code, Some(0), "{}", got.printed);
    let out = dir.path().join("out");
    let mut names: Vec<_> = walk(&out).into_iter().map(|n| n.rsplit('/').next().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, [".download.jsonl", "config.json", "train-0.parquet"]);

    // A newer commit replaces the files of an older one.
    {
        let mut state = hub.state.lock().unwrap();
        state.commit = "d".repeat(40);
        state.files.insert("config.json".into(), b"{\"newer\": 1}\n".to_vec());
    }
    let got = run(command(&hub.url, dir.path(), &args)).await;
    assert_eq!(got.code, Some(0), "{}", got.printed);
    assert_eq!(std::fs::read(out.join("config.json")).unwrap(), b"{\"newer\": 1}\n");

    // A file that belongs to the user stays.
    std::fs::write(out.join("README.md"), "mine").unwrap();
    let got = run(command(&hub.url, dir.path(), &["org/tiny", "--to", "out"])).await;
    assert!(got.code == Some(2) && got.printed.contains("out/README.md"), "{}", got.printed);
    assert_eq!(std::fs::read(out.join("README.md")).unwrap(), b"mine");

    // If the disk is too small, the error comes before any file is fetched.
    hub.state.lock().unwrap().printed.insert("model.safetensors".into(), 1 << 60);
    hub.seen();
    let got = run(command(&hub.url, dir.path(), &["org/tiny", "--to", "other"])).await;
    assert!(got.code == Some(2) && got.printed.contains("free"), "{}", got.printed);
    assert!(hub.seen().iter().all(|seen| seen.path.starts_with("/api/")));
}

#[test]
fn a_repository_in_place_of_a_path_is_its_snapshot_or_the_command_that_fetches_it() {
    let dir = tempfile::tempdir().unwrap();
    let omr = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
        command.current_dir(dir.path()).args(args).env("HF_HOME", dir.path().join("home")).env_remove("HF_HUB_CACHE");
        done(command.output().unwrap())
    };
    let sft = ["sft", "sft.yaml", "--out", "run"];
    std::fs::write(dir.path().join("sft.yaml"), "model: org/tiny\ndatasets: [org/rows]\n").unwrap();
    for (args, repo) in [
        (&sft[..], "org/tiny"),
        (&["sft", "sft.yaml", "--out", "run", "model=null"], "org/rows"),
        (&["generate", "--model", "org/tiny", "--prompt", "x"], "org/tiny"),
        (&["eval", "--model", "org/tiny", "--out", "run"], "org/tiny"),
    ] {
        let got = omr(args);
        assert_eq!(got.code, Some(2), "{args:?}: {}", got.printed);
        assert!(
            got.printed.trim_end().ends_with(&format!("(omr download {repo} --to DIR)")),
            "{args:?}: {}",
            got.printed
        );
    }
    // Adds both repositories to the cache, each with only one file. The run then stops at the first file that is
    // missing from a snapshot.
    for (repo, file) in [("models--org--tiny", "config.json"), ("datasets--org--rows", "train.jsonl")] {
        let repo = dir.path().join("home/hub").join(repo);
        std::fs::create_dir_all(repo.join("snapshots/c0ffee")).unwrap();
        std::fs::create_dir_all(repo.join("refs")).unwrap();
        std::fs::write(repo.join("refs/main"), "c0ffee").unwrap();
        std::fs::write(repo.join("snapshots/c0ffee").join(file), "{}").unwrap();
    }
    let got = omr(&sft);
    assert!(got.printed.contains("models--org--tiny/snapshots/c0ffee"), "{}", got.printed);
}

/// The snapshots of the cache are links to `blobs`. A link to any other place is still refused.
#[test]
fn rows_and_images_of_a_snapshot_are_read_through_its_links() {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("home/hub/datasets--org--rows");
    let snapshot = repo.join("snapshots/c0ffee");
    std::fs::create_dir_all(snapshot.join("data")).unwrap();
    std::fs::create_dir_all(repo.join("blobs")).unwrap();
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::write(repo.join("refs/main"), "c0ffee").unwrap();
    image::GrayImage::new(30, 28).save(repo.join("blobs/image.png")).unwrap();
    let line = |image: &str| format!("{{\"question\": \"how many?\", \"answer\": 1, \"image\": \"{image}\"}}\n");
    std::fs::write(repo.join("blobs/rows"), line("images/a.png")).unwrap();
    std::fs::create_dir(snapshot.join("images")).unwrap();
    let link = |to: &str, at: &str| std::os::unix::fs::symlink(repo.join(to), snapshot.join(at)).unwrap();
    link("blobs/rows", "data/train-00000-of-00001.jsonl");
    link("blobs/image.png", "images/a.png");
    let inspect = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
        command
            .current_dir(dir.path())
            .args(["data", "inspect", "org/rows", "--overwrite"])
            .env("HF_HOME", dir.path().join("home"));
        let output = command.env_remove("HF_HUB_CACHE").output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), shown + &String::from_utf8_lossy(&output.stderr))
    };
    let (code, shown) = inspect();
    assert!(code == Some(0) && shown.contains("rows: 1 rows") && shown.contains("images: 1"), "{shown}");
    std::fs::write(repo.join("secret.png"), "x").unwrap();
    link("secret.png", "images/b.png");
    std::fs::write(repo.join("blobs/rows"), line("images/b.png")).unwrap();
    let (code, shown) = inspect();
    assert!(code == Some(2) && shown.contains("expected a path inside the folder"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partial_file_or_a_record_that_is_a_link_writes_nothing_outside_of_the_folder() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&files()).await;
    std::fs::write(dir.path().join("mine"), "mine").unwrap();
    // A first download shows the name of the partial file: its hash is in the listing.
    hub.fail("model.safetensors", &[Fault::Corrupt; 9]);
    let args = ["org/tiny", "--to", "out", "--include", "*.safetensors"];
    let first = run(command(&hub.url, dir.path(), &args)).await;
    assert_ne!(first.code, Some(0), "{}", first.printed);
    let left = walk(&dir.path().join("out")).into_iter().find(|name| name.ends_with(".incomplete")).unwrap();
    let model = run(program(&hub.url, dir.path(), "generate", &["--model", "out", "--prompt", "x"])).await;
    assert!(model.code == Some(2) && model.printed.contains("has not finished"), "{}", model.printed);
    for link in [left, dir.path().join("out/.download.jsonl").display().to_string()] {
        std::fs::remove_file(&link).unwrap();
        symlink(dir.path().join("mine"), &link).unwrap();
        let done = run(command(&hub.url, dir.path(), &args)).await;
        assert!(done.code == Some(2) && done.printed.contains("found a link"), "{}", done.printed);
        assert_eq!(std::fs::read_to_string(dir.path().join("mine")).unwrap(), "mine");
        std::fs::remove_file(&link).unwrap();
    }
    hub.fail("model.safetensors", &[]);
    let done = run(command(&hub.url, dir.path(), &args)).await;
    assert_eq!(done.code, Some(0), "{}", done.printed);
    // A link that has the name of a file of the repository is not replaced.
    symlink("nothing", dir.path().join("out/config.json")).unwrap();
    let done = run(command(&hub.url, dir.path(), &["org/tiny", "--to", "out"])).await;
    assert!(done.code == Some(2) && done.printed.contains("no download wrote"), "{}", done.printed);
    assert!(dir.path().join("out/config.json").is_symlink());
}
