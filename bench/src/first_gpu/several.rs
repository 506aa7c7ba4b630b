//! Cases on several GPUs: small runs of SFT and RL, which must give the same model on any number of GPUs, two ranks on
//! one GPU, and steps of a real model.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::record::{failed, not_run, passed};
use super::{Kit, Printed, answers};
use omr_base::error::{Error, Result};
use omr_base::{files, identity};
use omr_runtime::device::Kind;
use omr_train::training::metrics;

/// Numbers of GPUs with which the small runs are made.
const COUNTS: [usize; 4] = [1, 2, 4, 8];

/// Settings of the small runs. A run has as many gradient lanes as the largest number of GPUs, so results are comparable.
const SFT: &str = "max_steps: 2\ntrain_batch_size: 8\npacking_length: 512\nmicro_batch_tokens: 512\n";
const RL: &str = "total_training_steps: 1\ntrain_batch_size: 8\nppo_mini_batch_size: 8\n\
    rollout: {n: 2, max_num_seqs: 16, max_num_batched_tokens: 512}\nmax_prompt_length: 128\nmax_response_length: 16\n\
    micro_batch_tokens: 1024\n";
const BOTH: &str = "gradient_lanes: 8\nsave_seconds: null\nmax_memory_gib: 8\nimage_min_pixels: 784\n";

/// Steps of the real model.
const STEPS: u64 = 20;

