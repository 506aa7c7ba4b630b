//! Takes a text model of each family through the program: plan, training, sampling and a server. It has no tower and no
//! processor.

use std::path::Path;

use omr::config::to_yaml;
use omr::data::{Form, read, write};
use omr::image::MediaIds;
use omr::model::Model;
use omr::model::config::{Family, NewIds};
use omr::model::family::FAMILIES;
use omr::model::{ModelConfig, weights};
use omr::tensor::DType;
use omr::text::{CHAT_TEMPLATE, write_tokenizer_dir};
use serde_json::json;

use super::program::{Server, image};
use crate::cli::training::{failure, run};
use crate::train::tiny;

/// Writes a model directory of `family` with random weights.
fn model(dir: &Path, family: &'static Family) {
    let tokenizer = tiny::tokenizer();
    let (base, end) = (tiny::shape(), tokenizer.id("<|im_end|>").unwrap());
    // A text model has no images.
    let media = MediaIds { image: 0, video: 0, start: 0, end: 0, pad: 0 };
    let config = ModelConfig::new(family, &base, NewIds { bos: 0, eos: end, media }, "test").unwrap();
    let mut dev = tiny::device(1);
    let model = Model::init(&mut dev, config, DType::F32, 1).unwrap();
    std::fs::create_dir_all(dir).unwrap();
    model.save(&mut dev, dir, DType::F32).unwrap();
    write_tokenizer_dir(dir, &tokenizer, CHAT_TEMPLATE).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_model_is_planned_trained_sampled_and_served() {
    for family in FAMILIES.iter().filter(|family| family.prefixes.is_empty()) {
        through_the_program(family).await;
    }
}

async fn through_the_program(family: &'static Family) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (sft, rl) = (tiny::sft_config(folder.path()), tiny::rl_config(folder.path()));
    let text = |form: Form, name: &str| {
        let mut rows = tiny::rows();
        for row in &mut rows {
            row.images.clear();
            row.messages[0].content.retain(|part| part.text().is_some());
        }
        write::write(&folder.path().join(name), &rows, form).unwrap();
        vec![read::entry(folder.path().join(name))]
    };
    model(&folder.path().join("text"), family);
    let of_images = sft.datasets.clone();
    let base = Some(folder.path().join("text"));
    let sft = omr::config::SftConfig { model: base, datasets: text(Form::Sft, "text.parquet"), ..sft };
    let trained = Some(folder.path().join("sft/model"));
    let rl = omr::config::RlConfig { model: trained, train_files: text(Form::Rl, "ask.parquet"), ..rl };
    std::fs::write(at("sft.yaml"), to_yaml(&sft).unwrap()).unwrap();
    std::fs::write(at("rl.yaml"), to_yaml(&rl).unwrap()).unwrap();

    let (sft_yaml, rl_yaml, out) = (at("sft.yaml"), at("rl.yaml"), at("refused"));
    for (setting, key) in [
        ("freeze_vision_tower=true", "freeze_vision_tower"),
        ("vision_tower_lr=1e-5", "vision_tower_lr"),
        ("lora.vision=true", "lora.vision"),
    ] {
        failure(&["sft", &sft_yaml, "--out", &out, setting], 2, &[key, "text model"]);
    }
    failure(&["sft", &sft_yaml, "--out", &out, "image_max_pixels=4096"], 2, &["image_max_pixels", "text model"]);
    let with_images = omr::config::SftConfig { datasets: of_images, ..sft };
    std::fs::write(at("images.yaml"), to_yaml(&with_images).unwrap()).unwrap();
    failure(&["sft", &at("images.yaml"), "--out", &out], 2, &["no_vision_tower", "no vision tower"]);

    for (command, yaml, out) in [("sft", &sft_yaml, "sft"), ("rl", &rl_yaml, "rl")] {
        let (code, _, stderr) = run(&[command, yaml, "--out", &at(out)]);
        assert_eq!(code, 0, "{stderr}");
        assert!(weights::exist_in(&folder.path().join(out).join("model")), "{out}");
    }
    let (code, page, stderr) = run(&["plan", &sft_yaml, "dtype=bf16"]);
    assert_eq!(code, 0, "{page}{stderr}");
    let (code, answer, stderr) =
        run(&["generate", "--model", &at("rl/model"), "--prompt", "How many?", "max_tokens=8"]);
    assert_eq!(code, 0, "{answer}{stderr}");

    let server = Server::start(&folder.path().join("rl/model"), &[]);
    let ask = |content: serde_json::Value| json!({"model": "m", "messages": [{"role": "user", "content": content}], "max_tokens": 4});
    let answer = server.ok("/v1/chat/completions", &ask(json!("How many?"))).await;
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() > 0, "{answer}");
    let image = json!([{"type": "image_url", "image_url": {"url": image(3)}}]);
    let answer = server.refused("/v1/chat/completions", &ask(image), 400).await;
    assert!(answer["message"].to_string().contains("no vision tower"), "{answer}");
}
