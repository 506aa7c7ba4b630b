//! Tests files from untrusted sources. For any content, memory stays bounded, nothing hangs, and the error names the
//! file.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use half::bf16;
use omr_base::config::{SftConfig, load};
use omr_base::error::Result;
use omr_data::rows::read::{self, entry};
use omr_data::text::{Chat, ChatTemplate, Message};
use omr_model::nn::family::FAMILIES;
use omr_model::nn::{Model, ModelConfig};
use omr_runtime::device::{Device, Target};
use omr_runtime::tensor::DType;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde_json::{Value, json};

use crate::training::tiny::{base_model, device, model_of};

/// Environment variable that is set in the child process.
const CHILD: &str = "OMR_TEST_PEAK_OF";

/// Runs test `name` in its own process. Returns its peak memory in bytes, or `None` inside that process.
fn peak_of(name: &str) -> Option<u64> {
    if std::env::var_os(CHILD).is_some() {
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = format!("faults::strangers::{name}");
    let output = command.args([&name, "--exact", "--nocapture"]).env(CHILD, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_else(|| panic!("{text}"));
    Some(line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10)
}

fn print_peak() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    println!("\n{}", status.lines().find(|line| line.starts_with("VmHWM:")).unwrap());
}

/// Templates that would use all memory, each in a different way.
const BOMBS: &[&str] = &[
    "{{ 'a'|indent(10000000000, true) }}",
    "{{ messages|tojson|indent(10000000000, true) }}",
    "{{ ['a']|map('indent', 10000000000, true)|join }}",
    "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = ns.l + ns.l %}{% endfor %}{{ ns.l|length }}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
    "{% set ns = namespace(l={}) %}{% for i in range(100) %}{% set ns.l = {'a': ns.l, 'b': ns.l} %}{% endfor %}{{ ns.l }}",
    "{% set ns = namespace(n=[]) %}{% for i in range(100000) %}{% set t = namespace() %}{% set t.a = ns.n %}{% set ns.n = t %}{% endfor %}",
    "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
    "{% set ns = namespace() %}{% set ns.a = ns %}{{ 'x' ~ ns }}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(100000) %}{% set ns.l = ns.l * 2 %}{% endfor %}{{ ns.l|length }}",
    "{{ ('a' * 100000000) ~ ('a' * 100000000) ~ ('a' * 100000000) ~ ('a' * 100000000) }}",
    "{{ 'a' * 2 ** 40 }}",
    "{% set n = 100000000 %}{{ 'a' * n }}",
    "{% set x = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' %}{{ x|replace('a', x)|replace('a', x)|replace('a', x)|replace('a', x)|replace('a', x)|replace('a', x) }}",
    "{% set x = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' %}{{ x.replace('a', x).replace('a', x).replace('a', x).replace('a', x).replace('a', x).replace('a', x) }}",
    "{{ '%10000000000d'|format(1) }}",
    "{{ '{:>10000000000}'.format(1) }}",
    "{{ [1]|batch(10000000000, 'x')|list }}",
    "{{ [1]|slice(10000000000)|list }}",
    "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(100) %}{% set ns.s = m(ns.s) %}{% endfor %}",
    "{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m('aaaaaaaa') }}",
    "{% set x %}{% for i in range(100000) %}{% for j in range(100000) %}0123456789012345678901234567890123456789{% endfor %}{% endfor %}{% endset %}",
    "{% set ns = namespace(l=[]) %}{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% set ns.l = ns.l + [s[1:]] %}{% endfor %}",
    "{{ tojson }}{{ messages|tojson(indent='",
];

#[test]
fn a_templates_memory_is_bounded_whatever_it_does() {
    let Some(peak) = peak_of("a_templates_memory_is_bounded_whatever_it_does") else {
        for bomb in BOMBS {
            let made = ChatTemplate::new(bomb, "t.jinja")
                .and_then(|t| t.render_with(&[Message::text("user", "hi")], true, &Default::default()));
            let error = made.err().unwrap_or_else(|| panic!("{bomb}")).to_string();
            assert!(error.starts_with("t.jinja: "), "{bomb}: {error}");
        }
        return print_peak();
    };
    println!("{} bombs: {} MiB", BOMBS.len(), peak >> 20);
    // The limit covers the process itself, several times the budget of 16 MiB, and captured raw text. A template of at
    // most 5 million instructions can capture 200 MB here, because its longest raw text has 40 bytes.
    assert!(peak < 512 << 20, "{peak} bytes");
}

#[test]
fn long_conversations_stay_within_a_templates_budget() {
    let source = "{% set ns = namespace(n=0, all=[]) %}{% for m in messages[0:] %}{% set ns.n = ns.n + 1 %}{% set ns.all = ns.all + [m.role] %}\
        {% set c = m.content.split('</think>')[-1].strip() %}{{ '<' ~ m.role ~ '>' + c|trim|replace('\\n', ' ') }}{% endfor %}\
        {{ messages|selectattr('role', 'equalto', 'user')|list|length }} {{ (messages|map(attribute='role')|join(','))|length }} {{ ns.n }}";
    let template = ChatTemplate::new(source, "t.jinja").unwrap();
    let messages: Vec<Message> =
        (0..300).map(|i| Message::text(["user", "assistant"][i % 2], "x y ".repeat(1000))).collect();
    let text = template.render_with(&messages, true, &Default::default()).unwrap();
    assert!(text.ends_with("150 2249 300") || text.ends_with("300"), "{}", &text[text.len() - 40..]);
}

/// Writes a model directory. Returns its config and the bytes of its weights.
fn model_dir(dir: &Path) -> (Value, Vec<u8>) {
    base_model(dir);
    let config = serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
    (config, fs::read(dir.join("model.safetensors")).unwrap())
}

fn opened(dir: &Path) -> Result<Model> {
    Model::load(&mut Device::count_for(Target::cpu(1)), dir, DType::F32)
}

fn fault(dir: &Path) -> String {
    let error = opened(dir).err().unwrap();
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

#[test]
fn sizes_are_those_of_the_weights() {
    let dir = tempfile::tempdir().unwrap();
    let (config, _) = model_dir(dir.path());
    opened(dir.path()).unwrap();
    for (pointer, value) in [
        ("/num_hidden_layers", 1000),
        ("/vocab_size", 1 << 24),
        ("/intermediate_size", 1 << 20),
        ("/vision_config/depth", 7),
        ("/vision_config/intermediate_size", 1 << 20),
    ] {
        let mut config = config.clone();
        *config.pointer_mut(pointer).unwrap() = json!(value);
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let text = fault(dir.path());
        assert!(
            text.contains("config.json") && text.contains(&format!("{pointer} is {value}, but the weights have")),
            "{text}"
        );
    }
}

#[test]
fn sizes_of_heads_and_images_are_those_of_the_weights_in_every_family() {
    for family in FAMILIES {
        let dir = tempfile::tempdir().unwrap();
        model_of(family, dir.path());
        let path = dir.path().join("config.json");
        let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        opened(dir.path()).unwrap();
        let sees = good.get("vision_config").is_some();
        let text = if good.get("text_config").is_some() { "/text_config" } else { "" };
        let huge = 1_u64 << 63;
        let mut faults = vec![(text.to_owned(), "head_dim", json!(1 << 24), "head_dim")];
        faults.push((text.to_owned(), "num_key_value_heads", json!(2), "num_key_value_heads x head_dim is "));
        if sees {
            // Sections of the original head dimension do not fit a larger one.
            faults[0].3 = "mrope_section";
            let vision = || "/vision_config".to_owned();
            let rope = format!("{text}/rope_scaling");
            faults.push((vision(), "spatial_merge_size", json!(4), "spatial_merge_size^2 is "));
            faults.push((rope.clone(), "mrope_section", json!([huge, huge, 8]), "mrope_section"));
            faults.push((rope, "mrope_section", json!([0, 0, 0]), "mrope_section: found 0, expected a sum of"));
            if good["vision_config"].get("num_position_embeddings").is_some() {
                faults.push((vision(), "num_position_embeddings", json!(1 << 24), "num_position_embeddings"));
            }
        }
        for (group, key, value, named) in faults {
            let mut config = good.clone();
            config.pointer_mut(&group).unwrap()[key] = value;
            fs::write(&path, config.to_string()).unwrap();
            let error = fault(dir.path());
            assert!(error.contains("config.json") && error.contains(named), "{} {key}: {error}", family.model_types[0]);
        }
    }
}

#[test]
fn weights_that_are_no_numbers_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (_, whole) = model_dir(dir.path());
    let path = dir.path().join("model.safetensors");
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let names: Value = serde_json::from_slice(&whole[8..header]).unwrap();
    let (name, info) = names.as_object().unwrap().iter().find(|(name, _)| name.contains("down_proj.weight")).unwrap();
    let (at, is_f32) = (header + info["data_offsets"][0].as_u64().unwrap() as usize, info["dtype"] == "F32");
    for value in [f32::NAN, f32::INFINITY] {
        let mut broken = whole.clone();
        match is_f32 {
            true => broken[at..at + 4].copy_from_slice(&value.to_le_bytes()),
            false => broken[at..at + 2].copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
        }
        fs::write(&path, broken).unwrap();
        let error = Model::load(&mut device(1), dir.path(), DType::F32).err().unwrap();
        let text = error.to_string();
        assert!(text.contains("model.safetensors") && text.contains(&format!("{name} is {value} at [0, 0]")), "{text}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn a_file_that_is_longer_than_its_header_says_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    model_dir(dir.path());
    let config = dir.path().join("config.json");
    ModelConfig::load(&config).unwrap();
    // Reading a tebibyte would take minutes.
    fs::File::options().write(true).open(dir.path().join("model.safetensors")).unwrap().set_len(1 << 40).unwrap();
    let error = ModelConfig::load(&config).unwrap_err().to_string();
    assert!(error.contains("model.safetensors: an incomplete or damaged safetensors file"), "{error}");
}

#[test]
fn files_of_a_model_that_hold_no_json_object_or_lead_nowhere_are_refused() {
    for name in ["generation_config.json", "tokenizer_config.json"] {
        for text in ["[]", "null", "5", ""] {
            let dir = tempfile::tempdir().unwrap();
            model_dir(dir.path());
            let file = dir.path().join(name);
            let _ = fs::remove_file(&file);
            match text {
                "" => std::os::unix::fs::symlink(name, &file).unwrap(),
                text => fs::write(&file, text).unwrap(),
            }
            let model_config = ModelConfig::load(&dir.path().join("config.json")).unwrap();
            let error = Chat::load(dir.path(), &model_config.chat()).err().unwrap().to_string();
            assert!(error.contains(name), "{name}, {text}: {error}");
        }
    }
}

#[test]
fn an_index_is_held_against_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let (_, whole) = model_dir(dir.path());
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let names: Value = serde_json::from_slice(&whole[8..header]).unwrap();
    let names: Vec<&String> = names.as_object().unwrap().keys().filter(|name| *name != "__metadata__").collect();
    let total = whole.len() - header;
    fs::rename(dir.path().join("model.safetensors"), dir.path().join("a.safetensors")).unwrap();
    let index = |total: usize, file: &dyn Fn(usize) -> &'static str| {
        let map: Value = names.iter().enumerate().map(|(i, name)| ((*name).clone(), json!(file(i)))).collect();
        let index = json!({"metadata": {"total_size": total}, "weight_map": map});
        fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    };
    index(total, &|_| "a.safetensors");
    opened(dir.path()).unwrap();
    // Programs that merge models write wrong sizes, and nobody else reads them.
    index(total + 1, &|_| "a.safetensors");
    opened(dir.path()).unwrap();
    index(total, &|i| ["a.safetensors", "b.safetensors", "c.safetensors"][i % 3]);
    let text = fault(dir.path());
    assert!(text.contains("2 of the 3 files in its weight_map are missing: b.safetensors, c.safetensors"), "{text}");
    fs::copy(dir.path().join("a.safetensors"), dir.path().join("b.safetensors")).unwrap();
    index(total, &|i| ["a.safetensors", "b.safetensors"][i % 2]);
    opened(dir.path()).unwrap();
    // A tensor in two files, for which the index names neither.
    let map = json!({names[0].as_str(): "a.safetensors", names[1].as_str(): "b.safetensors"});
    fs::write(dir.path().join("model.safetensors.index.json"), json!({"weight_map": map}).to_string()).unwrap();
    assert!(fault(dir.path()).contains("is stored twice"));
    let map = format!(r#"{{"{}": 5}}"#, names[0]);
    fs::write(dir.path().join("model.safetensors.index.json"), format!(r#"{{"weight_map": {map}}}"#)).unwrap();
    let text = fault(dir.path());
    assert!(text.contains(names[0].as_str()) && text.contains("expected the name of a file"), "{text}");
}

#[test]
fn a_pipe_in_a_model_directory_or_among_rows_does_not_hang() {
    let dir = tempfile::tempdir().unwrap();
    model_dir(dir.path());
    for name in ["config.json", "tokenizer.json", "model.safetensors", "rows.jsonl", "rows.parquet"] {
        let (path, aside) = (dir.path().join(name), dir.path().join("aside"));
        let was = fs::rename(&path, &aside).is_ok();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let error = match name {
            "tokenizer.json" => omr_data::text::Tokenizer::load(dir.path()).err().unwrap(),
            _ if name.starts_with("rows") => read::read(&entry(&path)).unwrap_err(),
            _ => opened(dir.path()).err().unwrap(),
        };
        let text = error.to_string();
        assert!(text.contains(name) && text.contains("expected a regular file"), "{text}");
        fs::remove_file(&path).unwrap();
        if was {
            fs::rename(aside, path).unwrap();
        }
    }
}

/// Writes a row group that repeats these texts `times` times. Returns the size of the file in bytes.
fn parquet(path: &Path, texts: &[String], times: usize, dictionary: bool) -> u64 {
    let answers = StringArray::from(vec!["1"; texts.len()]);
    let texts: StringArray = texts.iter().map(Some).collect();
    let columns = [("problem", Arc::new(texts) as ArrayRef), ("answer", Arc::new(answers) as _)];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_compression(zstd).set_dictionary_enabled(dictionary);
    let properties = properties.set_dictionary_page_size_limit(8 << 20).set_statistics_enabled(EnabledStatistics::None);
    let file = fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties.build())).unwrap();
    (0..times).for_each(|_| writer.write(&batch).unwrap());
    writer.close().unwrap();
    fs::metadata(path).unwrap().len()
}

#[test]
fn bombs_of_parquet_are_refused_or_read_in_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.parquet");
    let dictionary = omr_base_tests::tmp().join("dictionary.parquet");
    if std::env::var_os(CHILD).is_none() {
        let bytes = parquet(&dictionary, &vec!["x".repeat(2 << 20); 50], 12, true);
        assert!(bytes < 1 << 20, "{bytes}");
    }
    let Some(peak) = peak_of("bombs_of_parquet_are_refused_or_read_in_bounded_memory") else {
        // The row group decodes to 1.2 GB, because its dictionary contains one text of 2 MiB that 600 rows use.
        let mut rows = 0;
        read::for_each(&entry(&dictionary), |row| {
            rows += usize::from(row.is_ok());
            Ok(())
        })
        .unwrap();
        assert_eq!(rows, 600);
        return print_peak();
    };
    println!("read: {} MiB", peak >> 20);
    // At most 256 MiB are decoded at once. The rest of the limit is for the process and for the rows made from them.
    assert!(peak < 640 << 20, "{peak} bytes");
    // 300 MB of text are compressed to less than 1 MiB.
    let texts: Vec<String> = (0..10).map(|i| format!("{i}{}", "x".repeat(3 << 20))).collect();
    let bytes = parquet(&path, &texts, 10, false);
    assert!(bytes < 1 << 20, "{bytes}");
    let error = read::read(&entry(&path)).unwrap_err();
    assert!(error.to_string().contains("row group 1: 3145"), "{error}");
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn an_alias_bomb_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yaml");
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..20 {
        let line = vec![format!("*a{}", i - 1); 10].join(", ");
        text += &format!("a{i}: &a{i} [{line}]\n");
    }
    fs::write(&path, text).unwrap();
    let error = load::<SftConfig>(Some(&path), &[], &|_| None).err().unwrap();
    assert!(error.to_string().contains("c.yaml"), "{error}");
    assert_eq!(error.exit_code(), 2);
}
