//! Makes the plan of a config on one GPU, or on several GPUs with a comparison to fewer.

use std::path::PathBuf;

use super::assumptions::{GpuOptions, Lengths, Rows};
use super::faster::{self, Faster, FasterCell};
use super::gpu_table::GpuTable;
use super::length::Run;
use super::page::Page;
use super::table::{self, BESIDE, Column};
use super::training::{GpuSet, Keys, Training};
use super::{fits, hints, kernels};
use omr_base::config::OptimizerName;
use omr_base::error::{Error, Result};
use omr_model::nn::ModelConfig;

/// Arguments of `omr plan` besides the config.
#[derive(clap::Args)]
pub struct PlanRequest {
    /// Number of GPUs, one rank each, in nodes of 8. Smaller numbers are shown in a table for comparison
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub gpus: usize,
    /// Kind of GPU.
    #[command(flatten)]
    pub gpu_options: GpuOptions,
    /// Rows that are assumed.
    #[command(flatten)]
    pub rows: Rows,
    /// SFT: lengths of real rows in place of equal ones: a run folder of `omr sft`, or a text file with the number of
    /// tokens of a row in each line
    #[arg(long, value_name = "PATH", conflicts_with_all = ["row_tokens", "image_tokens", "data_rows"])]
    data: Option<PathBuf>,
    /// Also search for settings with which a step is predicted to take less time on an H200 or H100: the size of
    /// micro-batches, the optimizer and where its state is. It makes several plans, which may take a minute, and with
    /// --table several minutes
    #[arg(long)]
    faster: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Print a table of all kinds of GPUs instead: whether the run fits on 1 to 64 of them, and the cheapest changes of
    /// the config that make it fit
    #[arg(long, conflicts_with_all = ["gpus", "gpu", "gpu_memory", "clock", "launches"])]
    table: bool,
}

