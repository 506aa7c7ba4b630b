//! Finds equal rows. The text hash and the image hash of a row are divided into bands. Only rows that share a band of
//! both are compared.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::pipeline::dedup::hashes::RowHashes;
use crate::pipeline::dedup::{image, text};
use omr_base::config::DedupConfig;
use omr_base::error::Result;

/// Maximum number of texts that are held in memory for comparison.
const MOST_TEXTS: usize = 1 << 16;

/// Disjoint sets of equal rows. The first row of a set, in order, represents the set.
pub struct Groups(Vec<u32>);

impl Groups {
    /// Returns the row that represents the set of `row`.
    pub fn root(&mut self, row: u32) -> u32 {
        let mut at = row;
        while self.0[at as usize] != at {
            // Path halving makes later lookups shorter.
            self.0[at as usize] = self.0[self.0[at as usize] as usize];
            at = self.0[at as usize];
        }
        at
    }

    /// Merges the sets of two rows.
    pub fn join(&mut self, one: u32, other: u32) {
        let (one, other) = (self.root(one), self.root(other));
        self.0[one.max(other) as usize] = one.min(other);
    }

    /// Returns the rows of each set that has more than one row, in order.
    pub fn several(mut self) -> Vec<Vec<u32>> {
        let mut by_root: Vec<(u32, u32)> = (0..self.0.len() as u32).map(|row| (self.root(row), row)).collect();
        by_root.sort_unstable();
        let groups = by_root.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1);
        groups.map(|group| group.iter().map(|&(_, row)| row).collect()).collect()
    }
}

/// Groups rows with equal questions and equal images. Images are compared by their hashes.
pub fn groups(rows: &RowHashes, config: &DedupConfig) -> Result<Groups> {
    // If there is one band more than there are bits that may differ, two hashes agree in at least one band.
    by_bands(rows, config, Some(config.hash_distance + 1))
}

/// Returns sets of rows that have images and whose questions may be equal. The images are not compared. Sets of one row
/// are left out.
pub fn same_questions(rows: &RowHashes, config: &DedupConfig) -> Result<Vec<Vec<u32>>> {
    by_bands(rows, config, None).map(Groups::several)
}

/// Groups equal rows. Compares only rows that share a band of their text and one of `image_bands` bands of their
/// first image. If `image_bands` is `None`, compares only rows with images, by their text and their number of images.
fn by_bands(rows: &RowHashes, config: &DedupConfig, image_bands: Option<usize>) -> Result<Groups> {
    let mut groups = Groups((0..rows.len() as u32).collect());
    for text_band in 0..=rows.bands_each {
        for image_band in 0..image_bands.unwrap_or(1) {
            let key = |row: usize| {
                let text = match text_band {
                    0 => rows.texts[row].0,
                    band => u64::from(rows.bands[row * rows.bands_each + band - 1]),
                };
                let image_hashes = rows.image_hashes(row);
                let band = |bands: usize| {
                    image_hashes.first().map_or(0, |image_hash| image::band(image_hash.hash, image_band, bands) + 1)
                };
                // Equal rows must contain the same numbers and the same number of images.
                [text, rows.texts[row].1, image_hashes.len() as u64, image_bands.map_or(0, band)]
            };
            // Rows without images are handled only once, with the first image band.
            let wanted =
                |row: &usize| (image_band == 0 && image_bands.is_some()) || !rows.image_hashes(*row).is_empty();
            let mut keyed: Vec<(u64, u32)> =
                (0..rows.len()).into_par_iter().filter(wanted).map(|row| (mixed(&key(row)), row as u32)).collect();
            keyed.par_sort_unstable();
            for run in keyed.chunk_by(|a, b| a.0 == b.0).filter(|run| run.len() > 1) {
                compare(rows, config, run, image_bands.is_some(), &mut groups)?;
            }
        }
    }
    Ok(groups)
}

/// Compares the rows of a run: each with the previous rows of the run that represent a group. Also compares their
/// images if `images` is true.
fn compare(
    rows: &RowHashes,
    config: &DedupConfig,
    run: &[(u64, u32)],
    images: bool,
    groups: &mut Groups,
) -> Result<()> {
    let (mut different, mut texts): (Vec<u32>, _) = (Vec::new(), Texts::new(rows, config));
    'rows: for &(_, row) in run {
        if different.iter().any(|&other| groups.root(other) == groups.root(row)) {
            continue;
        }
        for &other in &different {
            let (one, another) = (other as usize, row as usize);
            if (!images || same_images(rows, config, one, another)) && texts.same(one, another)? {
                groups.join(other, row);
                continue 'rows;
            }
        }
        different.push(row);
    }
    Ok(())
}

fn same_images(rows: &RowHashes, config: &DedupConfig, one: usize, other: usize) -> bool {
    let (image_hashes, others) = (rows.image_hashes(one), rows.image_hashes(other));
    image_hashes.len() == others.len()
        && image_hashes.iter().zip(others).all(|(image_hash, other)| image_hash.is(other, config.hash_distance as u32))
}

/// Compares the questions of rows. Caches what is read from the file for later comparisons.
pub struct Texts<'a> {
    rows: &'a RowHashes,
    threshold: f64,
    parts: HashMap<usize, Vec<u64>>,
}

impl<'a> Texts<'a> {
    /// Creates an empty cache.
    pub fn new(rows: &'a RowHashes, config: &DedupConfig) -> Texts<'a> {
        Texts { rows, threshold: config.text_threshold, parts: HashMap::new() }
    }

    /// Returns true if two rows ask the same question.
    pub fn same(&mut self, one: usize, other: usize) -> Result<bool> {
        let ((one_hash, one_numbers), (other_hash, other_numbers)) = (self.rows.texts[one], self.rows.texts[other]);
        if one_hash == other_hash || one_numbers != other_numbers {
            return Ok(one_numbers == other_numbers);
        }
        if self.parts.len() > MOST_TEXTS {
            self.parts.clear();
        }
        for row in [one, other] {
            if !self.parts.contains_key(&row) {
                self.parts.insert(row, text::parts(&self.rows.text(row)?.0));
            }
        }
        Ok(text::similarity(&self.parts[&one], &self.parts[&other]) >= self.threshold)
    }
}

/// Mixes several words into one, with the finaliser of MurmurHash3 after each word.
fn mixed(words: &[u64]) -> u64 {
    words.iter().fold(0, |hash, word| {
        let hash = (hash ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    })
}
