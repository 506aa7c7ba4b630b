//! A table of all kinds of GPUs: whether the run of a config fits on 1 to 64 of them, and the cheapest changes if not.

use std::fmt::Write as _;
use std::thread;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::assumptions::Rows;
use super::changes::CHANGES;
use super::gpus::Gpu;
use super::hints::{Counter, Made, Way};
use super::table::without_hint;
use super::training::Training;
use crate::error::{Error, Result};
use crate::model::ModelConfig;
use crate::observe::bytes;

/// Numbers of GPUs.
pub const COUNTS: [usize; 5] = [1, 4, 8, 32, 64];

/// Width of the columns with the name of a GPU and its memory, and of all others.
const WIDTHS: [usize; 2] = [18, 16];

/// The table.
pub struct GpuTable {
    stage: &'static str,
    /// A cell per GPU for each of [`COUNTS`], or the reason why the config cannot run on this number of GPUs.
    columns: Vec<Result<Vec<Cell>>>,
}

/// A kind of GPU and a number of them.
struct Cell {
    gpu: Gpu,
    /// Bytes that the run needs at least on one GPU.
    needs: usize,
    /// Bytes that the run may use on one GPU.
    available: usize,
    /// The cheapest changes that make the run fit, if it does not.
    way: Option<Way>,
}

impl Cell {
    fn fits(&self) -> bool {
        self.needs <= self.available
    }

    /// Formats the cell as lines of at most 15 characters. `more` is the smallest larger number of GPUs that suffices.
    fn lines(&self, more: Option<usize>) -> Vec<String> {
        if self.fits() {
            return vec![format!("fits {}", bytes(self.needs as u64))];
        }
        let mut lines = vec![format!("lacks {}", bytes((self.needs - self.available) as u64))];
        match (&self.way, more) {
            (Some(way), _) => lines.extend(way.made.iter().map(|made| made.change.label(&made.step))),
            (None, Some(gpus)) => lines.push(format!("use {gpus} GPUs")),
            (None, None) => lines.push("nothing helps".to_owned()),
        }
        lines
    }
}