/// Returns the plan of `config` as text or JSON. For several GPUs it also contains the rows that fit, and the plans for
/// fewer GPUs. If the config's rows do not fit, the plan is made for the longest rows that do, and the text states it.
pub fn text<C: Training + Sync>(plan_request: &PlanRequest, model: ModelConfig, config: &C) -> Result<String> {
    let (gpus, gpu_options, mut rows) = (plan_request.gpus, &plan_request.gpu_options, plan_request.rows.clone());
    if let Some(path) = &plan_request.data {
        let lengths = Lengths::read(path)?;
        rows.data_rows = Some(lengths.index.len());
        rows.lengths = Some(lengths);
    }
    let rows = &rows;
    if plan_request.table {
        let table = GpuTable::new(config, &model, rows)?;
        let found = if plan_request.faster { faster::cells(config, rows, &model)? } else { Vec::new() };
        if plan_request.json {
            let mut json = table.json();
            if plan_request.faster {
                json["faster"] = found.iter().map(FasterCell::json).collect();
            }
            return Ok(format!("{json:#}\n"));
        }
        return Ok(table.text() + &faster::cells_text(&found));
    }
    gpu_options.gpu.properties().iter().try_for_each(|gpu| kernels::check(&model, gpu))?;
    let gpu_set = GpuSet { gpu_options, count: gpus };
    let search = |page: Option<&Page>| match plan_request.faster {
        true => faster::search(config, page, rows, gpu_set, &model),
        false => Vec::new(),
    };
    let explained = |error: Error| match error {
        Error::Input { place, found, expected, .. } if place == "memory" => hints::text(config, &model, rows, gpu_set)
            .map(|hint| hint + &faster::hint(&search(None)))
            .map_or_else(|error| error, |hint| Error::input_hint(place, found, expected, hint)),
        error => error,
    };
    let planned = |config: &C, gpus: GpuSet| -> Result<Page> {
        let page = config.page(gpus, rows, model.clone())?;
        Ok(Page { run: Some(whole_run(config, rows, &page, gpus, &model)?), ..page })
    };
    if gpus == 1 {
        let page = planned(config, gpu_set).map_err(explained)?;
        let found = search(Some(&page));
        if plan_request.json {
            let mut json = page.json();
            json["faster"] = found.iter().map(Faster::json).collect();
            return Ok(format!("{json:#}\n"));
        }
        return Ok(page.text() + &faster::text(&found, page.step()));
    }
    let alike = GpuOptions { launches: None, ..gpu_options.clone() };
    let own = config.clone().keys().optimizer.optim;
    let column = |gpu_options: &GpuOptions, count: usize, optimizers: &[OptimizerName]| -> Result<Column> {
        let gpus = GpuSet { gpu_options, count };
        let whole = planned(config, gpus);
        let longest = fits::longest(gpus, config, &model, rows, optimizers)?;
        let most = longest.iter().find(|(optim, _)| *optim == own).map_or(0, |(_, tokens)| *tokens);
        let (page, short) = match (whole, fits::resized(config, rows, most)?) {
            (Err(error), Some(less)) if most > 0 => (planned(&less, gpus), Some(error)),
            (whole, _) => (whole, None),
        };
        Ok(Column { gpus: count, page, short, longest })
    };
    let of = match column(gpu_options, gpus, &fits::OPTIMIZERS)? {
        Column { page: Err(error), .. } => return Err(explained(error)),
        of => Column { short: of.short.map(explained), ..of },
    };
    // Settings for the longest rows that fit would not be those of the config's rows.
    let found = of.page.as_ref().ok().filter(|_| of.short.is_none()).map(|page| search(Some(page))).unwrap_or_default();
    let step = of.page.as_ref().map_or(0.0, Page::step);
    let text = of.text() + &faster::text(&found, step);
    let fewer = BESIDE.into_iter().filter(|&count| count < gpus);
    // Numbers of GPUs on which the config cannot run are left out.
    let mut columns: Vec<Column> = fewer.filter_map(|count| column(&alike, count, &[own]).ok()).collect();
    if plan_request.json {
        let mut json = of.json().unwrap_or_default();
        json["faster"] = found.iter().map(Faster::json).collect();
        json["beside"] = columns.iter().filter_map(Column::json).collect();
        return Ok(format!("{json:#}\n"));
    }
    columns.push(of);
    Ok(format!("{text}{}", table::text(&columns)))
}

/// Computes the time of the whole run of `config`, whose plan is `page`. If the mean length of responses is given, the
/// time is that of a plan in which all responses have this length.
fn whole_run<C: Training>(config: &C, rows: &Rows, page: &Page, gpus: GpuSet, model: &ModelConfig) -> Result<Run> {
    let mut shorter = config.clone();
    let Keys { steps: fixed, epochs, response, .. } = shorter.keys();
    let response = match (rows.mean_response, response) {
        (Some(mean), Some(most)) if (1..=*most).contains(&mean) => std::mem::replace(most, mean).min(mean),
        (Some(mean), most) => {
            let rl = "a config of `omr rl`; for `omr sft`, --row-tokens sets the length of rows".to_owned();
            let expected = most.map_or(rl, |most| format!("1 to {most}, which is max_response_length"));
            return Err(Error::input("--mean-response", mean.to_string(), expected));
        }
        (None, most) => most.map_or(0, |most| *most),
    };
    let shorter = rows.mean_response.map(|_| shorter.page(gpus, rows, model.clone())).transpose()?;
    let (timed, at_once) = (shorter.as_ref().unwrap_or(page), page.rows as f64);
    let steps = fixed.or(rows.data_rows.map(|rows| (epochs * rows as f64 / at_once).ceil() as u64));
    let passes = |steps: u64| Some(steps as f64 * at_once / rows.data_rows? as f64);
    let hours = |step: f64| steps.map(|steps| steps as f64 * step / 3600.0);
    let predicted = timed.predicted_step().and_then(|step| hours(step.likely));
    Ok(Run { steps, epochs: fixed.map_or(Some(epochs), passes), response, hours: hours(timed.least()), predicted })
}
