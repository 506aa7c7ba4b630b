//! A table of all kinds of GPUs: whether the run of a config fits on 1 to 64 of them, and the cheapest changes if not.

use std::thread;

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::assumptions::{GpuOptions, H200, Rows};
use super::changes::CHANGES;
use super::gpus::Gpu;
use super::hints::{Counter, Way};
use super::table::without_hint;
use super::training::Training;
use omr_base::error::{Error, Result};
use omr_base::observe::bytes;
use omr_model::nn::ModelConfig;

/// Numbers of GPUs.
pub const COUNTS: [usize; 5] = [1, 4, 8, 32, 64];

/// The table.
pub struct GpuTable {
    stage: &'static str,
    /// Cells in the order of [`COUNTS`], for each of them in the order of the kinds of GPUs.
    cells: Vec<Cell>,
    /// Numbers of GPUs on which the config cannot run, with the reasons.
    impossible: Vec<(usize, Error)>,
}

/// A kind of GPU and a number of them.
struct Cell {
    gpu: Gpu,
    gpus: usize,
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

    /// Returns true if the run fits as configured or with changes.
    fn is_possible(&self) -> bool {
        self.fits() || self.way.is_some()
    }
}

impl GpuTable {
    /// Makes the table for `config`. Errors if it cannot run on any number of GPUs.
    pub fn new<C: Training + Sync>(config: &C, model: &ModelConfig, rows: &Rows) -> Result<GpuTable> {
        let column = |gpus: usize| -> Result<Vec<Cell>> {
            let mut counter = Counter::new(config, model, rows, gpus)?;
            let cell = |&gpu: &Gpu| {
                let (needs, available) = (counter.needs, counter.available(&GpuOptions { gpu, ..H200 }));
                let way = if needs > available { counter.ways(available, 1).pop() } else { None };
                Cell { gpu, gpus, needs, available, way }
            };
            Ok(Gpu::value_variants().iter().map(cell).collect())
        };
        let columns = thread::scope(|scope| {
            let threads = COUNTS.map(|gpus| scope.spawn(move || column(gpus)));
            threads.map(|thread| thread.join().unwrap_or_else(|_| Err(Error::Failed("a plan panicked".to_owned()))))
        });
        let mut table = GpuTable { stage: C::NAME, cells: Vec::new(), impossible: Vec::new() };
        for (gpus, column) in COUNTS.into_iter().zip(columns) {
            match column {
                Ok(column) => table.cells.extend(column),
                Err(error) => table.impossible.push((gpus, error)),
            }
        }
        if table.cells.is_empty() { Err(table.impossible.swap_remove(0).1) } else { Ok(table) }
    }

    /// Returns the smallest larger number of GPUs with which the run of a cell fits, as configured or with changes.
    /// Returns `None` if this is possible in the cell.
    fn more(&self, cell: &Cell) -> Option<usize> {
        let larger = |other: &&Cell| other.gpu == cell.gpu && other.gpus > cell.gpus && other.is_possible();
        if cell.is_possible() { None } else { self.cells.iter().find(larger).map(|other| other.gpus) }
    }

    /// Formats a cell as lines of at most 15 characters.
    fn lines(&self, cell: &Cell) -> Vec<String> {
        if cell.fits() {
            return vec![format!("fits {}", bytes(cell.needs as u64))];
        }
        let mut lines = vec![format!("lacks {}", bytes((cell.needs - cell.available) as u64))];
        match (&cell.way, self.more(cell)) {
            (Some(way), _) => lines.extend(way.made.iter().map(|made| made.change.label(&made.step))),
            (None, Some(gpus)) => lines.push(format!("use {gpus} GPUs")),
            (None, None) => lines.push("nothing helps".to_owned()),
        }
        lines
    }

    /// Formats the table as text.
    pub fn text(&self) -> String {
        let line = |head: String, cells: &mut dyn Iterator<Item = String>| {
            let cells: String = cells.map(|cell| format!("{cell:<16}")).collect();
            format!("{head:<18}{cells}").trim_end().to_owned() + "\n"
        };
        let mut out = format!("Memory of omr {} per GPU, planned, not measured\n\n", self.stage);
        let named = |gpus: usize| if gpus == 1 { "1 GPU".to_owned() } else { format!("{gpus} GPUs") };
        out.push_str(&line("GPU           GiB".to_owned(), &mut COUNTS.into_iter().map(named)));
        for gpu in Gpu::value_variants() {
            let cells = COUNTS.map(|gpus| {
                let cell = self.cells.iter().find(|cell| cell.gpu == *gpu && cell.gpus == gpus);
                cell.map_or(vec!["-".to_owned()], |cell| self.lines(cell))
            });
            let ceilings = gpu.ceilings();
            let mut head = format!("{:<12} {:>4.0}", ceilings.name, ceilings.memory as f64 / f64::from(1 << 30));
            for i in 0..cells.iter().map(Vec::len).max().unwrap_or(0) {
                let mut row = cells.iter().map(|cell| cell.get(i).cloned().unwrap_or_default());
                out.push_str(&line(std::mem::take(&mut head), &mut row));
            }
        }
        out.push('\n');
        for (word, meaning) in self.legend() {
            out.push_str(&format!("{word:<20}{meaning}\n"));
        }
        for (gpus, error) in &self.impossible {
            out.push_str(&format!("{gpus} GPUs: {}\n", without_hint(error)));
        }
        out + "All rows have the full length and the largest image that the config allows; --row-tokens and\n\
               --image-tokens assume less. --json prints the keys to set and the bytes that each saves.\n"
    }

    /// Returns the words in the cells with their meanings.
    fn legend(&self) -> Vec<(String, String)> {
        let explain = |word: &str, meaning: &str| (word.to_owned(), meaning.to_owned());
        let fits = explain("fits N GiB", "the run needs at least N GiB; it uses what remains to recompute less");
        let mut out = vec![fits];
        if self.cells.iter().any(|cell| !cell.fits()) {
            let meaning = "missing; the lines below it are the cheapest changes that together suffice";
            out.push(explain("lacks N GiB", meaning));
        }
        for change in &CHANGES {
            let mut made = self.cells.iter().filter_map(|cell| cell.way.as_ref()).flat_map(|way| &way.made);
            out.extend(made.find(|made| std::ptr::eq(made.change, change)).map(|made| change.legend(&made.step)));
        }
        if !self.cells.iter().all(Cell::is_possible) {
            let meaning = "no change suffices here; on N GPUs the run fits, as configured or with changes";
            out.push(explain("use N GPUs", meaning));
            out.push(explain("nothing helps", "no change suffices, on this number of GPUs or on more"));
        }
        out
    }

    /// Formats the table as JSON.
    pub fn json(&self) -> Value {
        let cell = |cell: &Cell| {
            let Cell { gpu, gpus, needs, available, way } = cell;
            let name = gpu.to_possible_value().map(|value| value.get_name().to_owned());
            json!({
                "gpu": name, "name": gpu.ceilings().name, "gpus": gpus, "needs": needs, "available": available,
                "fits": cell.fits(), "missing": needs.saturating_sub(*available),
                "hint": way.as_ref().map(Way::json), "use_gpus": self.more(cell),
            })
        };
        let cells: Vec<Value> = self.cells.iter().map(cell).collect();
        let impossible = self.impossible.iter().map(|(gpus, error)| (gpus.to_string(), json!(error.to_string())));
        let impossible: Map<String, Value> = impossible.collect();
        json!({ "job": self.stage, "counts": COUNTS, "cells": cells, "impossible": impossible })
    }
}
