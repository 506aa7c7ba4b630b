//! Which rows are the same: candidates by what they share of bands of text and picture, each then compared.

use rayon::prelude::*;

use crate::config::DedupConfig;
use crate::error::Result;
use crate::pipeline::dedup::hashes::Rows;
use crate::pipeline::dedup::{picture, text};

/// Sets of rows that are the same; of each the first row in order stands for it.
pub struct Groups(Vec<u32>);

impl Groups {
    fn root(&mut self, row: u32) -> u32 {
        let mut at = row;
        while self.0[at as usize] != at {
            // Halving the path: later looks are shorter.
            self.0[at as usize] = self.0[self.0[at as usize] as usize];
            at = self.0[at as usize];
        }
        at
    }

    fn join(&mut self, one: u32, other: u32) {
        let (one, other) = (self.root(one), self.root(other));
        self.0[one.max(other) as usize] = one.min(other);
    }

    /// The rows of each set of several, in order.
    pub fn several(mut self) -> Vec<Vec<u32>> {
        let mut by_root: Vec<(u32, u32)> = (0..self.0.len() as u32).map(|row| (self.root(row), row)).collect();
        by_root.sort_unstable();
        let groups = by_root.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1);
        groups.map(|group| group.iter().map(|&(_, row)| row).collect()).collect()
    }
}

/// Groups rows whose questions and pictures are the same.
pub fn groups(rows: &Rows, config: &DedupConfig) -> Result<Groups> {
    let mut groups = Groups((0..rows.len() as u32).collect());
    let most = config.hash_distance;
    // One more than bits that may differ: in one of them two hashes agree.
    let picture_bands = most + 1;
    for text_band in 0..=rows.bands_each {
        for picture_band in 0..picture_bands {
            let key = |row: usize| {
                let text = match text_band {
                    0 => rows.texts[row].0,
                    band => u64::from(rows.bands[row * rows.bands_each + band - 1]),
                };
                let looks = rows.looks(row);
                let picture = looks.first().map_or(0, |look| picture::band(look.hash, picture_band, picture_bands) + 1);
                // Equal numbers and as many pictures are needed in any case.
                [text, rows.texts[row].1, looks.len() as u64, picture]
            };
            // Rows without pictures have one band.
            let wanted = |row: &usize| picture_band == 0 || !rows.looks(*row).is_empty();
            let mut keyed: Vec<(u64, u32)> =
                (0..rows.len()).into_par_iter().filter(wanted).map(|row| (mixed(key(row)), row as u32)).collect();
            keyed.par_sort_unstable();
            for run in keyed.chunk_by(|a, b| a.0 == b.0).filter(|run| run.len() > 1) {
                compare(rows, config, run, &mut groups)?;
            }
        }
    }
    Ok(groups)
}

/// Compares the rows of a run, each with those before it that are the same as none.
fn compare(rows: &Rows, config: &DedupConfig, run: &[(u64, u32)], groups: &mut Groups) -> Result<()> {
    let mut different: Vec<u32> = Vec::new();
    'rows: for &(_, row) in run {
        for &other in &different {
            if groups.root(row) == groups.root(other) {
                continue 'rows;
            }
            if same(rows, config, other as usize, row as usize)? {
                groups.join(other, row);
                continue 'rows;
            }
        }
        different.push(row);
    }
    Ok(())
}

fn same(rows: &Rows, config: &DedupConfig, one: usize, other: usize) -> Result<bool> {
    let (looks, others) = (rows.looks(one), rows.looks(other));
    let pictures = looks.len() == others.len()
        && looks.iter().zip(others).all(|(look, other)| look.is(other, config.hash_distance as u32));
    if !pictures || rows.texts[one].1 != rows.texts[other].1 {
        return Ok(false);
    }
    if rows.texts[one].0 == rows.texts[other].0 {
        return Ok(true);
    }
    Ok(text::similarity(&rows.text(one)?.0, &rows.text(other)?.0) >= config.text_threshold)
}

/// One word of several (the finaliser of MurmurHash3 after each).
fn mixed(words: [u64; 4]) -> u64 {
    words.into_iter().fold(0, |hash, word| {
        let hash = (hash ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    })
}
