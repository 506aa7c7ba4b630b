//! Tests weight files: both naming schemes contain the same model, and a model that is read and written again is
//! unchanged and has the released names.

use omr_base::observe::Silent;
use omr_base_tests::golden::report;
use omr_model::nn::{Model, ModelConfig, weights::WeightFiles};
use omr_runtime::device::Device;
use omr_runtime::tensor::DType;

use super::{Golden, Tensors, device, json, models};

fn bytes(dev: &mut Device, model: &Model) -> Vec<u8> {
    model.layout.params.iter().flat_map(|p| dev.read_bytes(p.tensor).unwrap()).collect()
}

#[test]
fn both_namings_hold_one_model() {
    let mut count = 0;
    for dir in models() {
        let golden = Golden::open(dir);
        let newer = golden.dir.join("model.newlayout.safetensors");
        if golden.dir.ends_with("model_mimo") {
            continue;
        }
        count += 1;
        let mut dev = device();
        let released = golden.model(&mut dev, DType::F32);
        let other = Model::empty(&mut dev, golden.config.clone(), DType::F32).unwrap();
        WeightFiles::open_files(&golden.dir, &[newer])
            .unwrap()
            .load(&mut dev, &other.layout, other.config.family, &Silent)
            .unwrap();
        assert_eq!(bytes(&mut dev, &released), bytes(&mut dev, &other));
    }
    report("hf-namings", count);
}

#[test]
fn a_model_read_and_written_is_the_same() {
    let mut count = 0;
    for dir in models() {
        count += 1;
        let golden = Golden::open(dir);
        let mut dev = device();
        let model = golden.model(&mut dev, DType::F32);
        let out = tempfile::tempdir().unwrap();
        model.save(&mut dev, out.path(), DType::F32).unwrap();
        let (was, is) = [&golden.dir, out.path()].map(|dir| Tensors::read(&dir.join("model.safetensors"))).into();
        assert_eq!((was.shapes, was.floats), (is.shapes, is.floats));
        let config = ModelConfig::load(&out.path().join("config.json")).unwrap();
        assert_eq!(config, golden.config);
        // The config keys of the released file keep their values, except keys that transformers ignores.
        let (was, is) = (json(&golden.dir.join("config.json")), json(&out.path().join("config.json")));
        for (key, value) in was.as_object().unwrap() {
            let ignored = ["transformers_version", "sliding_window", "max_window_layers"].contains(&key.as_str());
            if !ignored && !value.is_object() {
                assert_eq!(&is[key], value, "{key}");
            }
        }
        let again = Model::load(&mut dev, out.path(), DType::F32).unwrap();
        assert_eq!(bytes(&mut dev, &model), bytes(&mut dev, &again));
        model.save(&mut dev, out.path(), DType::Bf16).unwrap();
        let halved = Model::load(&mut dev, out.path(), DType::Bf16).unwrap();
        let direct = golden.model(&mut dev, DType::Bf16);
        assert_eq!(bytes(&mut dev, &halved), bytes(&mut dev, &direct));
    }
    report("hf-storage", count);
}
