//! `omr plan`: memory, floors of time and what bounds them, for a config on a card, from the program's own code run on
//! a device that only counts. No data and no weights are read: the model's config.json and the config's limits decide.

mod fits;
mod floor;
mod gpus;
mod jobs;
mod launches;
mod page;
mod pass;
mod seats;
mod shapes;
mod table;

use std::path::{Path, PathBuf};

use self::fits::Resized;
use self::seats::Seats;
use self::table::{BESIDE, Column};
use super::{Context, Overrides};
use crate::config::{self, Config as _, OptimConfig, OptimizerName, RlConfig, SftConfig};
use crate::data::{Index, Shape};
use crate::error::{Error, Result};
use crate::files;
use crate::model::{Levels, ModelConfig};

pub use gpus::Gpu;
pub use jobs::{Cards, rl_page, sft_page};
pub use launches::Launches;
pub use page::Page;
pub use pass::Pass;

/// Arguments of `omr plan`.
#[derive(clap::Args)]
pub struct Args {
    /// Config file of `omr sft` or `omr rl`; its keys say which
    config: PathBuf,
    /// Cards, a rank each, in nodes of 8; fewer stand beside them in a table
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
    /// So many of it, for people.
    pub fn named(&self, count: usize) -> String {
        seats::named(count, &self.gpu.ceilings())
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
    if args.gpus == 0 {
        return Err(Error::input("--gpus", "0", "at least 1"));
    }
    if args.card.launches.is_some() && !args.card.gpu.is_hopper() {
        let found = args.card.gpu.ceilings().name;
        return Err(Error::input("--launches", found, "h200 or h100: launches are listed for Hopper"));
    }
    let file = &args.config;
    match is_rl(file)? {
        true => match args.overrides.read::<RlConfig>(Some(file))? {
            Some(config) => print(args, model_config(file, config.model.as_ref())?, &config, rl_page, jobs::rl_seats),
            None => Ok(()),
        },
        false => match args.overrides.read::<SftConfig>(Some(file))? {
            Some(config) => print(args, model_config(file, config.model.as_ref())?, &config, sft_page, jobs::sft_seats),
            None => Ok(()),
        },
    }
}

/// Whether a config is of `omr rl` rather than of `omr sft`: its keys say.
fn is_rl(file: &Path) -> Result<bool> {
    let text = files::read_config(file).map_err(Error::io(file))?;
    let kinds = [(SftConfig::NAME, config::keys::<SftConfig>()), (RlConfig::NAME, config::keys::<RlConfig>())];
    Ok(config::likeliest(&text, &kinds) == RlConfig::NAME)
}

/// What the run of a config computes on one card, over made-up rows.
pub struct Job {
    /// `sft` or `rl`.
    pub stage: &'static str,
    /// The model.
    pub model: ModelConfig,
    /// Of its weights.
    pub dtype: config::Dtype,
    /// What updates them.
    pub optimizer: OptimConfig,
    /// The largest pass of an update.
    pub pass: Pass,
    /// What that keeps for backward.
    pub levels: Levels,
}

/// The job of the config in `file` with `values` set, on a card on which it may take `memory` bytes, rows as `omr plan`
/// assumes them.
pub fn job(file: &Path, values: &[String], rows: &Rows, memory: Option<usize>) -> Result<Job> {
    let gib = memory.map(|bytes| bytes as f64 / (1u64 << 30) as f64);
    let least = |config: Option<f64>| config.into_iter().chain(gib).min_by(f64::total_cmp);
    let (page, dtype, optimizer) = if is_rl(file)? {
        let config: RlConfig = config::load(Some(file), values, &|name| std::env::var(name).ok())?;
        let config = RlConfig { max_memory_gib: least(config.max_memory_gib), ..config };
        let model = model_config(file, config.model.as_ref())?;
        (rl_page((&H200, 1), rows, model, &config)?, config.dtype, config.optimizer)
    } else {
        let config: SftConfig = config::load(Some(file), values, &|name| std::env::var(name).ok())?;
        let config = SftConfig { max_memory_gib: least(config.max_memory_gib), ..config };
        let model = model_config(file, config.model.as_ref())?;
        (sft_page((&H200, 1), rows, model, &config)?, config.dtype, config.optimizer)
    };
    let Page { stage, model, pass, planned, .. } = page;
    Ok(Job { stage, model, dtype, optimizer, pass, levels: planned.levels })
}

/// Prints the plan of `config`, and of several cards which rows fit them and what fewer would do. Where the config's rows do
/// not fit several cards, the longest that do are planned, and that is said.
fn print<C: Resized>(
    args: &Args,
    model: ModelConfig,
    config: &C,
    page: fn(Cards, &Rows, ModelConfig, &C) -> Result<Page>,
    seats: fn(Cards, &ModelConfig, &C) -> Result<Seats>,
) -> Result<()> {
    let (gpus, rows) = (args.gpus, &args.rows);
    if gpus == 1 {
        let page = page((&args.card, 1), rows, model, config)?;
        return super::print(&if args.json { format!("{:#}\n", page.json()) } else { page.text() });
    }
    let alike = Card { launches: None, ..args.card };
    let own = config.clone().optimizer().optim;
    let column = |on: &Card, cards: usize, optimizers: &[OptimizerName]| -> Result<Column> {
        let asked = page((on, cards), rows, model.clone(), config);
        let longest =
            fits::longest(on, config, (&model, rows), optimizers, |config| seats((on, cards), &model, config))?;
        let most = longest.iter().find(|(optim, _)| *optim == own).map_or(0, |(_, tokens)| *tokens);
        let (page, short) = match (asked, config.resized(rows, most)?) {
            (Err(error), Some(less)) if most > 0 => (page((on, cards), rows, model.clone(), &less), Some(error)),
            (asked, _) => (asked, None),
        };
        Ok(Column { cards, page, short, longest })
    };
    let of = match column(&args.card, gpus, &fits::OPTIMIZERS)? {
        Column { page: Err(error), .. } => return Err(error),
        of => of,
    };
    let text = of.text();
    let fewer = BESIDE.into_iter().filter(|&cards| cards < gpus);
    // Where lanes forbid so few there is nothing to be said of them.
    let mut columns: Vec<Column> = fewer.filter_map(|cards| column(&alike, cards, &[own]).ok()).collect();
    if args.json {
        let mut json = of.json().unwrap_or_default();
        json["beside"] = columns.iter().filter_map(Column::json).collect();
        return super::print(&format!("{json:#}\n"));
    }
    columns.push(of);
    super::print(&format!("{text}{}", table::text(&columns)))
}

/// The model's configuration: of the directory the config names, or of `model/` beside the config.
fn model_config(config: &Path, model: Option<&PathBuf>) -> Result<ModelConfig> {
    let named = model.map(|dir| dir.join("config.json"));
    let beside = config.parent().unwrap_or(Path::new("")).join("model").join("config.json");
    match named.filter(|path| path.exists()).or_else(|| beside.exists().then_some(beside.clone())) {
        Some(path) => ModelConfig::load(&path),
        None => {
            let found = model.map_or("nothing".to_owned(), |dir| dir.display().to_string());
            let expected = format!("a model directory with config.json (or {})", beside.display());
            Err(Error::input("model", found, expected))
        }
    }
}
