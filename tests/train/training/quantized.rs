//! Tests runs that train adapters of a quantised base, and the files of quantised models.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use omr_base::choice::BaseFormat;
use omr_base::config::{BaseConfig, Dtype, GenerateConfig, LoraConfig, QuantizationConfig, SftConfig};
use omr_base::observe::Silent;
use omr_data::text::Tokenizer;
use omr_model::llm::new_model::model_config;
use omr_model::nn::adapter::adapter_files::AdapterConfig;
use omr_model::nn::config::Family;
use omr_model::nn::family::FAMILIES;
use omr_model::nn::{Model, ModelConfig, ParamLayout};
use omr_model_tests::models;
use omr_runtime::device::{Device, Isa, Region, Target};
use omr_runtime::machine::Machine;
use omr_runtime::tensor::DType;
use omr_train::eval;
use omr_train::training::job::TrainingJob as _;
use omr_train::training::sft::SftJob;
use serde_json::{Value, json};

use super::tiny::{self, device, run_sft, run_sft_over, sft_config};

pub const FORMATS: [BaseFormat; 2] = [BaseFormat::Int8, BaseFormat::Nf4];

/// Settings that also quantise the output matrix and, where its rows fit, the vision tower.
pub fn settings(base: BaseFormat) -> QuantizationConfig {
    QuantizationConfig { base, skip_modules: Vec::new() }
}

/// Writes a model with random weights, with rows of 64 terms and an output matrix of its own, over the model in `dir`.
pub fn model(dir: &Path) {
    let tokenizer = tiny::tokenizer();
    let shape = omr_base::config::BaseConfig {
        hidden_size: 64,
        num_attention_heads: 4,
        intermediate_size: 128,
        tie_word_embeddings: false,
        ..tiny::shape()
    };
    let config = model_config(&omr_model::nn::family::qwen2_5_vl::FAMILY, &shape, &tokenizer).unwrap();
    let mut dev = device(1);
    Model::init(&mut dev, config, DType::Bf16, 1).unwrap().save(&mut dev, dir, DType::Bf16).unwrap();
}

/// Writes rows and the model of [`model`] to the folder `base`.
pub fn rows_and_model(dir: &Path) {
    sft_config(dir);
    model(&dir.join("base"));
}

pub fn sft(dir: &Path, base: BaseFormat, dtype: Dtype) -> SftConfig {
    let mut config = SftConfig { dtype, max_steps: Some(6), save_steps: Some(2), ..sft_config(dir) };
    config.optimizer.lora = Some(LoraConfig { rank: 6, vision: true, ..LoraConfig::default() });
    config.optimizer.quantization = Some(settings(base));
    config
}

/// Loads the model in `dir` as `dtype`, quantised as `quantization` says.
pub fn load(dev: &mut Device, dir: &Path, quantization: Option<&QuantizationConfig>, dtype: DType) -> Model {
    let config = ModelConfig::load(&dir.join("config.json")).unwrap().quantized(quantization).unwrap();
    Model::load_shown(dev, dir, config, dtype, &Silent).unwrap()
}

/// Returns the bytes of all parameters and of their scales.
fn bytes(dev: &mut Device, layout: &ParamLayout) -> Vec<u8> {
    let tensors = layout.params.iter().flat_map(|param| [Some(param.tensor), param.quantized.map(|of| of.scales)]);
    tensors.flatten().flat_map(|tensor| dev.read_bytes(tensor).unwrap()).collect()
}

#[test]
fn sft_of_a_quantised_base_goes_on_with_the_same_bits_whoever_computes_it() {
    let dir = tempfile::tempdir().unwrap();
    rows_and_model(dir.path());
    for base in FORMATS {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let config = sft(dir.path(), base, dtype);
            let out = |name: &str| dir.path().join(dtype.name()).join(base.name()).join(name);
            let whole = run_sft(&out("whole"), &config, 2, &[]);
            assert!(whole.figures("loss")[5] < whole.figures("loss")[0], "{:?}", whole.figures("loss"));
            whole.assert_same(&run_sft(&out("stopped"), &config, 1, &[1, 2, 3, 4, 5]), "stopped five times");
            whole.assert_same(
                &run_sft_over(&out("ranks"), &config, || device(1), &[4, 2], &[2]),
                "four ranks, then two",
            );
            // The directory of the adapter records the storage of its base.
            let (dev, model) = (&mut device(1), out("whole/model"));
            let recorded = ModelConfig::load(&model.join("config.json")).unwrap().quantization;
            assert_eq!(recorded, config.optimizer.quantization);
            let loaded = load(dev, &model, None, DType::Bf16).layout;
            assert!(loaded.params.iter().any(|param| param.quantized.is_some()));
            let other = QuantizationConfig { base, ..QuantizationConfig::default() };
            let refused = ModelConfig::load(&model.join("config.json")).unwrap().quantized(Some(&other));
            assert!(refused.unwrap_err().to_string().starts_with("quantization: found"));
        }
    }
}

