//! Takes a tiny model of every family through every command, to its end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use omr_base::config::{RlConfig, SftConfig, to_yaml};
use omr_data::rows::{Form, Row, write};
use omr_model::nn::config::Family;
use omr_model::nn::family::FAMILIES;
use omr_model::nn::{Model, ModelConfig};
use omr_runtime::tensor::DType;
use omr_train::training::metrics;
use omr_train_tests::training::tiny;
use serde_json::{Value, json};

use super::help::{commands, fed, omr, subcommands};
use super::training::{failure, run};
use crate::serve::program::{Server, image};

/// A folder with a tiny model, rows for it, and what the commands before wrote.
struct Folder {
    dir: tempfile::TempDir,
    family: &'static Family,
    /// True if the family has a vision tower.
    sees: bool,
}

/// The name of a command and its test.
type Case = (&'static str, fn(&Folder));

/// Cases of commands that read a model. Each case may use the results of those above it.
const CASES: [Case; 22] = [
    ("init", init),
    ("data inspect", inspect),
    ("data preview", preview),
    ("data passrate", passrate),
    ("data filter", filter),
    ("data dedup", dedup),
    ("data run", list),
    ("plan", plan),
    ("sft", sft),
    ("rl", rl),
    ("eval", eval),
    ("export", export),
    ("generate", generate),
    ("chat", chat),
    ("score", score),
    ("serve", serve),
    ("replay", replay),
    ("report", report),
    ("watch", watch),
    ("upload", upload),
    ("bench", bench),
    ("recipe", recipe),
];

/// Commands that read no model, with what they read instead.
const WITHOUT_MODEL: [(&str, &str); 10] = [
    ("download", "files of the hub"),
    ("verify", "two answers"),
    ("config", "nothing"),
    ("doctor", "the machine"),
    ("completions", "nothing"),
    ("man", "nothing"),
    ("data format", "rows"),
    ("data distill", "rows, which it sends to a server"),
    ("data verify", "rows"),
    ("data mix", "rows"),
];

#[test]
fn every_command_has_a_case() {
    let with = CASES.iter().map(|(name, _)| *name);
    let mut named: Vec<String> = with.chain(WITHOUT_MODEL.iter().map(|(name, _)| *name)).map(str::to_owned).collect();
    let mut listed: Vec<String> = commands().into_iter().filter(|name| name != "data").collect();
    listed.extend(subcommands("data").into_iter().map(|stage| format!("data {stage}")));
    named.sort();
    listed.sort();
    assert_eq!(named, listed);
}

#[test]
fn every_command_works_with_a_model_of_every_family() {
    std::thread::scope(|scope| {
        for family in FAMILIES {
            scope.spawn(move || {
                let folder = Folder::new(family);
                for (name, case) in CASES {
                    println!("{}: {name}", family.model_types[0]);
                    case(&folder);
                }
            });
        }
    });
}

impl Folder {
    fn new(family: &'static Family) -> Folder {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("base");
        tiny::model_of(family, &model);
        let sees = ModelConfig::load(&model.join("config.json")).unwrap().media.is_some();
        // The configs of `tiny` then write no model and no rows.
        fs::create_dir(dir.path().join("tuned")).unwrap();
        let folder = Folder { dir, family, sees };
        let rows = &if sees { tiny::rows() } else { tiny::text_rows() }[..4];
        write::write(&folder.path("sft.parquet"), rows, Form::Sft).unwrap();
        write::write(&folder.path("rl.parquet"), rows, Form::Rl).unwrap();
        write::write(&folder.path("images.parquet"), &tiny::rows()[..1], Form::Sft).unwrap();
        let ask = |row: &Row| json!({"id": row.id, "question": "How many?", "answer": row.ground_truth});
        let lines: String = rows.iter().map(|row| format!("{}\n", ask(row))).collect();
        fs::write(folder.path("ask.jsonl"), lines).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a file and returns its path.
    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.at(name)
    }

    /// Runs a command, which must succeed, and returns its stdout.
    fn run(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = run(&[&["--device", "cpu", "--threads", "1"], args].concat());
        assert_eq!(code, 0, "{}: {args:?}: {stdout}{stderr}", self.family.model_types[0]);
        stdout
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Asserts that a model directory can be loaded, and that it is of the family.
    fn loads(&self, name: &str) {
        let model = Model::load(&mut tiny::device(1), &self.path(name), DType::F32).unwrap();
        assert_eq!(model.config.family.model_types, self.family.model_types, "{name}");
    }

    /// Asserts that a command has one clear error, because the model is a text model. Does nothing for other models.
    fn refused(&self, args: &[&str], parts: &[&str]) {
        if !self.sees {
            failure(&[&["--device", "cpu"], args].concat(), 2, parts);
        }
    }

    /// Runs a stage of `omr data` with these keys, and returns its summary.
    fn stage(&self, stage: &str, keys: &str) -> Value {
        let config = self.write("stage.yaml", keys);
        self.run(&["data", stage, &config, "--out", &self.at(stage)]);
        self.json(&format!("{stage}/summary.json"))
    }
}

/// `omr init` makes models of the family with a tower. A text model cannot be its base.
fn init(folder: &Folder) {
    let (rows, base) = (folder.at("sft.parquet"), format!("base.model={}", folder.at("base")));
    let args = ["init", "--like", "configs/digits.yaml", "--rows", &rows, "--out", &folder.at("init")];
    match folder.sees {
        false => folder.refused(&[&args[..], &[&base]].concat(), &["base.model", "null"]),
        true => {
            let family = format!("base.family={}", folder.family.model_types[0]);
            folder.run(&[&args[..], &super::init::SMALL, &[&family]].concat());
            folder.loads("init");
        }
    }
}

fn inspect(folder: &Folder) {
    let args = ["data", "inspect", &folder.at("sft.parquet"), "--model", &folder.at("base")];
    let shown = folder.run(&[&args[..], &["--out", &folder.at("inspect")]].concat());
    assert!(shown.contains("4 rows") && shown.contains("tokens"), "{shown}");
    assert_eq!(folder.json("inspect/summary.json")["kept"], 4);
}

fn preview(folder: &Folder) {
    let args = ["data", "preview", &folder.at("sft.parquet"), "--model", &folder.at("base")];
    let shown = folder.run(&[&args[..], &["--rows", "1", "--out", &folder.at("preview")]].concat());
    assert!(shown.contains("<|im_start|>assistant") && folder.path("preview/preview.html").exists(), "{shown}");
}

fn passrate(folder: &Folder) {
    let keys = format!(
        "{{model: {}, datasets: [{}], n: 2, max_tokens: 4, max_prompt_length: 64, max_num_seqs: 4, dtype: f32}}",
        folder.at("base"),
        folder.at("rl.parquet")
    );
    assert_eq!(folder.stage("passrate", &keys)["requests"], 8);
}

fn filter(folder: &Folder) {
    let (model, rows) = (folder.at("base"), folder.at("sft.parquet"));
    let keys = format!("{{model: {model}, datasets: [{rows}], max_nll: 100, max_tokens: 200, dtype: f32}}");
    assert_eq!(folder.stage("filter", &keys)["kept"], 4);
}

fn dedup(folder: &Folder) {
    let keys = format!("{{model: {}, datasets: [{}]}}", folder.at("base"), folder.at("rl.parquet"));
    if folder.sees {
        assert_eq!(folder.stage("dedup", &keys)["in"], 4);
    }
    let args = ["data", "dedup", &folder.write("stage.yaml", &keys), "--out", &folder.at("refused")];
    folder.refused(&args, &["a text model", "a model with a vision tower"]);
}

fn list(folder: &Folder) {
    let filter = format!("{{model: {}, datasets: [{}], max_tokens: 200}}", folder.at("base"), folder.at("sft.parquet"));
    let stages = format!("stages:\n  - {{name: short, filter: {filter}}}\n");
    folder.run(&["data", "run", &folder.write("data.yaml", &stages), "--out", &folder.at("data")]);
    assert_eq!(folder.json("data/short/summary.json")["kept"], 4);
}

/// Writes the configs of `omr sft` and `omr rl` and plans both. Their prints name GPUs, and a text model has no images.
fn plan(folder: &Folder) {
    let sft = SftConfig { max_steps: Some(2), ..tiny::sft_config(folder.dir.path()) };
    let model = Some(folder.path("sft/model"));
    let rl = RlConfig { model, total_training_steps: Some(2), ..tiny::rl_config(folder.dir.path()) };
    folder.write("rl.yaml", &to_yaml(&rl).unwrap());
    let sft = folder.write("sft.yaml", &to_yaml(&sft).unwrap());
    for args in [&["plan", &sft, "dtype=bf16"][..], &["plan", &sft, "dtype=bf16", "--table"]] {
        let page = folder.run(args);
        assert!(page.contains("H200"), "{page}");
    }
    folder.refused(&["plan", &sft, "dtype=bf16", "--image-tokens", "5"], &["--image-tokens", "text model"]);
}

fn sft(folder: &Folder) {
    let (sft, out) = (folder.at("sft.yaml"), folder.at("refused"));
    for key in [
        "freeze_vision_tower=true",
        "vision_tower_lr=1e-5",
        "lora.vision=true",
        "image_max_pixels=4096",
        "image_backend=pil",
    ] {
        let name = key.split('=').next().unwrap();
        folder.refused(&["sft", &sft, "--out", &out, key], &[name, "text model"]);
    }
    let images = format!("datasets=[{}]", folder.at("images.parquet"));
    folder.refused(&["sft", &sft, "--out", &out, &images], &["no_vision_tower", "no vision tower"]);
    for (name, keys) in [("sft", &[][..]), ("lora", &["lora.rank=4"])] {
        folder.run(&[&["sft", &sft, "--out", &folder.at(name)], keys].concat());
        folder.loads(&format!("{name}/model"));
        assert_eq!(folder.json(&format!("{name}/summary.json"))["steps"], 2);
    }
    assert!(folder.path("lora/model/adapter_config.json").exists());
}

fn rl(folder: &Folder) {
    let rl = folder.at("rl.yaml");
    for (name, keys) in [("rl", &[][..]), ("rl-lora", &["lora.rank=4"])] {
        folder.run(&[&["rl", &rl, "--out", &folder.at(name)], keys].concat());
        folder.loads(&format!("{name}/model"));
        for step in metrics::read(&folder.path(name).join("metrics.jsonl")).unwrap() {
            assert_eq!(step["training/rollout_probs_diff_max"], 0.0, "{name}: {step:?}");
        }
    }
}

fn eval(folder: &Folder) {
    let task = "data: ask.jsonl\nprompt: '{{ question }}'\ngold: answer\nscorer: strict\n";
    let args = ["eval", "--task-file", &folder.write("own_sums.yaml", task), "--model", &folder.at("sft/model")];
    folder.run(&[&args[..], &["--out", &folder.at("eval"), "max_new_tokens=4", "dtype=f32"]].concat());
    assert_eq!(folder.json("eval/summary.json")["tasks"]["own_sums"]["n"], 4);
}

fn export(folder: &Folder) {
    folder.run(&["export", "--merge", &folder.at("lora"), "--out", &folder.at("merged")]);
    folder.loads("merged");
    assert!(!folder.path("merged/adapter_config.json").exists());
}

fn generate(folder: &Folder) {
    let lines = json!({"id": 1, "prompt": "How many?", "n": 2}).to_string() + "\n";
    let (asked, answers) = (folder.write("q.jsonl", &lines), folder.at("answers.jsonl"));
    for model in ["rl/model", "lora", "merged"] {
        let model = folder.at(model);
        folder.run(&["generate", "--model", &model, "--prompt", "How many?", "max_tokens=4"]);
    }
    let model = folder.at("rl/model");
    folder.run(&["generate", "--model", &model, "--jsonl", &asked, "--out", &answers, "max_tokens=4"]);
    let ids = folder.lines("answers.jsonl")[0]["token_ids"].as_array().unwrap().len();
    assert_eq!(ids, 2);
    let file = folder.at("seen.png");
    image::GrayImage::new(28, 28).save(&file).unwrap();
    let args = ["generate", "--model", &model, "--prompt", "How many?", "--image", &file, "max_tokens=2"];
    folder.refused(&args, &["no vision tower"]);
}

fn chat(folder: &Folder) {
    let mut command = omr();
    command.args(["--device", "cpu", "--quiet", "chat", "--model", &folder.at("rl/model"), "max_tokens=4"]);
    let output = fed(&mut command, "How many?\nAnd now?\n/exit\n");
    assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
}

fn score(folder: &Folder) {
    let rows = json!({"prompt": "How many?", "response": "One."}).to_string() + "\n";
    let (rows, out) = (folder.write("rows.jsonl", &rows), folder.at("scores.jsonl"));
    for model in ["sft/model", "lora"] {
        folder.run(&["score", "--logprobs", &rows, "--model", &folder.at(model), "--out", &out, "--overwrite"]);
        let line = &folder.lines("scores.jsonl")[0];
        let lens = ["token_ids", "logprobs"].map(|key| line[key].as_array().unwrap().len());
        assert!(lens[0] > 0 && lens[0] == lens[1], "{line}");
    }
}

fn serve(folder: &Folder) {
    let adapter = format!("tuned={}", folder.at("lora/model"));
    let flags = ["--record-requests", &folder.at("requests.jsonl"), "--lora-modules", &adapter];
    let server = Server::start(&folder.path("base"), &flags);
    let ask = |model: &str, content: Value| json!({"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 4});
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        for model in ["m", "tuned"] {
            let answer = server.ok("/v1/chat/completions", &ask(model, json!("How many?"))).await;
            assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() > 0, "{answer}");
        }
        let seen = ask("m", json!([{"type": "image_url", "image_url": {"url": image(3)}}]));
        match folder.sees {
            true => drop(server.ok("/v1/chat/completions", &seen).await),
            false => {
                let error = server.refused("/v1/chat/completions", &seen, 400).await;
                assert!(error["message"].to_string().contains("no vision tower"), "{error}");
            }
        }
    });
}

fn replay(folder: &Folder) {
    for run in ["sft", "lora", "rl", "rl-lora"] {
        let text = folder.run(&["replay", &folder.at(run), "--step", "2"]);
        assert!(text.contains("equal the record"), "{run}: {text}");
    }
    let (record, model) = (folder.at("requests.jsonl"), folder.at("base"));
    let adapter = format!("tuned={}", folder.at("lora/model"));
    let args = ["replay", "--requests", &record, "--model", &model, "--lora-modules", &adapter];
    let text = folder.run(&args);
    assert!(text.contains("equal the record"), "{text}");
}

fn report(folder: &Folder) {
    for runs in [&["rl"][..], &["sft", "lora"], &["eval"]] {
        let (dirs, out) = (runs.iter().map(|run| folder.at(run)).collect::<Vec<_>>(), folder.at("page.html"));
        let mut args = vec!["report", "--overwrite", "--out", &out];
        args.extend(dirs.iter().map(String::as_str));
        folder.run(&args);
        assert!(fs::read_to_string(&out).unwrap().contains("</html>"), "{runs:?}");
    }
}

fn watch(folder: &Folder) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
    command.args(["--quiet", "watch", &folder.at("rl"), "--port", "0"]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let page = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        client.get(url.trim()).send().await.unwrap().text().await.unwrap()
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(page.contains("</html>"), "{page}");
}

fn upload(folder: &Folder) {
    for run in ["rl", "lora"] {
        let shown = folder.run(&["upload", &folder.at(run), "--to", "org/name", "--dry-run"]);
        assert!(shown.contains("README.md") && shown.contains("safetensors"), "{shown}");
    }
}

fn bench(folder: &Folder) {
    let (model, rows, out) = (folder.at("base"), folder.at("sft.parquet"), folder.at("bench.json"));
    folder.run(&["bench", "loading", "--model", &model, "--data", &rows, "--json", &out]);
    assert!(folder.json("bench.json").is_object());
}

/// The recipe has images.
fn recipe(folder: &Folder) {
    let (config, out) = (concat!(env!("CARGO_MANIFEST_DIR"), "/tests/app/cli/recipe.yaml"), folder.at("recipe"));
    let model = format!("base.model={}", folder.at("base"));
    let few = ["task.num_sft_questions=8", "task.num_rl_questions=8", "task.num_heldout_questions=4"];
    let short = ["sft.max_steps=2", "rl.total_training_steps=1", "rl.rollout_freq=1", "control.enable=false"];
    let args = [&["recipe", config, "--out", &out, &model][..], &few, &short].concat();
    folder.refused(&args, &["base.model", "a text model"]);
    if folder.sees {
        folder.run(&args);
        folder.loads("recipe/rl/model");
    }
    assert!(folder.sees || !Path::new(&out).exists());
}
