//! Tests directories of adapters without the files of their base, and `omr export`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use half::bf16;
use omr_base::identity;
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_model::nn::Model;
use omr_model::nn::adapter::adapter_files::AdapterConfig;
use omr_model::nn::weights::WeightFiles;
use omr_model_tests::models::encoder;
use omr_model_tests::models::{self, Rough};
use omr_runtime::device::{Device, Isa, Plan};
use omr_runtime::tensor::DType;
use serde_json::{Value, json};

use super::generate::{model_dir, png};
use super::training::{failure, run};

/// Settings of the adapters of these tests: scale 1.6.
pub fn settings(base: &str) -> AdapterConfig {
    AdapterConfig { base: base.to_owned(), rank: 5, alpha: 8.0, use_rslora: false, base_weights: None }
}

pub fn device() -> Device {
    Device::cpu(&Plan::uniform(1 << 26), 1, Isa::detect()).unwrap()
}

/// Writes an adapter of all linear layers of the model in `base` to the new folder `dir`, as PEFT does. `named` is its
/// path of the base.
pub fn write(base: &Path, dir: &Path, named: &str) {
    fs::create_dir(dir).unwrap();
    let mut dev = device();
    let mut model = Model::load(&mut dev, base, DType::F32).unwrap();
    let config = AdapterConfig { base_weights: Some(identity::base_weights(base).unwrap()), ..settings(named) };
    model.attach(&mut dev, config.rank, config.scale(), &|_, _| true).unwrap();
    model.set_adapters(&mut dev, &Rough).unwrap();
    let layout = Arc::new(model.layout.clone());
    let own: Vec<_> = layout.lens().into_iter().map(|len| 0..len).collect();
    model.outgoing_adapters(&layout, &config, |_| None, &own).write(dir, &mut dev).unwrap();
    fs::remove_file(dir.join("config.json")).unwrap();
}

/// A base model, an adapter of it without further files, and rows with responses.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(dtype: DType) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        let base = folder.0.path().join("base");
        fs::create_dir(&base).unwrap();
        model_dir(&base);
        let mut dev = device();
        Model::load(&mut dev, &base, dtype).unwrap().save(&mut dev, &base, dtype).unwrap();
        write(&base, &folder.0.path().join("adapter"), "../base");
        png(&folder.0.path().join("seen.png"));
        let rows = [
            json!({"prompt": "What is this?", "images": ["seen.png"], "response": "One and two."}),
            json!({"prompt": "One", "response": "What is this?"}),
        ];
        fs::write(folder.at("rows.jsonl"), rows.map(|row| format!("{row}\n")).concat()).unwrap();
        folder
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Returns the log-probs of the responses.
    fn score(&self, model: &str) -> Vec<f64> {
        let rows = self.at("rows.jsonl");
        let (code, out, err) = run(&["score", "--logprobs", &rows, "--model", &self.at(model), "dtype=f32"]);
        assert_eq!(code, 0, "{err}");
        let line = |line: &str| serde_json::from_str::<Value>(line).unwrap()["logprobs"].as_array().unwrap().clone();
        out.lines().flat_map(line).map(|x| x.as_f64().unwrap()).collect()
    }
}

#[test]
fn an_adapter_takes_what_its_directory_lacks_from_its_base() {
    let folder = Folder::new(DType::F32);
    // The same adapter, with all files in its directory.
    fs::create_dir(folder.at("complete")).unwrap();
    for from in ["base", "adapter"] {
        for entry in fs::read_dir(folder.at(from)).unwrap().map(Result::unwrap) {
            if entry.file_name() != "model.safetensors" {
                fs::copy(entry.path(), Path::new(&folder.at("complete")).join(entry.file_name())).unwrap();
            }
        }
    }
    let found = folder.score("adapter");
    assert_eq!(found, folder.score("complete"));
    assert_ne!(found, folder.score("base"));
    let answer = |model: &str| {
        let (image, model) = (folder.at("seen.png"), folder.at(model));
        run(&["--quiet", "generate", "--model", &model, "--prompt", "What?", "--image", &image, "max_tokens=8"])
    };
    let (code, text, err) = answer("adapter");
    assert_eq!((code, &text), (0, &answer("complete").1), "{err}");
    // A template of its own goes before that of the base.
    let own = "{% for message in messages %}{{ message.content }}{% endfor %}";
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(folder.at(&format!("base/{name}")), folder.at(&format!("adapter/{name}"))).unwrap();
    }
    fs::write(folder.at("adapter/chat_template.jinja"), own).unwrap();
    let chat = encoder(Path::new(&folder.at("adapter")), EncodingPurpose::Ask).chat;
    assert_eq!(chat.template.source(), own);
}

#[test]
fn a_base_that_is_not_found_is_named() {
    let folder = Folder::new(DType::F32);
    let path = folder.at("adapter/adapter_config.json");
    let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let (rows, adapter) = (folder.at("rows.jsonl"), folder.at("adapter"));
    for (name, part) in [
        (json!("../gone"), "\"../gone\""),
        (json!(null), "null"),
        (json!("some-org/some-model"), "omr download some-org/some-model"),
    ] {
        let mut bad = good.clone();
        bad["base_model_name_or_path"] = name;
        fs::write(&path, bad.to_string()).unwrap();
        for args in [
            &["score", "--logprobs", &rows, "--model", &adapter][..],
            &["generate", "--model", &adapter, "--prompt", "x"],
            &["serve", &adapter, "--port", "0"],
        ] {
            failure(args, 2, &["adapter_config.json", "base_model_name_or_path", part]);
        }
    }
}