/// Writes a model of `family` with rows of 64 terms over that in `dir`, and an adapter of all its linear layers beside it. With
/// `files`, the files of the base are quantised already.
fn with_adapter(
    family: &'static Family,
    dir: &Path,
    tied: bool,
    dtype: DType,
    stored: Option<QuantizationConfig>,
    files: bool,
    tokenizer: &Tokenizer,
) {
    let (mut base, adapter) = (dir.join("base"), dir.join("adapter"));
    let shape = BaseConfig { hidden_size: 64, num_attention_heads: 4, intermediate_size: 128, ..tiny::shape() };
    let dev = &mut device(1);
    let config = model_config(family, &BaseConfig { tie_word_embeddings: tied, ..shape }, tokenizer).unwrap();
    Model::init(dev, config, dtype, 1).unwrap().save(dev, &base, dtype).unwrap();
    for made in ["adapter", "codes"] {
        let _ = fs::remove_dir_all(dir.join(made));
    }
    fs::create_dir(&adapter).unwrap();
    if files {
        let format = stored.as_ref().unwrap().base;
        eval::quantize(&std::mem::replace(&mut base, dir.join("codes")), &dir.join("codes"), format).unwrap();
    }
    let mut model = load(dev, &base, stored.as_ref().filter(|_| !files), DType::F32);
    let base = base.display().to_string();
    let settings = AdapterConfig { base, rank: 5, alpha: 8.0, use_rslora: false, base_weights: None };
    model.attach(dev, settings.rank, settings.scale(), &|_, _| true).unwrap();
    model.set_adapters(dev, &models::Rough).unwrap();
    let layout = Arc::new(model.layout.clone());
    let own: Vec<_> = layout.lens().into_iter().map(|len| 0..len).collect();
    model.outgoing_adapters(&layout, &settings, |_| None, &own).write(&adapter, dev).unwrap();
}

