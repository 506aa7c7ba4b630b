//! Tests of the published configs: what they have in common and in what they differ.

use super::source::{Difference, differences};
use super::tests::{from_text, no_env, shipped};
use super::*;

/// Loads a published config.
fn published<C: Config>(name: &str, overrides: &[&str]) -> C {
    let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
    load(Some(&shipped("openmmreasoner-7b").join(name)), &overrides, &no_env).unwrap()
}

#[test]
fn the_published_configs_differ_in_what_the_originals_differ_in() {
    let of = |overrides: &[&str], name: &str| published::<RlConfig>(name, overrides);
    let rl = of(&[], "rl.yaml");
    let changed = |other: &RlConfig| -> Vec<String> {
        differences(&rl, other).into_iter().map(|difference| difference.path).collect()
    };
    let by_preset = |preset: Preset| -> Vec<String> {
        let gspo = Preset::Gspo.keys();
        let keys = preset.keys().into_iter().zip(gspo).filter(|(a, b)| a != b).map(|((key, _), _)| key.to_owned());
        let mut keys: Vec<String> = keys.chain(["preset".to_owned()]).collect();
        keys.sort();
        keys
    };
    let sorted = |mut list: Vec<String>| {
        list.sort();
        list
    };
    let mut grpo = by_preset(Preset::Grpo);
    // This length belongs to a buffer that is disabled.
    grpo.push("overlong_buffer.len".to_owned());
    assert_eq!(sorted(changed(&of(&[], "rl-grpo.yaml"))), sorted(grpo));
    let mut dapo = by_preset(Preset::Dapo);
    dapo.push("gen_batch_size".to_owned());
    assert_eq!(sorted(changed(&of(&[], "rl-dapo.yaml"))), sorted(dapo));
    // The comment in rl-dapo.yaml states that dapo.sh is GRPO with larger batches.
    let text = std::fs::read_to_string(shipped("openmmreasoner-7b/rl-dapo.yaml")).unwrap();
    let typed = text.lines().find_map(|line| line.strip_prefix("# `")?.split_once('`')).unwrap().0;
    let as_typed = of(&typed.split(' ').collect::<Vec<_>>(), "rl-dapo.yaml");
    let left = differences(&of(&[], "rl-grpo.yaml"), &as_typed).into_iter().map(|difference| difference.path);
    let expected = ["filter_groups.metric", "overlong_buffer.len", "preset", "train_batch_size"];
    assert_eq!(sorted(left.collect()), expected);
    for (name, at) in [("rl.yaml", None), ("rl-grpo.yaml", None), ("rl-dapo.yaml", None), ("recipe.yaml", Some("rl"))] {
        let text = std::fs::read_to_string(shipped("openmmreasoner-7b").join(name)).unwrap();
        let whole: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        let written = at.map_or(&whole, |at| &whole[at]);
        for (key, _) in Preset::Gspo.keys() {
            let found = key.split('.').fold(written, |group, name| &group[name]);
            assert!(found.is_null(), "{name} writes {key}, which its preset sets");
        }
    }
}

#[test]
fn the_configs_of_qwen3_vl_are_the_published_ones_with_another_model() {
    let names = |list: Vec<Difference>| list.into_iter().map(|d| d.path).collect::<Vec<_>>();
    let (sft, other) = (published::<SftConfig>("sft.yaml", &[]), published::<SftConfig>("qwen3_vl-sft.yaml", &[]));
    let changed = names(differences(&sft, &other));
    let packs = ["packing_length", "micro_batch_tokens", "gradient_accumulation_steps", "gradient_lanes"];
    assert!(changed.len() == 5 && packs.iter().all(|key| changed.iter().any(|c| c == key)), "{changed:?}");
    let tokens = |config: &SftConfig| config.packing_length * config.gradient_accumulation_steps;
    assert_eq!(tokens(&sft), tokens(&other));
    let changed = names(differences(&published::<RlConfig>("rl.yaml", &[]), &published("qwen3_vl-rl.yaml", &[])));
    assert_eq!(changed, ["model", "image_max_pixels"]);
    let changed = names(differences(&published::<EvalConfig>("eval.yaml", &[]), &published("qwen3_vl-eval.yaml", &[])));
    assert_eq!(changed, ["model"]);
    // The page and the configs state these numbers.
    assert_eq!(published::<RlConfig>("rl.yaml", &[]).total_steps(72_971), 8552);
    assert_eq!(published::<RlConfig>("rl.yaml", &[]).training.save_total_limit, None);
}

#[test]
fn the_published_recipe_is_the_published_stages() {
    let recipe: RecipeConfig = published("recipe.yaml", &[]);
    let differ = |paths: Vec<Difference>| paths.into_iter().map(|d| d.path).collect::<Vec<_>>();
    assert_eq!(differ(differences(&published::<SftConfig>("sft.yaml", &[]), &recipe.sft)), ["model"]);
    assert_eq!(differ(differences(&published::<RlConfig>("rl.yaml", &[]), &recipe.rl)), ["model"]);
    assert_eq!(recipe.base.model, published::<SftConfig>("sft.yaml", &[]).model);
    assert_eq!(differ(differences(&published::<EvalConfig>("eval.yaml", &[]), &recipe.eval)), ["data", "data_dir"]);
}

/// The keys come from the tables, so a new optional path is tested as well.
#[test]
fn an_empty_text_for_an_optional_path_was_a_path() {
    fn check<C: Config>(tested: &mut Vec<String>) {
        for key in keys::<C>().iter().filter(|key| ["a path or null", "a list: a path"].contains(&key.kind.as_str())) {
            let path = key.path.replace("[]", ".0");
            let mut tree = serde_json::json!({});
            let text = path.split('.').rev().fold(serde_json::json!(""), |inner, name| match name {
                "0" => serde_json::json!([inner]),
                name => serde_json::json!({ name: inner }),
            });
            tree.as_object_mut().unwrap().extend(text.as_object().unwrap().clone());
            let mut config = C::default();
            // A list of data sets needs a path in each entry.
            let mut read = |tree: &serde_json::Value| config.set(&Place::default(), "", tree);
            let missing = read(&tree).err().map(|error| error.to_string());
            assert!(missing.as_ref().is_none_or(|error| error.contains(".path: ")), "{path}: {missing:?}");
            if missing.is_none() {
                let written = config.write();
                let value = path.split('.').fold(&written, |group, name| match name {
                    "0" => &group[0],
                    name => &group[name],
                });
                assert!(value.is_null() || *value == serde_json::json!([]), "{path}: {value}");
            }
            tested.push(key.path.clone());
        }
    }
    let mut tested = Vec::new();
    check::<SftConfig>(&mut tested);
    check::<RlConfig>(&mut tested);
    check::<EvalConfig>(&mut tested);
    check::<RecipeConfig>(&mut tested);
    for name in ["model", "datasets[].data_folder", "responses", "task_file", "judge.prompt_file", "judge.cache"] {
        assert!(tested.iter().any(|path| path == name), "{name} is not in {tested:?}");
    }
    let of = |text: &str| from_text::<SftConfig>(text, &[]).unwrap();
    let config = of("datasets: [{path: a, data_folder: ''}]\nval_files: ''\nmodel: ''\n");
    assert_eq!((config.datasets[0].data_folder.as_ref(), config.model.as_ref()), (None, None));
    assert!(config.validation.val_files.is_empty());
    assert_eq!(config, of("datasets: [a]\n"));
}
