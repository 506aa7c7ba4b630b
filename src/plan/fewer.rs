//! The plan of a config on one GPU, or on several beside fewer.

use super::card::{Card, Rows};
use super::fits::{self, Resized};
use super::jobs::Cards;
use super::page::Page;
use super::seats::Seats;
use super::table::{self, BESIDE, Column};
use crate::config::OptimizerName;
use crate::error::Result;
use crate::model::ModelConfig;

/// What a plan is asked for.
pub struct Asked<'a> {
    /// Number of GPUs, one rank each.
    pub gpus: usize,
    /// The kind of GPU.
    pub card: &'a Card,
    /// The rows that are assumed.
    pub rows: &'a Rows,
    /// True for JSON in place of text.
    pub json: bool,
}

/// Returns the plan of `config` as text or JSON, and for several GPUs which rows fit them and what fewer would do. Where the
/// config's rows do not fit several GPUs, the longest that do are planned, and the text says so.
pub fn text<C: Resized>(
    asked: &Asked,
    model: ModelConfig,
    config: &C,
    page: fn(Cards, &Rows, ModelConfig, &C) -> Result<Page>,
    seats: fn(Cards, &ModelConfig, &C) -> Result<Seats>,
) -> Result<String> {
    let (gpus, rows) = (asked.gpus, asked.rows);
    if gpus == 1 {
        let page = page((asked.card, 1), rows, model, config)?;
        return Ok(if asked.json { format!("{:#}\n", page.json()) } else { page.text() });
    }
    let alike = Card { launches: None, gpu: asked.card.gpu, clock: asked.card.clock };
    let own = config.clone().optimizer().optim;
    let column = |on: &Card, cards: usize, optimizers: &[OptimizerName]| -> Result<Column> {
        let whole = page((on, cards), rows, model.clone(), config);
        let longest =
            fits::longest(on, config, (&model, rows), optimizers, |config| seats((on, cards), &model, config))?;
        let most = longest.iter().find(|(optim, _)| *optim == own).map_or(0, |(_, tokens)| *tokens);
        let (page, short) = match (whole, config.resized(rows, most)?) {
            (Err(error), Some(less)) if most > 0 => (page((on, cards), rows, model.clone(), &less), Some(error)),
            (whole, _) => (whole, None),
        };
        Ok(Column { cards, page, short, longest })
    };
    let of = match column(asked.card, gpus, &fits::OPTIMIZERS)? {
        Column { page: Err(error), .. } => return Err(error),
        of => of,
    };
    let text = of.text();
    let fewer = BESIDE.into_iter().filter(|&cards| cards < gpus);
    // Where lanes forbid so few there is nothing to be said of them.
    let mut columns: Vec<Column> = fewer.filter_map(|cards| column(&alike, cards, &[own]).ok()).collect();
    if asked.json {
        let mut json = of.json().unwrap_or_default();
        json["beside"] = columns.iter().filter_map(Column::json).collect();
        return Ok(format!("{json:#}\n"));
    }
    columns.push(of);
    Ok(format!("{text}{}", table::text(&columns)))
}