#[test]
fn an_adapter_of_other_weights_is_refused_by_name() {
    let folder = Folder::new(DType::F32);
    let weights = folder.at("base/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 0x80;
    fs::write(weights, bytes).unwrap();
    let (rows, adapter, base, out) =
        (folder.at("rows.jsonl"), folder.at("adapter"), folder.at("base"), folder.at("out"));
    for args in [
        &["score", "--logprobs", &rows, "--model", &adapter][..],
        &["serve", &base, "--port", "0", "--lora-modules", &format!("tuned={adapter}")],
        &["export", "--merge", &adapter, "--out", &out],
    ] {
        failure(args, 2, &["adapter: found an adapter of other weights than those in ", "base"]);
    }
}

#[test]
fn a_merged_model_has_the_rounded_sum_in_its_weights() {
    for dtype in [DType::F32, DType::Bf16] {
        let folder = Folder::new(dtype);
        let (adapter, merged, rows) = (folder.at("adapter"), folder.at("merged"), folder.at("rows.jsonl"));
        let (code, out, err) = run(&["export", "--merge", &adapter, "--out", &merged, "--rows", &rows, "dtype=f32"]);
        assert_eq!((code, out), (0, format!("{merged}\n")), "{err}");
        assert_eq!(WeightFiles::open(Path::new(&merged)).unwrap().dtype(), dtype);
        let mut dev = device();
        let [base, after] =
            ["base", "merged"].map(|name| Model::load(&mut dev, Path::new(&folder.at(name)), DType::F32).unwrap());
        let factors = Model::load(&mut dev, Path::new(&adapter), DType::F32).unwrap();
        let mut values = |model: &Model, name: &str| {
            let (param, piece) = models::find(&model.layout, name);
            models::piece::<f32>(&mut dev, param, param.tensor, piece)
        };
        let names: Vec<String> = base.layout.pieces().map(|(_, _, piece)| piece.name.clone()).collect();
        let (mut changed, mut total, mut equal) = (0, 0, 0);
        for name in names {
            let (w, found) = (values(&base, &name), values(&after, &name));
            let factor = |end| name.replace(".weight", end);
            if name.ends_with(".bias")
                || !factors.layout.pieces().any(|(_, _, piece)| piece.name == factor(".lora_A.weight"))
            {
                assert!(w == found, "{name}");
                continue;
            }
            let [a, b] = [".lora_A.weight", ".lora_B.weight"].map(|end| values(&factors, &factor(end)));
            let k = a.len() / 5;
            for (i, (w, found)) in w.iter().zip(&found).enumerate() {
                let product: f64 = (0..5).map(|j| f64::from(b[i / k * 5 + j]) * f64::from(a[j * k + i % k])).sum();
                let want = (f64::from(*w) + 1.6 * product) as f32;
                let want = if dtype == DType::Bf16 { bf16::from_f32(want).to_f32() } else { want };
                let most = if dtype == DType::Bf16 { want.abs() / 128.0 + 1e-6 } else { 1e-6 };
                assert!((want - found).abs() <= most, "{name}: {want} {found}");
                changed += usize::from(w != found);
                equal += usize::from(want == *found);
                total += 1;
            }
        }
        // A sum near the middle of two bf16 values may round to the other one.
        assert!(dtype == DType::F32 || equal * 1000 > total * 999, "{equal} of {total}");
        assert!(err.contains(&format!("{changed} of {total} weights changed")), "{changed} of {total}: {err}");
        let (with_adapter, merged_scores) = (folder.score("adapter"), folder.score("merged"));
        let diffs = with_adapter.iter().zip(&merged_scores).map(|(a, b)| (a - b).abs());
        let (tokens, largest) = (merged_scores.len(), diffs.fold(0.0, f64::max));
        let said = format!("log-probs of {tokens} tokens of {rows} differ by at most {largest:.1e}");
        assert!(err.contains(&said), "{said}: {err}");
        assert!(largest < if dtype == DType::F32 { 1e-4 } else { 1.0 });
        let whole = ["config.json", "tokenizer.json", "preprocessor_config.json", "generation_config.json", "MANIFEST"];
        whole.iter().for_each(|name| assert!(fs::exists(format!("{merged}/{name}")).unwrap(), "{name}"));
        assert!(!fs::exists(format!("{merged}/adapter_config.json")).unwrap());
    }
}

#[test]
fn an_export_that_fails_leaves_nothing() {
    let folder = Folder::new(DType::F32);
    let (adapter, base, out, rows) =
        (folder.at("adapter"), folder.at("base"), folder.at("out"), folder.at("rows.jsonl"));
    let listing = || {
        let mut names: Vec<_> =
            fs::read_dir(folder.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = listing();
    failure(&["export", "--merge", &base, "--out", &out], 2, &["--merge", "adapter_config.json", "lora"]);
    failure(&["export", "--merge", &adapter, "--out", &base], 2, &["--out", "exists"]);
    failure(&["export", "--merge", &folder.at("gone"), "--out", &out], 2, &["--merge", "gone"]);
    let (code, _, err) = run(&["export", "--out", &out]);
    assert!(code == 2 && err.contains("--merge <RUN>"), "{err}");
    fs::write(&rows, "{\"prompt\": \"One\"}\n").unwrap();
    failure(&["export", "--merge", &adapter, "--out", &out, "--rows", &rows], 2, &["rows.jsonl", "response"]);
    assert_eq!(listing(), before);
    // A run directory, without rows.
    fs::create_dir(folder.at("run")).unwrap();
    fs::rename(&adapter, folder.at("run/model")).unwrap();
    fs::rename(&base, folder.at("run/base")).unwrap();
    let (code, _, err) = run(&["export", "--merge", &folder.at("run"), "--out", &out]);
    assert!(code == 0 && err.contains("not measured"), "{err}");
}