/// Merges the adapter beside `base` in `dir`, and returns the largest difference of the log-probs of `score --logprobs`.
fn merged(dir: &Path, sees: bool) -> f64 {
    let image = dir.join("seen.png");
    image::RgbImage::from_fn(40, 60, |x, y| image::Rgb([x as u8 * 6, y as u8 * 4, 90])).save(&image).unwrap();
    let images = if sees { json!(["seen.png"]) } else { json!([]) };
    let rows = [
        json!({"prompt": "How many?", "images": images, "response": "<think>two, three</think>5 ones"}),
        json!({"prompt": "One", "response": "What is this? Seven of them."}),
    ];
    fs::write(dir.join("rows.jsonl"), rows.map(|row| format!("{row}\n")).concat()).unwrap();
    let config = GenerateConfig { dtype: Dtype::F32, ..GenerateConfig::default() };
    let runtime = || unreachable!("no server is asked");
    let machine = Machine {
        target: Target::cpu(1),
        threads: 1,
        place: "CPU".to_owned(),
        device: &|plan| Device::cpu(plan, 1, Isa::detect()),
        runtime: &runtime,
        observer: &Silent,
    };
    let rows = eval::Probe::Rows(&dir.join("rows.jsonl"));
    let _ = fs::remove_dir_all(dir.join("merged"));
    let line =
        eval::export(&dir.join("adapter"), &dir.join("merged"), eval::Onto::Trained, &rows, &config, &machine).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// The matrices of an adapter change, and a token table or an output matrix stays as it was trained. A merge in f32 differs
/// by the order of sums. One in bf16 rounds each weight to 8 bits, by at most 0.4 %.
#[test]
fn a_merge_of_every_family_has_the_log_probs_of_its_adapter() {
    let stored = |base, skip: &[&str]| {
        Some(QuantizationConfig { base, skip_modules: skip.iter().map(|name| (*name).to_owned()).collect() })
    };
    let cases = [
        (DType::F32, stored(BaseFormat::Int8, &[])),
        (DType::F32, stored(BaseFormat::Nf4, &["lm_head"])),
        (DType::Bf16, None),
        (DType::Bf16, stored(BaseFormat::Int8, &["visual", "q_proj"])),
        (DType::Bf16, stored(BaseFormat::Nf4, &[])),
    ];
    let [int8, nf4] = FORMATS.map(|base| stored(base, &["lm_head", "visual"]));
    std::thread::scope(|scope| {
        for family in FAMILIES {
            let (cases, int8, nf4) = (cases.clone(), int8.clone(), nf4.clone());
            scope.spawn(move || {
                let (dir, tokenizer) = (tempfile::tempdir().unwrap(), tiny::tokenizer());
                tiny::model_of(family, &dir.path().join("base"));
                let run = |tied: bool, dtype: DType, stored: Option<QuantizationConfig>, files: bool| {
                    with_adapter(family, dir.path(), tied, dtype, stored.clone(), files, &tokenizer);
                    let found = merged(dir.path(), !family.prefixes.is_empty());
                    let most = if dtype == DType::F32 { 1e-4 } else { BF16_ROUNDING };
                    let case = format!("{} tied {tied} {dtype:?} {stored:?} {files}: {found}", family.model_types[0]);
                    println!("{case}");
                    assert!(found <= most, "{case}");
                };
                for tied in [true, false] {
                    for (dtype, mut stored) in cases.clone() {
                        // A tied output matrix is the token table, which is never quantised.
                        let head = stored.iter_mut().filter(|_| tied);
                        head.for_each(|stored| stored.skip_modules.push("lm_head".to_owned()));
                        run(tied, dtype, stored, false);
                    }
                }
                run(true, DType::F32, int8, true);
                run(false, DType::Bf16, nf4, true);
            });
        }
    });
}

/// Bound of the differences that rounding merged weights to bf16 makes to the log-probs of random models of this size.
const BF16_ROUNDING: f64 = 0.05;

#[test]
fn a_run_on_a_quantised_base_takes_what_was_planned() {
    let dir = tempfile::tempdir().unwrap();
    rows_and_model(dir.path());
    let weights = FORMATS.map(|base| {
        let config = sft(dir.path(), base, Dtype::Bf16);
        let mut job = SftJob::new(&dir.path().join(base.name()), config).unwrap();
        let plan = job.plan(Target::cpu(1)).unwrap();
        let mut dev = Device::cpu(&plan, 1, Isa::detect()).unwrap();
        job.run(&mut dev, &Silent).unwrap();
        for region in Region::ALL {
            assert_eq!(plan.bytes(region), dev.high_water().bytes(region), "{base:?} {}", region.name());
        }
        plan.bytes(Region::Weights)
    });
    let mut plain = sft(dir.path(), BaseFormat::Int8, Dtype::Bf16);
    plain.optimizer.quantization = None;
    let plain = SftJob::new(&dir.path().join("plain"), plain).unwrap().plan(Target::cpu(1)).unwrap();
    assert!(weights[1] < weights[0] && weights[0] < plain.bytes(Region::Weights), "{weights:?}");
}

#[test]
fn files_of_codes_load_as_the_weights_that_they_were_made_from() {
    let dir = tempfile::tempdir().unwrap();
    rows_and_model(dir.path());
    for base in FORMATS {
        let (from, to, settings) = (
            dir.path().join("base"),
            dir.path().join(base.name()),
            QuantizationConfig { base, ..QuantizationConfig::default() },
        );
        let line = eval::quantize(&from, &to, base).unwrap();
        assert!(line.contains(base.name()), "{line}");
        for dtype in [DType::F32, DType::Bf16] {
            let mut dev = device(1);
            let [of_files, of_key] =
                [(&to, None), (&from, Some(&settings))].map(|(dir, key)| load(&mut dev, dir, key, dtype));
            assert!(of_files.layout.params.iter().any(|param| param.quantized.is_some()));
            assert!(bytes(&mut dev, &of_files.layout) == bytes(&mut dev, &of_key.layout), "{base:?} {dtype:?}");
        }
        assert!(eval::quantize(&to, &dir.path().join("again"), base).unwrap_err().to_string().contains("quantised"));
    }
}

#[test]
fn other_quantised_weights_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    rows_and_model(dir.path());
    let path = dir.path().join("base/config.json");
    let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let bnb = |key: &str, value: Value| {
        let mut config = json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"});
        config[key] = value;
        config
    };
    for (config, named) in [
        (bnb("load_in_8bit", json!(true)), "load_in_8bit true"),
        (bnb("bnb_4bit_quant_type", json!("fp4")), "bnb_4bit_quant_type \"fp4\""),
        (json!({"quant_method": "awq"}), "quant_method \"awq\""),
        (json!({"quant_method": "gptq"}), "quant_method \"gptq\""),
        (json!({"quant_method": "omr", "base": "int3"}), "base \"int3\""),
        (json!({"quant_method": "omr", "base": "int8", "skip_modules": "lm_head"}), "skip_modules \"lm_head\""),
        (bnb("llm_int8_skip_modules", json!([1])), "llm_int8_skip_modules [1]"),
    ] {
        let mut file = good.clone();
        file["quantization_config"] = config;
        fs::write(&path, file.to_string()).unwrap();
        let error = ModelConfig::load(&path).unwrap_err().to_string();
        assert!(error.contains("quantization_config") && error.contains(named), "{error}");
    }
    fs::write(&path, good.to_string()).unwrap();
    // Codes with other sizes or types.
    let nf4 = dir.path().join("nf4");
    eval::quantize(&dir.path().join("base"), &nf4, BaseFormat::Nf4).unwrap();
    let weights = nf4.join("model.safetensors");
    let whole = fs::read(&weights).unwrap();
    for (from, to, named) in [
        ("\"blocksize\":64", "\"blocksize\":32", "blocksize is 32, expected 64"),
        ("\"quant_type\":\"nf4\"", "\"quant_type\":\"fp4\"", "quant_type is \"fp4\", expected \"nf4\""),
        ("\"dtype\":\"bfloat16\"", "\"dtype\":\"float_16\"", "dtype is \"float_16\", expected \"bfloat16\""),
    ] {
        let at = whole.windows(from.len()).rposition(|part| part == from.as_bytes()).unwrap();
        let mut changed = whole.clone();
        changed[at..at + from.len()].copy_from_slice(to.as_bytes());
        fs::write(&weights, changed).unwrap();
        let error = Model::load(&mut device(1), &nf4, DType::Bf16).err().unwrap().to_string();
        assert!(error.contains(named), "{error}");
    }
    // A matrix with scales of int8 and with sizes of NF4: one of its tensors gets the name of the other kind's.
    let (from, to) = (".absmax\":{\"dtype\":\"F32\"", "_scale\" :{\"dtype\":\"F32\"");
    let at = whole.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
    let mut changed = whole.clone();
    changed[at..at + from.len()].copy_from_slice(to.as_bytes());
    fs::write(&weights, changed).unwrap();
    let error = Model::load(&mut device(1), &nf4, DType::Bf16).err().unwrap().to_string();
    assert!(error.contains("has scales of int8 and sizes of nf4"), "{error}");
    // A value that int8 cannot store.
    let mut dev = device(1);
    let model = Model::load(&mut dev, &dir.path().join("base"), DType::Bf16).unwrap();
    let (param, _) = models::find(&model.layout, "model.layers.0.mlp.down_proj.weight");
    param.fill::<half::bf16>(&mut dev, param.tensor, |_, r, out| out.fill(if r == 3 { 3e38 } else { 1.0 })).unwrap();
    model.save(&mut dev, &dir.path().join("base"), DType::Bf16).unwrap();
    let error = eval::quantize(&dir.path().join("base"), &dir.path().join("large"), BaseFormat::Int8).unwrap_err();
    assert!(error.to_string().contains("down_proj.weight: found 3"), "{error}");
    assert!(!dir.path().join("large").exists());
}
