//! `omr plan`: memory, floors of time and what bounds them, for a config on a card, from the program's own code run on
//! a device that only counts. No data and no weights are read: the model's config.json and the config's limits decide.

mod floor;
mod gpus;
mod launches;
mod shapes;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use self::floor::Floor;
use self::gpus::{Ceilings, Gpu};
use self::launches::Launches;
use super::memory;
use super::{Context, Overrides};
use crate::config::{self, Config as _, RlConfig, SftConfig};
use crate::data::{Index, Shape};
use crate::device::{Device, Kind, Region, Target};
use crate::dist::Alone;
use crate::error::{Error, Result};
use crate::files;
use crate::model::{Grads, Levels, Model, ModelConfig};
use crate::observe::bytes;
use crate::rl;
use crate::tensor::DType;
use crate::train::nll;
use crate::train::plan::{self, Planned};
use crate::train::sft::{self, LOWER};

/// Arguments of `omr plan`.
#[derive(clap::Args)]
pub struct Args {
    /// Config file of `omr sft` or `omr rl`; its keys say which
    config: PathBuf,
    /// Cards
    #[arg(long, default_value_t = 1, value_name = "N")]
    gpus: usize,
    #[command(flatten)]
    card: Card,
    #[command(flatten)]
    rows: Rows,
    /// JSON on stdout in place of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    overrides: Overrides,
}

/// The card a plan is for.
#[derive(clap::Args)]
pub struct Card {
    /// Kind of card
    #[arg(long, value_enum, default_value = "h200")]
    gpu: Gpu,
    /// Clock in MHz that predictions for a Hopper card assume under load
    #[arg(long, default_value_t = CLOCK, value_name = "MHZ")]
    clock: f64,
    /// Lists what is launched on a Hopper card, a line of JSON a launch, for tools/roofline: a pass and an update, and of RL
    /// a step of decoding for 1 to 512 sequences
    #[arg(long, value_name = "FILE")]
    launches: Option<PathBuf>,
}

/// An H200's under load, assumed until one is measured.
const CLOCK: f64 = 1500.0;

/// The card that times are predicted for where none is named.
pub const H200: Card = Card { gpu: Gpu::H200, clock: CLOCK, launches: None };

/// What rows a plan assumes, where none are read.
#[derive(clap::Args, Default)]
pub struct Rows {
    /// Tokens of a row: packs hold as many such as fit, prompts are so long; else as long as the config allows
    #[arg(long, value_name = "N")]
    pub row_tokens: Option<usize>,
    /// Tokens of the picture that each row has; 0 for text alone, else as large as the config's limits allow
    #[arg(long, value_name = "N")]
    pub image_tokens: Option<usize>,
}

impl Card {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.gpu.ceilings().name
    }
}