impl Kit<'_> {
    /// Makes a small run of SFT and one of RL on 1, 2, 4 and 8 GPUs. Fails unless the models are equal.
    pub fn same_model(&mut self, limit: Duration) -> Result<Value> {
        if self.gpus < 2 {
            return Ok(not_run("the machine has one GPU"));
        }
        let counts: Vec<usize> = COUNTS.into_iter().filter(|count| *count <= self.gpus).collect();
        let (end, mut lines) = (Instant::now() + limit, Vec::new());
        for job in ["sft", "rl"] {
            let mut hashes = Vec::new();
            for gpus in &counts {
                match self.small_run(job, *gpus, end)? {
                    Ok(hash) => hashes.push(hash),
                    Err(reason) => return Ok(failed(format!("{job} on {gpus}: {reason}"))),
                }
            }
            if hashes.iter().any(|hash| *hash != hashes[0]) {
                return Ok(failed(format!("{job}: other models on {counts:?} GPUs: {}", hashes.join(", "))));
            }
            lines.push(format!("{job}: {} on {counts:?}", hashes[0]));
        }
        Ok(passed(lines.join("; "), Vec::new()))
    }

    /// Makes the small run of SFT with two ranks on one GPU, which NCCL takes for GPUs of two hosts. Fails unless the
    /// model is that of one rank.
    pub fn two_on_one(&mut self, limit: Duration) -> Result<Value> {
        if self.kind != Kind::Cuda {
            return Ok(not_run("NCCL needs a GPU"));
        }
        let end = Instant::now() + limit;
        let one = match self.small_run("sft", 1, end)? {
            Ok(hash) => hash,
            Err(reason) => return Ok(failed(format!("one rank: {reason}"))),
        };
        let (config, out) = (self.at("sft.yaml"), self.at("two-on-one"));
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = format!("dist.port={}", free.map_err(Error::io("127.0.0.1"))?.port());
        let arguments = ["sft", &config, "--out", &out, "dist.timeout_s=60", &port];
        let mut ranks = Vec::new();
        for rank in ["0", "1"] {
            let mut command = self.command(self.kind, &self.variant, &arguments)?;
            command.envs([("RANK", rank), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1")]);
            command.env("MASTER_ADDR", "127.0.0.1").env("NCCL_HOSTID", format!("omr-rank-{rank}"));
            ranks.push(command);
        }
        let log = self.scratch.path().join("rank-1");
        let stderr = File::create(&log).map_err(Error::io(&log))?;
        let second = ranks.remove(1).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
        let mut second = second.map_err(Error::io("omr"))?;
        let printed = self.process(ranks.remove(0), end.saturating_duration_since(Instant::now()))?;
        // Both ranks end together, so this one has ended or hangs.
        let _ = second.kill();
        let _ = second.wait();
        Ok(match printed.and_then(|_| self.hash(&out)) {
            Ok(two) if two == one => passed(format!("two ranks and one rank: {two}"), Vec::new()),
            Ok(two) => failed(format!("two ranks: {two}, one rank: {one}")),
            Err(reason) => failed(reason),
        })
    }

    /// Trains the model `real` for 20 GSPO steps on the questions in `rows`, on all GPUs.
    pub fn real_steps(&mut self, real: Option<&Path>, rows: Option<&Path>, limit: Duration) -> Result<Value> {
        let (Some(model), Some(rows)) = (real, rows) else {
            return Ok(not_run("no --real DIR with --data FILE was given"));
        };
        let keys = format!("preset: gspo\ntotal_training_steps: {STEPS}\nwarmup_steps: 2\nsave_seconds: null\n");
        let text = format!("model: {}\ntrain_files: [{}]\n{keys}", json!(model), json!(rows));
        files::write(self.at("real.yaml"), text.as_bytes())?;
        let (config, out, gpus) = (self.at("real.yaml"), self.at("real"), self.gpus.to_string());
        let arguments = ["rl", &config, "--out", &out, "--gpus", &gpus];
        let ended = self.omr(self.kind, &self.variant.clone(), &arguments, limit)?;
        let steps = metrics::read(&Path::new(&out).join("metrics.jsonl"))?;
        if let Err(reason) = ended {
            return Ok(failed(format!("after {} of {STEPS} steps: {reason}", steps.len())));
        }
        let of = |step: Option<&metrics::Metrics>| step?.get("critic/score/mean")?.as_f64();
        let [first, last] = [steps.first(), steps.last()].map(|step| of(step).unwrap_or(f64::NAN));
        let seconds = metrics::sum(&steps, "timing_s/step") / steps.len().max(1) as f64;
        let line =
            format!("{gpus} GPUs, {seconds:.1} s per step, score {first:.4} in the first step, {last:.4} in the last");
        Ok(passed(line, steps.into_iter().map(Value::Object).collect()))
    }

    /// Makes a small run of `job`, unless it was made, and returns the hash of its model.
    fn small_run(&mut self, job: &str, gpus: usize, end: Instant) -> Result<Printed> {
        let (config, out) = (self.at(&format!("{job}.yaml")), self.at(&format!("{job}-{gpus}")));
        if Path::new(&out).exists() {
            return Ok(self.hash(&out));
        }
        let left = || end.saturating_duration_since(Instant::now());
        if let Err(reason) = self.small_inputs(left())? {
            return Ok(Err(reason));
        }
        let arguments = [job, &config, "--out", &out, "--gpus", &gpus.to_string()];
        let ended = self.omr(self.kind, &self.variant.clone(), &arguments, left())?;
        Ok(ended.and_then(|_| self.hash(&out)))
    }

    /// Writes the model, the rows and the configs of the small runs, unless they exist.
    fn small_inputs(&mut self, limit: Duration) -> Result<Printed> {
        let [like, rows, model] = ["like.yaml", "sft.jsonl", "base"].map(|name| self.at(name));
        if Path::new(&model).exists() {
            return Ok(Ok(model));
        }
        answers::write(self.scratch.path())?;
        files::write(&like, include_bytes!("like.yaml"))?;
        for (job, key, text) in [("sft", "datasets", SFT), ("rl", "train_files", RL)] {
            let row = |i: usize| {
                let (images, answer) = ([format!("{}.png", i % 5)], (2 * i + 3).to_string());
                let mut messages =
                    vec![json!({"role": "user", "content": format!("<image>How much is {i} and {}?", i + 3)})];
                let said = format!("<think>It is {answer}.</think><answer>{answer}</answer>");
                messages.extend((job == "sft").then(|| json!({"role": "assistant", "content": said})));
                format!("{}\n", json!({"images": images, "messages": messages, "answer": answer}))
            };
            let rows = self.at(&format!("{job}.jsonl"));
            files::write(&rows, (0..16).map(row).collect::<String>().as_bytes())?;
            let text = format!("model: {}\n{key}: [{}]\n{text}{BOTH}", json!(model), json!(rows));
            files::write(self.at(&format!("{job}.yaml")), text.as_bytes())?;
        }
        self.omr(Kind::Cpu, "auto", &["init", "--like", &like, "--rows", &rows, "--out", &model], limit)
    }

    /// Returns the first digits of the hash of the model of the run in `out`.
    fn hash(&self, out: &str) -> Printed {
        let hash =
            identity::hash(&Path::new(out).join("model/model.safetensors")).map_err(|error| error.to_string())?;
        Ok(hash[..16].to_owned())
    }

    /// Returns the path of a file or folder of the cases.
    fn at(&self, name: &str) -> String {
        self.scratch.path().join(name).display().to_string()
    }
}
