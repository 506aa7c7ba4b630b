//! Tests opening a checkpoint with the layout of the released 7B model on the hub: its shards, names, shapes and file
//! sizes. The weights are zeros that take no disk space. Measures the cost of opening before a weight is read, and
//! checks the error for a wrong tensor.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use omr_model::nn::Model;
use omr_runtime::device::{Device, Target};
use omr_runtime::tensor::DType;
use serde_json::{Map, Value, json};

/// Bytes of model-0000i-of-00005.safetensors of Qwen2.5-VL-7B-Instruct.
const FILES: [u64; 5] = [3_900_233_256, 3_864_726_320, 3_864_726_424, 3_864_733_680, 1_089_994_880];

/// `metadata.total_size` of the index of these files.
const TOTAL: u64 = 16_584_333_312;

/// Maximum shard size of the program that wrote these files.
const SHARD: u64 = 4_000_000_000;

/// Environment variable with the directory that the child process opens.
const OPEN: &str = "OMR_TEST_OPEN_RELEASED";

type Tensors = Vec<(String, Vec<u64>)>;

/// Returns names and shapes in the order in which they were written to the shards.
fn tensors() -> Tensors {
    let (hidden, mlp, vocab, kv) = (3584, 18_944, 152_064, 512);
    let (width, inner, merged) = (1280, 3420, 5120);
    let mut all = Tensors::new();
    let mut add = |name: String, shape: &[u64]| all.push((name, shape.to_vec()));
    add("visual.patch_embed.proj.weight".into(), &[width, 3, 2, 14, 14]);
    for i in 0..32 {
        let mut block = |name: &str, shape: &[u64]| add(format!("visual.blocks.{i}.{name}"), shape);
        block("norm1.weight", &[width]);
        block("norm2.weight", &[width]);
        for (name, n, k) in [
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.gate_proj", inner, width),
            ("mlp.up_proj", inner, width),
            ("mlp.down_proj", width, inner),
        ] {
            block(&format!("{name}.weight"), &[n, k]);
            block(&format!("{name}.bias"), &[n]);
        }
    }
    add("visual.merger.ln_q.weight".into(), &[width]);
    for (name, n, k) in [("0", merged, merged), ("2", hidden, merged)] {
        add(format!("visual.merger.mlp.{name}.weight"), &[n, k]);
        add(format!("visual.merger.mlp.{name}.bias"), &[n]);
    }
    add("model.embed_tokens.weight".into(), &[vocab, hidden]);
    for i in 0..28 {
        let mut layer = |name: &str, shape: &[u64]| add(format!("model.layers.{i}.{name}"), shape);
        for (name, n) in [("q", hidden), ("k", kv), ("v", kv)] {
            layer(&format!("self_attn.{name}_proj.weight"), &[n, hidden]);
            layer(&format!("self_attn.{name}_proj.bias"), &[n]);
        }
        layer("self_attn.o_proj.weight", &[hidden, hidden]);
        layer("input_layernorm.weight", &[hidden]);
        layer("post_attention_layernorm.weight", &[hidden]);
        layer("mlp.gate_proj.weight", &[mlp, hidden]);
        layer("mlp.up_proj.weight", &[mlp, hidden]);
        layer("mlp.down_proj.weight", &[hidden, mlp]);
    }
    add("model.norm.weight".into(), &[hidden]);
    add("lm_head.weight".into(), &[vocab, hidden]);
    all
}

/// Returns the bytes of a tensor in bf16.
fn bytes(shape: &[u64]) -> u64 {
    2 * shape.iter().product::<u64>()
}

/// Writes config, index and shards. Returns the bytes of each shard. Weights are holes in the files and are read as
/// zeros.
fn write(dir: &Path, tensors: &Tensors) -> Vec<u64> {
    let mut shards: Vec<BTreeMap<&str, &[u64]>> = Vec::new();
    let mut room = 0;
    for (name, shape) in tensors {
        let bytes = bytes(shape);
        if bytes > room {
            shards.push(BTreeMap::new());
            room = SHARD;
        }
        room -= bytes;
        shards.last_mut().unwrap().insert(name, shape);
    }
    let (mut sizes, mut weight_map, mut total) = (Vec::new(), Map::new(), 0);
    for (i, shard) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
        let (mut header, mut end) = (String::from(r#"{"__metadata__":{"format":"pt"}"#), 0);
        for (name, shape) in shard {
            let from = end;
            end += bytes(shape);
            let shape = json!(shape);
            header += &format!(r#","{name}":{{"dtype":"BF16","shape":{shape},"data_offsets":[{from},{end}]}}"#);
            weight_map.insert((*name).to_owned(), json!(file));
        }
        header.push('}');
        header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
        let mut out = File::create(dir.join(file)).unwrap();
        out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        out.write_all(header.as_bytes()).unwrap();
        sizes.push(8 + header.len() as u64 + end);
        out.set_len(sizes[i]).unwrap();
        total += end;
    }
    assert_eq!(total, TOTAL);
    let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
    let config = json!({
        "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "torch_dtype": "bfloat16",
        "vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "tie_word_embeddings": false,
        "vision_config": {
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2
        }
    });
    let put = |name: &str, value: Value| std::fs::write(dir.join(name), value.to_string()).unwrap();
    put("model.safetensors.index.json", index);
    put("config.json", config);
    sizes
}

/// Opens the checkpoint on a device that only counts memory. Loading then means opening the files and checking every
/// name, shape and type.
fn open(dir: &Path) -> omr_base::error::Result<Model> {
    Model::load(&mut Device::count_for(Target::cpu(1)), dir, DType::Bf16)
}

#[cfg(target_os = "linux")]
#[test]
fn opening_the_released_7b_takes_little_memory() {
    if let Some(dir) = std::env::var_os(OPEN) {
        let start = Instant::now();
        let model = open(Path::new(&dir)).unwrap();
        let seconds = start.elapsed().as_secs_f64();
        assert_eq!(model.layout.pieces().count(), tensors().len());
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
        println!("\nopened in {seconds:.3} s, peak kB {}", peak.split_whitespace().nth(1).unwrap());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(write(dir.path(), &tensors()), FILES, "the layout is that of the released files");
    let start = Instant::now();
    let name = "nn::released::opening_the_released_7b_takes_little_memory";
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args([name, "--exact", "--nocapture"]).env(OPEN, dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|l| l.starts_with("opened in")).unwrap_or_else(|| panic!("{output:?}"));
    let peak: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    println!("{} tensors, {TOTAL} bytes: {line}; process {:.3} s", tensors().len(), start.elapsed().as_secs_f64());
    assert!(peak < 1 << 20, "{peak} kB");
}

#[test]
fn a_wrong_shape_is_called_by_file_tensor_and_both_shapes() {
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = tensors();
    let name = "model.layers.15.mlp.gate_proj.weight";
    tensors.iter_mut().find(|(n, _)| n == name).unwrap().1 = vec![3584, 18_944];
    write(dir.path(), &tensors);
    let error = open(dir.path()).err().unwrap();
    let text = error.to_string();
    println!("{text}");
    assert!(text.contains("1 tensors with a shape that differs from config.json"), "{text}");
    assert!(
        text.contains(&format!(
            "{name} in model-00003-of-00005.safetensors has shape [3584, 18944], expected [18944, 3584]"
        )),
        "{text}"
    );
    assert_eq!(error.exit_code(), 2);
}