impl Rows {
    /// As long as those of `index` on average, each with a picture of as many tokens as they have of pictures.
    pub fn mean(index: &Index, model: &ModelConfig) -> Rows {
        let merge = model.vision_config.spatial_merge_size;
        let sum = |of: &dyn Fn(Shape<'_>) -> usize| index.shapes().map(of).sum::<usize>() / index.len().max(1);
        let (tokens, seen) = (sum(&|shape| shape.tokens), sum(&|shape| shape.patches() / (merge * merge)));
        // Of about so many, as a picture has whole rows of them.
        let side = seen.isqrt();
        Rows { row_tokens: Some(tokens), image_tokens: Some(side * seen.checked_div(side).unwrap_or(0)) }
    }

    /// Tokens of a row where at most `most` are allowed by the config's key.
    fn tokens(&self, most: usize, key: &str) -> Result<usize> {
        match self.row_tokens {
            Some(tokens) if tokens == 0 || tokens > most => {
                let expected = format!("1 to {most}, which is {key}");
                Err(Error::input("--row-tokens", tokens.to_string(), expected))
            }
            tokens => Ok(tokens.unwrap_or(most)),
        }
    }
}

/// Prints the plan to stdout.
pub fn run(args: &Args, _: &Context) -> Result<()> {
    if args.gpus != 1 {
        let expected = "1: a plan of several cards is not built yet";
        return Err(Error::input("--gpus", args.gpus.to_string(), expected));
    }
    if args.card.launches.is_some() && !args.card.gpu.is_hopper() {
        let found = args.card.gpu.ceilings().name;
        return Err(Error::input("--launches", found, "h200 or h100: launches are listed for Hopper"));
    }
    let text = std::fs::read_to_string(&args.config).map_err(Error::io(&args.config))?;
    let kinds = [(SftConfig::NAME, config::keys::<SftConfig>()), (RlConfig::NAME, config::keys::<RlConfig>())];
    let page = match config::likeliest(&text, &kinds) == RlConfig::NAME {
        true => match args.overrides.read::<RlConfig>(Some(&args.config))? {
            Some(config) => rl_page(&args.card, &args.rows, model_config(args, config.model.as_ref())?, &config)?,
            None => return Ok(()),
        },
        false => match args.overrides.read::<SftConfig>(Some(&args.config))? {
            Some(config) => sft_page(&args.card, &args.rows, model_config(args, config.model.as_ref())?, &config)?,
            None => return Ok(()),
        },
    };
    super::print(&if args.json { format!("{:#}\n", page.json()) } else { page.text() })
}

/// The model's configuration: of the directory the config names, or of `model/` beside the config.
fn model_config(args: &Args, model: Option<&PathBuf>) -> Result<ModelConfig> {
    let named = model.map(|dir| dir.join("config.json"));
    let beside = args.config.parent().unwrap_or(Path::new("")).join("model").join("config.json");
    match named.filter(|path| path.exists()).or_else(|| beside.exists().then_some(beside.clone())) {
        Some(path) => ModelConfig::load(&path),
        None => {
            let found = model.map_or("nothing".to_owned(), |dir| dir.display().to_string());
            let expected = format!("a model directory with config.json (or {})", beside.display());
            Err(Error::input("model", found, expected))
        }
    }
}

/// What is printed.
pub struct Page {
    stage: &'static str,
    card: Ceilings,
    model: ModelConfig,
    parameters: usize,
    assumes: String,
    planned: Planned,
    /// Lines about memory besides the regions.
    notes: Vec<(&'static str, String)>,
    /// Parts of a step.
    parts: Vec<(&'static str, Floor)>,
    /// Seconds predicted for each part; none for a card of another kind than Hopper.
    predicted: Vec<f64>,
    clock: f64,
    /// Tokens a step trains on, and those it generates.
    tokens: [f64; 2],
    limit: usize,
}

fn target(card: &Ceilings, max_memory_gib: Option<f64>) -> Target {
    Target::gpu(Kind::Cuda).within(Some(card.budget())).within(plan::gib_to_bytes(max_memory_gib))
}

fn parameters(model: &ModelConfig, dtype: config::Dtype) -> Result<usize> {
    let mut dev = Device::count_for(Target::gpu(Kind::Cuda));
    let dtype = DType::of(dtype, Kind::Cuda);
    Ok(Model::empty(&mut dev, model.clone(), dtype)?.layout.num_weights())
}

/// What `fill` lists and predicts on a Hopper card, whose launches are written where they are asked for.
fn predicted(card: &Card, fill: impl FnOnce(&mut Launches) -> Result<Vec<f64>>) -> Result<Vec<f64>> {
    if !card.gpu.is_hopper() {
        return Ok(Vec::new());
    }
    let mut launches = Launches::new(card.gpu.ceilings(), 1e6 * card.clock);
    let seconds = fill(&mut launches)?;
    card.launches.as_ref().map_or(Ok(()), |path| files::write(path, launches.text().as_bytes()))?;
    Ok(seconds)
}

/// The plan of fine-tuning `model` on such rows.
pub fn sft_page(on: &Card, rows: &Rows, model: ModelConfig, config: &SftConfig) -> Result<Page> {
    let card = on.gpu.ceilings();
    let length = config.packing_length;
    if length > config.micro_batch_tokens {
        let expected = format!("at least packing_length, which is {length}: a row of a pack's length has to fit");
        return Err(Error::input("micro_batch_tokens", config.micro_batch_tokens.to_string(), expected));
    }
    let row_tokens = rows.tokens(length, "packing_length")?;
    let grids = shapes::grids(&model, rows.image_tokens, config.image_max_pixels, row_tokens)?;
    let row = plan::blank(&model, Shape { tokens: row_tokens, targets: row_tokens - 1, grids: &grids });
    // As many packs as a micro-batch holds.
    let (count, of_pack) = (config.micro_batch_tokens / length, length / row_tokens);
    let batches = [vec![sft::sequence(&row); count * of_pack]];
    let planned = plan::sft(model.clone(), config, (target(&card, config.max_memory_gib), Alone::ONE), &batches)?;
    let planned = planned.check(LOWER)?;
    let packs = config.train_batch_size.unwrap_or(config.gradient_accumulation_steps);
    let passes = packs.div_ceil(count);
    let predicted = predicted(on, |launches| {
        let tokens = count * of_pack * row_tokens;
        let pass = |dev: &mut Device, model: &Model, grads: &mut Grads| {
            let loss = dev.zeros(Region::Overlay, DType::F64, &[1])?;
            nll::gradients(dev, model, grads, &batches[0], tokens, planned.levels, loss).map(|_| tokens)
        };
        let [pass, update] = launches.training(&model, (config.dtype, config.optimizer), pass)?;
        Ok(vec![passes as f64 * pass, update])
    })?;
    Ok(Page {
        stage: "sft",
        parameters: parameters(&model, config.dtype)?,
        assumes: format!(
            "an update of {packs} packs of {length} tokens, each {}{}",
            match of_pack {
                1 if row_tokens == length => "one row".to_owned(),
                1 => format!("one row of {row_tokens}"),
                _ => format!("{of_pack} rows of {row_tokens}"),
            },
            shapes::described(&model, &grids)
        ),
        parts: vec![
            ("passes", Floor::sum(&planned.pass, &card).times(passes as f64)),
            ("update", Floor::sum(&planned.update.work, &card)),
        ],
        predicted,
        clock: on.clock,
        notes: Vec::new(),
        tokens: [(packs * of_pack * row_tokens) as f64, 0.0],
        limit: config.save_total_limit,
        card,
        model,
        planned,
    })
}

/// The plan of reinforcement learning of `model` on such questions.
pub fn rl_page(on: &Card, rows: &Rows, model: ModelConfig, config: &RlConfig) -> Result<Page> {
    let card = on.gpu.ceilings();
    let prompt = rows.tokens(config.max_prompt_length, "max_prompt_length")?;
    let response = config.max_response_length;
    if prompt + response > config.micro_batch_tokens {
        let expected = format!("room for the longest prompt and response, {} tokens", prompt + response);
        return Err(Error::input("micro_batch_tokens", config.micro_batch_tokens.to_string(), expected));
    }
    let grids = shapes::grids(&model, rows.image_tokens, config.image_max_pixels, prompt)?;
    let mut index = Index::default();
    (0..config.train_batch_size).for_each(|_| index.push(Shape { tokens: prompt, targets: 0, grids: &grids }));
    let allowed = vec![u32::MAX; model.vocab_size.div_ceil(32)];
    let target = target(&card, config.max_memory_gib);
    let (planned, num_kv_blocks) = rl::plan::rl(model.clone(), config, (target, Alone::ONE), &allowed, &index)?;

    let rollouts = shapes::Rollouts::new(&model, config, prompt, num_kv_blocks);
    let sequences = config.train_batch_size * config.rollout.n;
    let per_pass = (config.micro_batch_tokens / (prompt + response)).max(1);
    let passes = sequences.div_ceil(per_pass) * config.ppo_epochs;
    let updates = config.train_batch_size / config.ppo_mini_batch_size * config.ppo_epochs;
    let predicted = predicted(on, |launches| {
        let pass = |dev: &mut Device, model: &Model, grads: &mut Grads| {
            rl::plan::pass(dev, model, grads, (config, planned.levels), &index)
        };
        let [pass, update] = launches.training(&model, (config.dtype, config.optimizer), pass)?;
        if on.launches.is_some() {
            for batch in launches::BATCHES {
                launches.decoding(&model, config.dtype, batch, launches::CONTEXT)?;
            }
        }
        let at_once = launches.decoding(&model, config.dtype, rollouts.batch as usize, prompt + response / 2)?;
        let rollouts = rollouts.prefill(&card).seconds + rollouts.steps() * at_once;
        Ok(vec![rollouts, passes as f64 * pass, updates as f64 * update])
    })?;
    Ok(Page {
        stage: "rl",
        parameters: parameters(&model, config.dtype)?,
        assumes: format!(
            "{sequences} rollouts of {prompt} + {response} tokens a step, all of full length{}",
            shapes::described(&model, &grids)
        ),
        notes: vec![("kv cache", rollouts.describe())],
        parts: vec![
            ("rollouts", rollouts.floor(&card)),
            ("passes", Floor::sum(&planned.pass, &card).times(passes as f64)),
            ("updates", Floor::sum(&planned.update.work, &card).times(updates as f64)),
        ],
        predicted,
        clock: on.clock,
        tokens: [(sequences * (prompt + response) * config.ppo_epochs) as f64, (sequences * response) as f64],
        limit: config.save_total_limit,
        card,
        model,
        planned,
    })
}

impl Page {
    fn step(&self) -> Floor {
        self.parts.iter().fold(Floor::default(), |sum, (_, floor)| sum.and(*floor))
    }

    /// Seconds predicted for a step.
    fn predicted_step(&self) -> Option<f64> {
        (!self.predicted.is_empty()).then(|| self.predicted.iter().sum())
    }

    /// How long a step and `steps` of them take, in a line.
    pub fn time(&self, steps: u64) -> String {
        let of = |step: f64| format!("{} a step, {} in all", floor::seconds(step), floor::seconds(step * steps as f64));
        let predicted = self.predicted_step().map_or(String::new(), |step| format!("; predicted {}", of(step)));
        format!("time on one {} for {}: floor {}{predicted}", self.card.name, self.assumes, of(self.step().seconds))
    }

    /// Tokens a day, trained on and generated, where a step takes so many seconds.
    fn per_day(&self, step: f64) -> [f64; 2] {
        self.tokens.map(|tokens| tokens / step * 86_400.0)
    }

    /// All of it, for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, text: &str| {
            out.push_str(&format!("{name:<14}{text}\n"));
        };
        let Planned { memory: plan, levels, .. } = &self.planned;
        let card = &self.card;
        line("job", &format!("{} on one {}", self.stage, card.name));
        line("model", &format!("{:.3} B parameters", self.parameters as f64 / 1e9));
        line("assumes", &self.assumes);
        let budget = self.planned.budget.map_or(String::new(), |b| format!(" of {} the run may take", bytes(b as u64)));
        line("memory", &format!("{}{budget}", bytes(plan.total() as u64)));
        for (region, meaning) in REGIONS {
            line(&format!("  {}", region.name()), &format!("{:>10}  {meaning}", bytes(plan.bytes(region) as u64)));
        }
        line("  kept", &memory::levels(levels, &self.model));
        for (name, text) in &self.notes {
            line(&format!("  {name}"), text);
        }
        line("disk", &memory::disk(plan, self.limit));
        let predicted =
            |seconds: Option<f64>| seconds.map_or(String::new(), |s| format!("  predicted {:>10}", floor::seconds(s)));
        line("step", &format!("{}  (floor){}", self.step().text(), predicted(self.predicted_step())));
        for (i, (name, floor)) in self.parts.iter().enumerate() {
            line(
                &format!("  {name}"),
                &format!("{}         {}", floor.text(), predicted(self.predicted.get(i).copied())),
            );
        }
        line("bound", &self.step().bound());
        let tokens = |step: f64| {
            let [trained, generated] = self.per_day(step);
            let generated =
                if generated > 0.0 { format!(", {} generated", millions(generated)) } else { String::new() };
            format!("{} trained on{generated}", millions(trained))
        };
        line("tokens a day", &format!("at most {}", tokens(self.step().seconds)));
        self.predicted_step().into_iter().for_each(|step| line("  predicted", &tokens(step)));
        out.push_str(&format!(
            "Times are floors, not measurements: counted arithmetic at {:.0} TFLOP/s, counted traffic at {:.2} TB/s,\n\
             each op the longer of the two, nothing between them.\n",
            card.flops / 1e12,
            card.bytes / 1e12
        ));
        if self.predicted_step().is_some() {
            out.push_str(&format!(
                "Predicted times are not measured either: from machine code and the run's own launches, at {:.0} MHz, an assumption;\n\
                 prompts at their floor. What bounds each launch: --launches FILE, then tools/roofline FILE.\n",
                self.clock
            ));
        }
        out
    }

