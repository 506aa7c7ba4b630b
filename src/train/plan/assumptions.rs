//! Command-line options for the GPU and the rows that a plan assumes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::{EnumValueParser, PossibleValue, RangedU64ValueParser, TypedValueParser};
use clap::{Arg, Command, ValueEnum};

use super::gpus::Gpu;
use super::layout;
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_data::rows::index::stored_index;
use omr_data::rows::{Index, Shape};
use omr_model::nn::ModelConfig;
use omr_runtime::device::cuda::GPU_OVERHEAD;
use omr_runtime::ranks;

/// GPU that a plan is made for.
#[derive(clap::Args, Clone)]
pub struct GpuOptions {
    /// Kind of GPU
    #[arg(long, value_parser = SupportedGpu, default_value = "h200")]
    pub gpu: Gpu,
    /// Memory of the GPU in place of that of its kind, as nvidia-smi shows it: 15.2GiB
    #[arg(long, value_parser = gib, value_name = "SIZE")]
    pub gpu_memory: Option<u64>,
    /// Clock of an H200 or H100 under load, in MHz. Predictions assume it
    #[arg(long, default_value_t = CLOCK, value_name = "MHZ")]
    pub clock: f64,
    /// Write a JSON line for each kernel launch of a training pass and an update, and in RL of decoding steps of 1 to 512
    /// sequences, on an H200 or H100. The program tools/roofline reads FILE and shows what limits each launch
    #[arg(long, value_name = "FILE")]
    pub launches: Option<PathBuf>,
    /// Replace an existing file of --launches
    #[arg(long, requires = "launches")]
    pub overwrite: bool,
}

/// Clock of an H200 under load in MHz. An assumption until it is measured.
const CLOCK: f64 = 1500.0;

/// Largest number of tokens of a row in a file of lengths.
const MOST_TOKENS: usize = 1 << 20;

/// GPU for which times are predicted if none is given.
pub const H200: GpuOptions =
    GpuOptions { gpu: Gpu::H200, gpu_memory: None, clock: CLOCK, launches: None, overwrite: false };

/// Rows that a plan assumes.
#[derive(clap::Args, Default, Clone)]
pub struct Rows {
    /// Tokens per row: packs contain as many such rows as fit, prompts have this length. Default: the maximum that the
    /// config allows
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 20))]
    pub row_tokens: Option<usize>,
    /// Tokens of the image in each row. 0 = text only. Default: the largest image that the config allows
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(0..=1 << 20))]
    pub image_tokens: Option<usize>,
    /// Rows of the data set, to compute the steps or epochs of the whole run
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 40))]
    pub data_rows: Option<usize>,
    /// RL: mean tokens of a response, for the hours of the whole run. Memory is still planned for max_response_length.
    /// Default: max_response_length
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 20))]
    pub mean_response: Option<usize>,
    /// Lengths of real rows in place of equal ones.
    #[arg(skip)]
    pub lengths: Option<Lengths>,
}

/// Lengths of real rows.
#[derive(Clone)]
pub struct Lengths {
    /// Run folder or file from which they were read.
    pub path: PathBuf,
    /// Sizes of the rows.
    pub index: Arc<Index>,
}

/// Reads a size such as `15.2GiB`, in bytes.
fn gib(text: &str) -> std::result::Result<u64, String> {
    let number = text.strip_suffix("GiB").and_then(|number| number.trim().parse::<f64>().ok());
    let bytes = number.filter(|gib| *gib > 0.0 && *gib < 1e6).map(|gib| (gib * (1u64 << 30) as f64) as u64);
    bytes.ok_or_else(|| "expected a number of GiB, such as 15.2GiB".to_owned())
}

/// Reads a [`Gpu`], and says why older GPUs are none of them.
#[derive(Clone)]
struct SupportedGpu;

