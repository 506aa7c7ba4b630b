//! Finds rows with similar texts and equal images, by the embeddings of a vision tower. The comparison is exhaustive,
//! without approximate nearest neighbours. Within a bucket, each row is compared with every row that represents a
//! group. The first test compares the layouts of two images, which are in memory (72 multiplications). The embeddings
//! are read from disk only for rows that pass this test.

use rayon::prelude::*;

use crate::pipeline::dedup::find::{Groups, Texts};
use crate::pipeline::dedup::hashes::RowHashes;
use crate::pipeline::dedup::image::{LAYOUT, Layout, dot};
use crate::pipeline::dedup::tower::Embeddings;
use omr_base::config::DedupConfig;
use omr_base::error::Result;
use omr_base::observe::Observer;

/// Minimum number of rows that a thread compares.
const LEAST: usize = 4096;

/// Compares rows by the embeddings of their images.
pub struct Near<'a> {
    rows: &'a RowHashes,
    config: &'a DedupConfig,
    embeddings: Embeddings,
    texts: Texts<'a>,
}

impl<'a> Near<'a> {
    /// Creates a comparison. Returns an error if an image has no embedding.
    pub fn new(rows: &'a RowHashes, config: &'a DedupConfig, embeddings: Embeddings) -> Result<Near<'a>> {
        for row in 0..rows.len() {
            (0..rows.image_hashes(row).len()).try_for_each(|image| embeddings.check(rows.embedding(row, image)))?;
        }
        Ok(Near { rows, config, embeddings, texts: Texts::new(rows, config) })
    }

    /// Joins the equal rows of each bucket. A bucket contains rows whose questions may be equal. Returns the number of
    /// joined rows.
    pub fn join(&mut self, buckets: &[Vec<u32>], groups: &mut Groups, observer: &dyn Observer) -> Result<usize> {
        let (mut joined, mut done) = (0, 0);
        observer.begin("dedup: embeddings", "rows", buckets.iter().map(|bucket| bucket.len() as u64).sum(), 0);
        for bucket in buckets {
            let mut standing: Vec<(u32, Layout)> = Vec::new();
            for &row in bucket {
                observer.check_stop()?;
                // Only one of several rows with equal hashes is compared.
                if groups.root(row) != row {
                    continue;
                }
                let layout = self.rows.image_hashes(row as usize)[0].layout();
                match self.first(&standing, row, &layout)? {
                    Some(other) => {
                        groups.join(other, row);
                        joined += 1;
                    }
                    None => standing.push((row, layout)),
                }
            }
            done += bucket.len() as u64;
            observer.step(done, &[]);
        }
        observer.end();
        Ok(joined)
    }

    /// Returns the first of the `standing` rows that equals `row`.
    fn first(&mut self, standing: &[(u32, Layout)], row: u32, layout: &Layout) -> Result<Option<u32>> {
        let mut from = 0;
        loop {
            let is_near =
                |(other, theirs): &(u32, Layout)| self.is_near(*other as usize, row as usize, dot(theirs, layout));
            let Some(at) = standing[from..].par_iter().with_min_len(LEAST).position_first(is_near) else {
                return Ok(None);
            };
            let other = standing[from + at].0;
            if self.texts.same(other as usize, row as usize)? {
                return Ok(Some(other));
            }
            from += at + 1;
        }
    }

    /// Returns true if all images of two rows are equal. `layout` is the correlation of the layouts of the first
    /// images.
    fn is_near(&self, one: usize, other: usize, layout: f32) -> bool {
        let pairs = self.rows.image_hashes(one).iter().zip(self.rows.image_hashes(other));
        pairs.enumerate().all(|(i, (image_hash, another))| {
            let layout = if i == 0 { layout } else { dot(&image_hash.layout(), &another.layout()) };
            let tower = || f64::from(self.cosine(one, other, i)) >= self.config.embed_threshold;
            layout >= LAYOUT && tower() || image_hash.is(another, self.config.hash_distance as u32)
        })
    }

    fn cosine(&self, one: usize, other: usize, image: usize) -> f32 {
        let [one, other] = [one, other].map(|row| self.embeddings.read(self.rows.embedding(row, image)));
        dot(&one, &other)
    }
}
