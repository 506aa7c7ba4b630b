//! Makes the plan of a config on one GPU, or on several GPUs with a comparison to fewer.

use super::card::{Card, Rows};
use super::fits;
use super::table::{self, BESIDE, Column};
use super::training::{Cards, Training};
use crate::config::OptimizerName;
use crate::error::Result;
use crate::model::ModelConfig;

/// Arguments of `omr plan` besides the config.
#[derive(clap::Args)]
pub struct Asked {
    /// Number of GPUs, one rank each, in nodes of 8. Smaller numbers are shown in a table for comparison
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub gpus: usize,
    /// Kind of GPU.
    #[command(flatten)]
    pub card: Card,
    /// Rows that are assumed.
    #[command(flatten)]
    pub rows: Rows,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Returns the plan of `config` as text or JSON. For several GPUs it also contains the rows that fit, and the plans for
/// fewer GPUs. If the config's rows do not fit, the plan is made for the longest rows that do, and the text states it.
pub fn text<C: Training>(asked: &Asked, model: ModelConfig, config: &C) -> Result<String> {
    let (gpus, card, rows) = (asked.gpus, &asked.card, &asked.rows);
    if gpus == 1 {
        let page = config.page(Cards { card, count: 1 }, rows, model)?;
        return Ok(if asked.json { format!("{:#}\n", page.json()) } else { page.text() });
    }
    let alike = Card { launches: None, gpu: card.gpu, clock: card.clock };
    let own = config.clone().keys().optimizer.optim;
    let column = |card: &Card, count: usize, optimizers: &[OptimizerName]| -> Result<Column> {
        let cards = Cards { card, count };
        let whole = config.page(cards, rows, model.clone());
        let longest = fits::longest(cards, config, &model, rows, optimizers)?;
        let most = longest.iter().find(|(optim, _)| *optim == own).map_or(0, |(_, tokens)| *tokens);
        let (page, short) = match (whole, config.resized(rows, most)?) {
            (Err(error), Some(less)) if most > 0 => (less.page(cards, rows, model.clone()), Some(error)),
            (whole, _) => (whole, None),
        };
        Ok(Column { cards: count, page, short, longest })
    };
    let of = match column(card, gpus, &fits::OPTIMIZERS)? {
        Column { page: Err(error), .. } => return Err(error),
        of => of,
    };
    let text = of.text();
    let fewer = BESIDE.into_iter().filter(|&cards| cards < gpus);
    // Numbers of GPUs that the gradient lanes do not allow are left out.
    let mut columns: Vec<Column> = fewer.filter_map(|cards| column(&alike, cards, &[own]).ok()).collect();
    if asked.json {
        let mut json = of.json().unwrap_or_default();
        json["beside"] = columns.iter().filter_map(Column::json).collect();
        return Ok(format!("{json:#}\n"));
    }
    columns.push(of);
    Ok(format!("{text}{}", table::text(&columns)))
}