impl TypedValueParser for SupportedGpu {
    type Value = Gpu;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> std::result::Result<Gpu, clap::Error> {
        let name = value.to_ascii_lowercase();
        if ["t4", "v100", "2080ti", "rtx-2080ti", "p100"].iter().any(|old| name == *old) {
            let what = format!(
                "{} has no bf16: not supported, a GPU of compute capability 8.0 or later is needed",
                name.display()
            );
            return Err(clap::Error::raw(clap::error::ErrorKind::InvalidValue, what + "\n").with_cmd(command));
        }
        EnumValueParser::<Gpu>::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Gpu::value_variants().iter().filter_map(ValueEnum::to_possible_value)))
    }
}

impl GpuOptions {
    /// Returns the bytes that a plan may use on one of `gpus` GPUs.
    pub fn budget(&self, gpus: usize) -> usize {
        let links = if gpus > 1 { ranks::GPU_OVERHEAD } else { 0 };
        let memory = self.gpu_memory.unwrap_or_else(|| self.gpu.ceilings().memory);
        memory.saturating_sub(GPU_OVERHEAD + links) as usize
    }

    /// Formats a number of these GPUs for the user.
    pub fn named(&self, count: usize) -> String {
        layout::named(count, &self.gpu.ceilings())
    }
}

impl Lengths {
    /// Reads the lengths of a run folder of `omr sft`, or of a file with a number of tokens in each line. Errors name the
    /// line.
    pub fn read(path: &Path) -> Result<Lengths> {
        let expected = "a run folder of `omr sft`, whose folder index/ has the lengths, or a file with a number of tokens in each line";
        let index = if path.is_dir() {
            stored_index::of_run(path)?.ok_or_else(|| Error::input("--data", path.display().to_string(), expected))?
        } else {
            let (text, mut index) = (files::read_to_string(path).map_err(Error::io(path))?, Index::default());
            for (number, line) in (1..).zip(text.lines()) {
                let Some(tokens) = line.trim().parse().ok().filter(|tokens| (2..=MOST_TOKENS).contains(tokens)) else {
                    let (place, expected) = (
                        format!("{}, line {number}", path.display()),
                        format!("the tokens of a row, 2 to {MOST_TOKENS}"),
                    );
                    return Err(Error::input(place, format!("{line:?}"), expected));
                };
                index.push(Shape { tokens, targets: tokens - 1, grids: &[] });
            }
            index
        };
        if index.is_empty() {
            return Err(Error::input(path.display().to_string(), "no rows", expected));
        }
        Ok(Lengths { path: path.to_owned(), index: Arc::new(index) })
    }
}

impl Rows {
    /// Returns rows with the average length of those of `index`, each with an image of their average number of image
    /// tokens.
    pub fn mean(index: &Index, model: &ModelConfig) -> Rows {
        let merge = model.grid().merge_size;
        let sum = |of: &dyn Fn(Shape<'_>) -> usize| index.shapes().map(of).sum::<usize>() / index.len().max(1);
        let (tokens, seen) = (sum(&|shape| shape.tokens), sum(&|shape| shape.patches() / (merge * merge)));
        // The number is rounded down, because an image has whole rows of tokens.
        let side = seen.isqrt();
        let image_tokens = Some(side * seen.checked_div(side).unwrap_or(0));
        Rows { row_tokens: Some(tokens), image_tokens, ..Rows::default() }
    }

    /// Returns the tokens of the longest row. The config's key `key` allows at most `most`.
    pub(super) fn longest(&self, most: usize, key: &str) -> Result<usize> {
        let of_data = self.lengths.as_ref().and_then(|lengths| lengths.index.shapes().map(|shape| shape.tokens).max());
        of_data.map_or_else(|| self.tokens(most, key), |longest| Ok(longest.min(most)))
    }

    /// Returns the tokens of a row. The config's key `key` allows at most `most`.
    pub(super) fn tokens(&self, most: usize, key: &str) -> Result<usize> {
        match self.row_tokens {
            Some(tokens) if tokens == 0 || tokens > most => {
                let expected = format!("1 to {most}, which is {key}");
                Err(Error::input("--row-tokens", tokens.to_string(), expected))
            }
            tokens => Ok(tokens.unwrap_or(most)),
        }
    }
}