impl GpuTable {
    /// Makes the table for `config`. Errors if it cannot run on any number of GPUs.
    pub fn new<C: Training + Sync>(config: &C, model: &ModelConfig, rows: &Rows) -> Result<GpuTable> {
        let column = |gpus: usize| -> Result<Vec<Cell>> {
            let mut counter = Counter::new(config, model, rows, gpus)?;
            let mut cell = |&gpu: &Gpu| {
                let (needs, available) = (counter.needs, counter.available(gpu));
                let way = if needs > available { counter.cheapest(available) } else { None };
                Cell { gpu, needs, available, way }
            };
            Ok(Gpu::value_variants().iter().map(&mut cell).collect())
        };
        let mut columns: Vec<Result<Vec<Cell>>> = thread::scope(|scope| {
            let threads = COUNTS.map(|gpus| scope.spawn(move || column(gpus)));
            let ended = |thread: thread::ScopedJoinHandle<'_, Result<Vec<Cell>>>| {
                thread.join().unwrap_or_else(|_| Err(Error::Failed("a plan panicked".to_owned())))
            };
            threads.into_iter().map(ended).collect()
        });
        if columns.iter().all(Result::is_err) {
            columns.swap_remove(0)?;
        }
        Ok(GpuTable { stage: C::NAME, columns })
    }

    /// Returns the cells of the GPU at place `gpu` of the list, each with its number of GPUs.
    fn row(&self, gpu: usize) -> impl Iterator<Item = (usize, Option<&Cell>)> {
        let cells = self.columns.iter().map(move |column| column.as_ref().ok().and_then(|cells| cells.get(gpu)));
        COUNTS.into_iter().zip(cells)
    }

    /// Returns the smallest number of GPUs above `gpus` with which the run fits, as configured or with changes.
    fn more(&self, gpu: usize, gpus: usize) -> Option<usize> {
        let mut larger = self.row(gpu).filter(|(count, _)| *count > gpus);
        larger.find(|(_, cell)| cell.is_some_and(|cell| cell.fits() || cell.way.is_some())).map(|(count, _)| count)
    }

    /// Formats the table as text.
    pub fn text(&self) -> String {
        let [first, other] = WIDTHS;
        let line = |head: &str, cells: &mut dyn Iterator<Item = String>| {
            let cells: String = cells.map(|cell| format!("{cell:<other$}")).collect();
            format!("{head:<first$}{cells}").trim_end().to_owned() + "\n"
        };
        let mut out = format!("Memory of omr {} per GPU, planned, not measured\n\n", self.stage);
        let named = |gpus: usize| if gpus == 1 { "1 GPU".to_owned() } else { format!("{gpus} GPUs") };
        out.push_str(&line("GPU           GiB", &mut COUNTS.into_iter().map(named)));
        for (place, gpu) in Gpu::value_variants().iter().enumerate() {
            let cell = |(gpus, cell): (usize, Option<&Cell>)| match cell {
                Some(cell) => cell.lines(self.more(place, gpus)),
                None => vec!["-".to_owned()],
            };
            let cells: Vec<Vec<String>> = self.row(place).map(cell).collect();
            let ceilings = gpu.ceilings();
            let mut head = format!("{:<12} {:>4.0}", ceilings.name, ceilings.memory as f64 / f64::from(1 << 30));
            for i in 0..cells.iter().map(Vec::len).max().unwrap_or(0) {
                out.push_str(&line(&head, &mut cells.iter().map(|cell| cell.get(i).cloned().unwrap_or_default())));
                head.clear();
            }
        }
        out.push('\n');
        out.push_str(&self.legend());
        out
    }

    /// Explains the words in the cells.
    fn legend(&self) -> String {
        let mut out = String::new();
        let cells = || self.columns.iter().flatten().flatten();
        let mut explain = |word: &str, meaning: &str| {
            let _ = writeln!(out, "{word:<20}{meaning}");
        };
        explain("fits N GiB", "the run needs at least N GiB; it uses what remains to recompute less");
        if cells().any(|cell| !cell.fits()) {
            explain("lacks N GiB", "missing; the lines below it are the cheapest changes that together suffice");
        }
        for change in &CHANGES {
            let made = cells().filter_map(|cell| cell.way.as_ref()).flat_map(|way| &way.made);
            let mut patterns: Vec<(String, &Made)> = made
                .filter(|made| std::ptr::eq(made.change, change))
                .map(|made| (change.pattern(&made.step), made))
                .collect();
            patterns.sort_by(|a, b| a.0.cmp(&b.0));
            patterns.dedup_by(|a, b| a.0 == b.0);
            for (pattern, made) in patterns {
                let keys: Vec<&str> = made.step.iter().map(|(key, _)| *key).collect();
                explain(&pattern, &format!("{}: {}", keys.join(", "), change.cost));
            }
        }
        if cells().any(|cell| !cell.fits() && cell.way.is_none()) {
            explain("use N GPUs", "no change suffices here; on N GPUs the run fits, as configured or with changes");
            explain("nothing helps", "no change suffices, on this number of GPUs or on more");
        }
        for (gpus, column) in COUNTS.into_iter().zip(&self.columns) {
            if let Err(error) = column {
                let _ = writeln!(out, "{gpus} GPUs: {}", without_hint(error));
            }
        }
        out.push_str(
            "All rows have the full length and the largest image that the config allows; --row-tokens and\n\
             --image-tokens assume less. --json prints the keys to set and the bytes that each saves.\n",
        );
        out
    }

    /// Formats the table as JSON.
    pub fn json(&self) -> Value {
        let cell = |place: usize, gpus: usize, cell: &Cell| {
            let more = if cell.fits() || cell.way.is_some() { None } else { self.more(place, gpus) };
            let (value, ceilings) = (cell.gpu.to_possible_value(), cell.gpu.ceilings());
            json!({
                "gpu": value.map(|value| value.get_name().to_owned()), "name": ceilings.name, "gpus": gpus,
                "needs": cell.needs, "available": cell.available, "fits": cell.fits(),
                "missing": cell.needs.saturating_sub(cell.available), "hint": cell.way.as_ref().map(Way::json),
                "use_gpus": more,
            })
        };
        let mut cells = Vec::new();
        let mut impossible = serde_json::Map::new();
        for (gpus, column) in COUNTS.into_iter().zip(&self.columns) {
            match column {
                Ok(column) => cells.extend(column.iter().enumerate().map(|(place, found)| cell(place, gpus, found))),
                Err(error) => {
                    impossible.insert(gpus.to_string(), json!(error.to_string()));
                }
            }
        }
        json!({ "job": self.stage, "counts": COUNTS, "cells": cells, "impossible": impossible })
    }
}