    /// All of it, for programs.
    pub fn json(&self) -> Value {
        let regions: Map<String, Value> = Region::ALL
            .iter()
            .map(|&region| (region.name().to_owned(), json!(self.planned.memory.bytes(region))))
            .collect();
        let parts: Map<String, Value> =
            self.parts.iter().map(|(name, floor)| ((*name).to_owned(), floor.json())).collect();
        let Levels { text, vision, replay_tower } = self.planned.levels;
        let [trained, generated] = self.per_day(self.step().seconds);
        let seconds: Map<String, Value> =
            self.parts.iter().zip(&self.predicted).map(|((name, _), s)| ((*name).to_owned(), json!(s))).collect();
        let predicted = self.predicted_step().map(|step| {
            let [trained, generated] = self.per_day(step);
            json!({
                "clock_mhz": self.clock, "step_seconds": step, "seconds": seconds,
                "tokens_a_day": { "trained": trained, "generated": generated },
            })
        });
        json!({
            "job": self.stage,
            "gpu": self.card.name,
            "gpus": 1,
            "parameters": self.parameters,
            "memory": { "total": self.planned.memory.total(), "budget": self.planned.budget, "regions": regions },
            "kept": {
                "text": memory::counts(text, self.model.num_hidden_layers),
                "vision": memory::counts(vision, self.model.vision_config.depth),
                "replay_tower": replay_tower,
            },
            "disk": (self.limit + 1) * memory::checkpoint(&self.planned.memory),
            "floor": { "step": self.step().json(), "parts": parts },
            "tokens_a_day": { "trained": trained, "generated": generated },
            "predicted": predicted,
        })
    }
}

const REGIONS: [(Region, &str); 4] = [
    (Region::Weights, "bf16, padded"),
    (Region::State, "moments and low halves of the weights"),
    (Region::Overlay, "gradients and activations; in RL the key cache lies there, too"),
    (Region::Workspace, "gradients of activations and scratch"),
];

fn millions(tokens: f64) -> String {
    if tokens >= 1e9 { format!("{:.2} B", tokens / 1e9) } else { format!("{:.1} M", tokens / 1e6) }
}
