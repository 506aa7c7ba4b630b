//! Uploads a run and a model directory, and downloads them again.

use std::path::Path;
use std::process::Command;

use omr_base_tests::hub::server::{Fault, Hub, Seen};

use super::{Done, bytes, run};

/// The config of a model with a vision tower.
const CONFIG: &[u8] = b"{\"architectures\": [\"Qwen2_5_VLForConditionalGeneration\"], \"vision_config\": {}}\n";

/// Writes a finished SFT run, which started from a downloaded model.
fn write_run(dir: &Path) {
    let write = |path: &str, content: &[u8]| {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    write("base/README.md", b"---\nlicense: apache-2.0\ntags: [x]\n---\n# Base\n");
    let record = r#"{"repo":"org/base","revision":"main","commit":"c","include":[],"files":[]}"#;
    write("base/.download.jsonl", record.as_bytes());
    let config = format!("# omr 0.1.0, on the CPU\nmodel: {}\ndatasets: [rows.jsonl]\n", dir.join("base").display());
    write("run/config.yaml", config.as_bytes());
    write("run/metrics.jsonl", b"{\"step\":1,\"loss\":2.5,\"val-core/digits/acc/mean@1\":0.25}\n{\"step\":2,\"loss\":1.5,\"val-core/digits/acc/mean@1\":0.75}\n");
    write(
        "run/starts.jsonl",
        b"{\"host\":\"secret-host\",\"command\":\"omr sft a.yaml\",\"commit\":\"abc\",\"version\":\"0.1.0\"}\n",
    );
    write("run/model/config.json", CONFIG);
    write("run/model/empty.txt", b"");
    write("run/model/model-1.safetensors", &bytes(300_000, 1));
    write("run/model/model-2.safetensors", &bytes(500_000, 2));
    write("run/model/notes.log", b"ignored");
    write("run/model/.hidden", b"hidden");
}

fn upload(hub: &Hub, dir: &Path, args: &[&str]) -> Command {
    let mut command = super::command(&hub.url, dir, args);
    let mut upload = Command::new(command.get_program());
    upload.current_dir(dir).arg("upload").args(args);
    command.get_envs().for_each(|(name, value)| match value {
        Some(value) => drop(upload.env(name, value)),
        None => drop(upload.env_remove(name)),
    });
    command = upload;
    command.env("HF_TOKEN", "hf_write");
    command
}

fn sent(seen: &[Seen]) -> Vec<usize> {
    seen.iter().filter(|seen| seen.on_cdn && seen.method == "PUT").map(|seen| seen.body.len()).collect()
}

fn assert_fails(done: &Done, words: &[&str]) {
    assert_eq!(done.code, Some(2), "{}", done.printed);
    words.iter().for_each(|word| assert!(done.printed.contains(word), "{word}: {}", done.printed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uploaded_run_is_downloaded_with_the_same_bytes_and_a_model_card() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path());
    let hub = Hub::start(&[]).await;
    hub.fail("put", &[Fault::Status(500, "")]);
    let done = run(upload(&hub, dir.path(), &["run", "--to", "org/new", "--private"])).await;
    assert_eq!(done.code, Some(0), "{}", done.printed);
    assert!(
        done.printed.contains("8 files, 782.3 KiB") && done.printed.contains("notes.log: left out"),
        "{}",
        done.printed
    );
    let seen = hub.seen();
    assert!(seen.iter().filter(|seen| seen.on_cdn).all(|seen| seen.token.is_none()), "the token left the hub's host");
    assert_eq!(sent(&seen).len(), 3, "the part that failed was sent again");
    assert_eq!(hub.state.lock().unwrap().received.repo, Some(true));

    // The hub of the test serves the same files under another name.
    let got = run(super::command(&hub.url, dir.path(), &["org/tiny", "--to", "out"])).await;
    assert_eq!(got.code, Some(0), "{}", got.printed);
    for name in ["config.json", "empty.txt", "model-1.safetensors", "model-2.safetensors"] {
        let [was, is] = ["run/model", "out"].map(|folder| std::fs::read(dir.path().join(folder).join(name)).unwrap());
        assert!(was == is, "{name}");
    }
    assert!(!dir.path().join("out/.hidden").exists() && dir.path().join("out/training/metrics.jsonl").exists());
    let written = std::fs::read_to_string(dir.path().join("out/README.md")).unwrap();
    for line in [
        "base_model: \"org/base\"",
        "license: apache-2.0",
        "library_name: transformers",
        "pipeline_tag: image-text-to-text",
        "      value: 0.75",
        "# new",
        "A model (Qwen2_5_VLForConditionalGeneration) that starts from `org/base`, trained by SFT on `rows.jsonl`",
        "- Command: omr sft a.yaml",
        "- Commit: abc",
    ] {
        assert!(written.contains(line), "{line}: {written}");
    }
    assert!(!written.contains("secret-host"), "{written}");

    // A second upload sends and commits nothing.
    hub.seen();
    let again = run(upload(&hub, dir.path(), &["run", "--to", "org/new"])).await;
    assert!(again.code == Some(0) && again.printed.contains("already contains all files"), "{}", again.printed);
    assert!(sent(&hub.seen()).is_empty() && hub.state.lock().unwrap().received.commits == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_was_stopped_sends_only_what_is_missing_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path());
    std::fs::write(dir.path().join("run/model/README.md"), "my own text").unwrap();
    let hub = Hub::start(&[]).await;
    hub.state.lock().unwrap().received.part_size = Some(128_000);
    // The hub refuses the second file, so that the first upload ends after the first file.
    let args = ["run/model", "--to", "org/new", "--max-workers", "1"];
    let mut faults = [Fault::NoRange; 7];
    faults[6] = Fault::Status(400, "");
    hub.fail("put", &faults);
    let first = run(upload(&hub, dir.path(), &args)).await;
    assert_eq!(first.code, Some(1), "{}", first.printed);
    assert!(!first.printed.contains("signature"), "{}", first.printed);
    let stored: Vec<usize> = hub.state.lock().unwrap().received.objects.values().map(Vec::len).collect();
    assert!(stored.len() == 1 && hub.state.lock().unwrap().received.commits == 0, "{stored:?}");
    hub.seen();
    let second = run(upload(&hub, dir.path(), &args)).await;
    assert_eq!(second.code, Some(0), "{}", second.printed);
    assert_eq!(sent(&hub.seen()).iter().sum::<usize>(), 800_000 - stored[0]);
    let state = hub.state.lock().unwrap();
    assert_eq!(state.files["README.md"], b"my own text");
    assert!(state.files["model-2.safetensors"] == bytes(500_000, 2) && state.received.commits == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_of_files_that_differ_from_their_manifest_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path());
    let (model, hub) = (dir.path().join("run/model"), Hub::start(&[]).await);
    omr_base::identity::Manifest::write(&model).unwrap();
    let refused = |words: &'static [&'static str]| {
        let command = upload(&hub, dir.path(), &["run", "--to", "org/new"]);
        async move { assert_fails(&run(command).await, words) }
    };
    let weights = std::fs::read(model.join("model-1.safetensors")).unwrap();
    let mut flipped = weights.clone();
    flipped[weights.len() / 2] ^= 1;
    for changed in [&flipped[..], &weights[..1024]] {
        std::fs::write(model.join("model-1.safetensors"), changed).unwrap();
        refused(&["model-1.safetensors", "MANIFEST has another"]).await;
    }
    std::fs::write(model.join("model-1.safetensors"), &weights).unwrap();
    std::fs::rename(model.join("config.json"), model.join("other.txt")).unwrap();
    refused(&["config.json"]).await;
    std::fs::rename(model.join("other.txt"), model.join("config.json")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("base"), model.join("outside")).unwrap();
    refused(&["model/outside", "a link to a folder"]).await;
    assert_eq!(hub.state.lock().unwrap().received.commits, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_to_a_file_outside_of_the_folder_is_never_uploaded() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path());
    let (at, hub) = (|name: &str| dir.path().join(name), Hub::start(&[]).await);
    std::fs::write(at("token"), "hf_of_the_user").unwrap();
    let planned = |folder: &'static str| {
        let command = upload(&hub, dir.path(), &[folder, "--to", "org/new", "--dry-run"]);
        async move { run(command).await }
    };
    for (link, folder) in [
        ("run/model/notes.json", "run"),
        ("run/model/README.md", "run/model"),
        ("run/README.md", "run"),
        ("run/summary.json", "run"),
    ] {
        symlink(at("token"), at(link)).unwrap();
        assert_fails(&planned(folder).await, &[link, "a link to a place outside the folder"]);
        std::fs::remove_file(at(link)).unwrap();
    }
    // Links inside the folder, and those of a snapshot to its blobs, are followed.
    symlink("model-1.safetensors", at("run/model/model-3.safetensors")).unwrap();
    assert_eq!(planned("run").await.code, Some(0));
    let repo = "hub/models--o--n";
    std::fs::create_dir_all(at(repo).join("snapshots/c0ffee")).unwrap();
    std::fs::create_dir_all(at(repo).join("blobs")).unwrap();
    for (name, content) in [("config.json", CONFIG), ("model.safetensors", b"weights")] {
        std::fs::write(at(repo).join("blobs").join(name), content).unwrap();
        symlink(format!("../../blobs/{name}"), at(repo).join("snapshots/c0ffee").join(name)).unwrap();
    }
    assert_eq!(planned("hub/models--o--n/snapshots/c0ffee").await.code, Some(0));
    // The folder of the model in a run is not another folder.
    std::fs::rename(at("run/model"), at("elsewhere")).unwrap();
    symlink(at("elsewhere"), at("run/model")).unwrap();
    assert_fails(&planned("run").await, &["run/model", "a link to a place outside the folder"]);
    assert_eq!(hub.state.lock().unwrap().received.commits, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_without_an_object_and_ignored_weights_end_the_upload() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path());
    let hub = Hub::start(&[]).await;
    let args = ["run", "--to", "org/new"];
    hub.state.lock().unwrap().received.forgets = true;
    let done = run(upload(&hub, dir.path(), &args)).await;
    assert!(done.code == Some(1) && done.printed.contains("no answer about model-"), "{}", done.printed);
    let set = |received: &mut omr_base_tests::hub::receive::Received| {
        (received.forgets, received.ignored) = (false, Some(".safetensors"));
    };
    set(&mut hub.state.lock().unwrap().received);
    assert_fails(&run(upload(&hub, dir.path(), &args)).await, &[".gitignore", "model-1.safetensors"]);
    assert_eq!(hub.state.lock().unwrap().received.commits, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_the_hub_refuses_ends_with_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path());
    let hub = Hub::start(&[]).await;
    let start = |token: &str| {
        let mut command = upload(&hub, dir.path(), &["run", "--to", "org/new"]);
        command.env("HF_TOKEN", token);
        run(command)
    };
    assert_fails(&start("").await, &["no token", "HF_TOKEN", "settings/tokens"]);
    assert!(hub.seen().is_empty());
    assert_fails(&start("hf_wrong").await, &["a token that", "rejects"]);
    assert_fails(&start("hf_read").await, &["no write access", "that can write"]);
    hub.fail("/api/models/org/new/commit/main", &[Fault::Status(409, "")]);
    assert_fails(&start("hf_write").await, &["another change at the same time", "run the same command again"]);
    hub.fail("/api/models/org/new/preupload/main", &[Fault::Status(404, "")]);
    assert_fails(&start("hf_write").await, &["no such repository"]);
    let mut offline = upload(&hub, dir.path(), &["run", "--to", "org/new"]);
    offline.env("HF_HUB_OFFLINE", "1");
    assert_fails(&run(offline).await, &["HF_HUB_OFFLINE"]);
    assert_fails(&run(upload(&hub, dir.path(), &["run", "--to", "org/new", "--private"])).await, &["which is public"]);
    assert_fails(&run(upload(&hub, dir.path(), &["run", "--to", "base"])).await, &["--to"]);
    assert_fails(&run(upload(&hub, dir.path(), &["base", "--to", "org/new"])).await, &["no config.json"]);
    assert_eq!(hub.state.lock().unwrap().received.commits, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_prints_files_and_model_card_and_contacts_no_hub() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path());
    let hub = Hub::start(&[]).await;
    let mut command = upload(&hub, dir.path(), &["run", "--to", "org/new", "--dry-run"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("488.3 KiB  model-2.safetensors") && text.contains("training/config.yaml"), "{text}");
    assert!(text.contains("base_model: \"org/base\"") && hub.seen().is_empty(), "{text}");
    // A text model and an adapter have their own words.
    let config = dir.path().join("run/model/config.json");
    std::fs::write(config, "{\"architectures\": [\"LlamaForCausalLM\"]}").unwrap();
    let mut command = upload(&hub, dir.path(), &["run", "--to", "org/new", "--dry-run"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("pipeline_tag: text-generation") && text.contains("A model (LlamaForCausalLM)"), "{text}");
}
