//! Data sets of any size: each is indexed once, and rows are then read one by one as samples are requested.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::decoded::Decoded;
use super::indexing::{self, Facts, Indexed, Longest, SharedIds};
use super::places::{Places, Source, changed};
use super::stored_index;
use crate::image::JPEG_DECODER;
use crate::rows::files::stamp::{combined, is_embedded};
use crate::rows::read::{RowFile, epoch};
use crate::rows::samples::encoder::EncodingPurpose;
use crate::rows::{BadRow, Encoder, ImageSource, Index, Made, ReadCounts, RejectedRows, Row, RowResult, Samples};
use omr_base::config::{DatasetConfig, InputKind};
use omr_base::error::{Error, Result};
use omr_base::identity::CurrentInputs;
use omr_base::observe::Observer;

/// The data sets of a run.
pub struct Dataset {
    /// Sizes of the samples in the order of one epoch. The packing plan reads them.
    pub index: Arc<Index>,
    /// Rows that are not used.
    pub rejected: RejectedRows,
    /// Ids that more than one row has.
    pub shared: SharedIds,
    /// Counts of what the used rows contain.
    pub seen: ReadCounts,
    /// Warnings about settings whose effect on data sets of this size may not be intended.
    pub remarks: Vec<String>,
    /// True if no row was read because an earlier start of the run had stored the index.
    pub warm: bool,
    /// Path of the stored index, or `None` if nothing may be written.
    pub kept: Option<PathBuf>,
    rows: Arc<RowFiles>,
}

/// The files of rows, and the place of each row in them.
struct RowFiles {
    sources: Vec<Source>,
    places: Places,
    /// Record of the hashes that the image files had at their first decoding. Opened when the run begins.
    decoded: OnceLock<Decoded>,
}

impl Dataset {
    /// Reads the index stored in the run directory `dir`. If none is stored or `fresh` is true, reads all rows and
    /// builds the index. Writes nothing. Rows longer than `longest` and bad rows are left out.
    ///
    /// Returns an error if:
    /// - a file cannot be read
    /// - the share of bad rows is larger than `max_bad_rows`
    /// - no row is left
    /// - a file has changed since the stored index was built.
    pub fn open(
        dir: &Path,
        entries: &[DatasetConfig],
        encoder: &Encoder,
        longest: Longest,
        max_bad_rows: f64,
        seed: u64,
        fresh: bool,
    ) -> Result<Dataset> {
        let files = RowFile::open_all(entries, encoder.purpose == EncodingPurpose::Ask)?;
        let kept = stored_index::path(dir, &key(entries, encoder, longest));
        let found = if fresh { None } else { stored_index::read(&kept)? };
        let (indexed, warm) = match found {
            Some(indexed) => (indexed, true),
            None => (indexing::index(&files, encoder, longest)?, false),
        };
        let Indexed { sizes, places, facts } = indexed;
        let Facts { rejected, shared, seen, signatures } = facts;
        let of_index = signatures.iter().map(|signature| &signature.path);
        if !of_index.eq(files.iter().map(|file| &file.path)) {
            return Err(changed("the datasets' files", "the files that the run began with"));
        }
        rejected.check(max_bad_rows)?;
        seen.check()?;
        if sizes.is_empty() {
            let first = rejected.rejected.iter().min_by_key(|row| !row.reason.is_bad());
            let first = first.map_or("", |row| row.detail.as_str());
            let longer = format!("{}, but all {} rows are longer", longest.tokens, rejected.rows);
            return Err(match rejected.line().filter(|_| rejected.bad() > 0) {
                Some(line) => Error::input_hint("max_bad_rows", line, "at least one usable row", first),
                None => Error::input_hint(longest.key, longer, "a limit that fits at least one row", first),
            });
        }
        let sources = files.into_iter().zip(signatures);
        let sources: Vec<Source> = sources.map(|(file, signature)| Source::new(file, signature)).collect();
        sources.iter().try_for_each(Source::check)?;
        let mut counts = vec![0; entries.len()];
        for (source, count) in sources.iter().zip(places.counts(sources.len())) {
            counts[source.file.set] += count;
        }
        for source in &sources {
            source.file.rows.set_copy(kept.parent().unwrap_or(dir), &source.signature.hash);
        }
        let order = epoch(entries, &counts, seed)?;
        let (index, rows) =
            (Arc::new(sizes.ordered(order)), Arc::new(RowFiles { sources, places, decoded: OnceLock::new() }));
        Ok(Dataset { index, rejected, shared, seen, remarks: Vec::new(), warm, kept: Some(kept), rows })
    }

    /// Stores the index for the next start of the run, and makes a copy of files whose rows are expensive to read one
    /// by one.
    pub fn keep(&self, observer: &dyn Observer) -> Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let RowFiles { sources, places, .. } = &*self.rows;
        for source in sources {
            source.check()?;
            source.file.rows.copy(observer)?;
        }
        if self.warm {
            return Ok(());
        }
        let (rejected, shared, seen) = (self.rejected.clone(), self.shared.clone(), self.seen.clone());
        let signatures = sources.iter().map(|source| source.signature.clone()).collect();
        stored_index::write(kept, &self.index, places, &Facts { rejected, shared, seen, signatures })
    }

    /// Starts to record the hash of each image file next to the index when it is first decoded. Later decodings are
    /// compared with the record. Every rank must call this function.
    pub fn record_images(&self) -> Result<()> {
        let RowFiles { places, decoded, .. } = &*self.rows;
        if let (Some(kept), Some(images)) = (&self.kept, places.in_files()) {
            let folder = kept.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
            // The record belongs to this index only: another index may have a different image in the same position.
            let record = kept.with_extension(format!("{}.pictures", &self.hash()[..16]));
            let _ = decoded.set(Decoded::open(&record, images)?);
        }
        Ok(())
    }

    /// Adds a remark if one update takes more samples than exist, because some samples are then used more than once.
    /// `takes` is the number of samples per update; `key` and `value` name the setting that determines it.
    pub fn remark_repeats(&mut self, key: &str, value: usize, takes: u64) {
        let len = self.index.len() as u64;
        if takes > len {
            let times = takes.div_ceil(len);
            let what = format!(
                "{key} is {value}, but the number of samples is {len}: one update uses each sample up to {times} times"
            );
            self.remarks.push(what);
        }
    }

    /// Returns a BLAKE3 hash, in hexadecimal, of the content of all files in order and of the index built from them.
    /// Two machines have the same hash if they read the same rows and found the same images.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for source in &self.rows.sources {
            hasher.update(source.signature.hash.as_bytes());
        }
        self.index.hash(&mut hasher);
        // The hash of a sample's tokens distinguishes the turns of a row.
        for array in &self.rows.places.arrays()[..5] {
            hasher.update(array);
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Adds the inputs to `found`: hashes of the files, of the indexed rows and of the stamps of the images, and the JPEG
    /// decoder if an image is a JPEG.
    pub fn inputs(&self, found: &mut CurrentInputs) -> Result<()> {
        for (number, Source { file, signature, .. }) in self.rows.sources.iter().enumerate() {
            found.add_file(InputKind::Rows, number, &file.path, &signature.hash)?;
        }
        let [files, rows, offsets, hashes, stamps, _] = self.rows.places.arrays();
        let mut index = blake3::Hasher::new();
        self.index.hash(&mut index);
        for array in [files, rows, offsets, hashes] {
            index.update(array);
        }
        found.add(InputKind::Rows, index.finalize().to_hex().to_string());
        // The hash of the row file covers its embedded images, which older versions recorded as 0.
        let mut images = blake3::Hasher::new();
        for stamp in bytemuck::pod_collect_to_vec::<u8, u64>(stamps) {
            images.update(&if is_embedded(stamp) { 0 } else { stamp }.to_le_bytes());
        }
        found.add(InputKind::Images, images.finalize().to_hex().to_string());
        if self.seen.has_jpeg {
            found.add(InputKind::Decoder, JPEG_DECODER.to_owned());
        }
        Ok(())
    }

    /// Returns the names of the data sets' files, in order.
    pub fn names(&self) -> Vec<&str> {
        self.rows.sources.iter().map(|source| source.file.name.as_str()).collect()
    }

    /// Returns the file and row of sample `i` as text for messages.
    pub fn place(&self, i: usize) -> String {
        self.rows.place(self.index.number(i))
    }

    /// Returns the number of the file and the number of the row of sample `i`.
    pub fn row(&self, i: usize) -> (u32, u32) {
        let place = self.rows.places.get(self.index.number(i));
        (place.file as u32, place.at.index)
    }

    /// Returns notes for the user: what was read, what is left out, which ids are shared, and the remarks.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = vec![self.seen.line()];
        let [rows, samples] = self.rows.places.split_rows();
        if rows > 0 {
            notes.push(format!(
                "the chat template rewrites earlier turns: each trained turn is a sample, {samples} of {rows} rows"
            ));
        }
        notes.extend(self.rejected.line());
        if let SharedIds { count, example: Some(example) } = &self.shared {
            notes.push(format!(
                "{count} ids are shared by several rows, for example the id of {example}; all rows are used and are \
                 distinguished by file and row number"
            ));
        }
        notes.extend(self.remarks.iter().cloned());
        notes
    }

    /// Applies `of` to the row of each sample; reads every row once. Returns an error if a file cannot be read or has
    /// changed since it was indexed.
    pub fn each<T: Clone>(&self, of: impl Fn(&Row) -> Option<T>) -> Result<Vec<Option<T>>> {
        let mut found: HashMap<(u32, u32), T> = HashMap::new();
        for (file, source) in self.rows.sources.iter().enumerate() {
            source.check()?;
            source.file.for_range(0..usize::MAX, |at, read| {
                match read {
                    Ok(row) => found.extend(of(&row).map(|of| ((file as u32, at.index), of))),
                    // Bad rows are not samples.
                    Err(bad) => drop(bad.of_row()?),
                }
                Ok(())
            })?;
        }
        Ok((0..self.index.len()).map(|i| found.get(&self.row(i)).cloned()).collect())
    }

    /// Returns the row with this number in the order of the files.
    pub fn row_at(&self, number: usize) -> Result<Row> {
        let place = self.rows.places.get(number);
        self.rows.sources[place.file].file.row(place.at)?.map_err(Error::from)
    }

    /// Removes the samples for which `is_held` is true from the order, and returns their rows, each once.
    pub fn split(&mut self, is_held: &[bool]) -> Result<Vec<Row>> {
        let numbers = |held: bool| {
            let index = &self.index;
            (0..index.len()).filter(move |&i| is_held[i] == held).map(|i| index.number(i))
        };
        let mut held: Vec<usize> = numbers(true).collect();
        held.sort_unstable();
        // The samples of a row are neighbours.
        held.dedup_by_key(|number| {
            let place = self.rows.places.get(*number);
            (place.file, place.at.index)
        });
        let rows = held.into_iter().map(|number| self.row_at(number)).collect::<Result<Vec<Row>>>()?;
        let order = numbers(false).map(|number| number as u32).collect();
        self.index = Arc::new((*self.index).clone().ordered(order));
        Ok(rows)
    }

    /// Returns the samples. Each row is read when its sample is requested. `make` converts the row and also returns the
    /// hash of the row's content.
    pub fn samples<T: Send + Sync>(
        &self,
        make: impl Fn(Row) -> RowResult<(T, u64)> + Send + Sync + 'static,
    ) -> Streamed<T> {
        Streamed { index: self.index.clone(), rows: self.rows.clone(), make: Box::new(make) }
    }
}

impl RowFiles {
    /// Returns the file, the row and the turn of sample number `k` as text for messages.
    fn place(&self, k: usize) -> String {
        let place = self.places.get(k);
        let row = self.sources[place.file].file.place(place.at.index as usize);
        if place.turn == 0 { row } else { format!("{row}, message {}", place.turn) }
    }

    /// Replaces an image, or the frames of a video, by the content of its files. Returns an error if the content, or
    /// that of an embedded image, is not what was indexed.
    fn hold(&self, frames: &mut [ImageSource], row: &str, number: usize, stamp: u64) -> Result<()> {
        let (mut found, mut content) = (Vec::with_capacity(frames.len()), blake3::Hasher::new());
        let name = frames.first().map_or_else(|| row.to_owned(), |frame| frame.place(row));
        for frame in frames {
            // Each file is read once, so the bytes that are compared are the bytes that are decoded.
            let (held, of_frame) = frame.held(row)?;
            if !is_embedded(stamp) {
                content.update(&held.bytes(row)?);
            }
            found.push(of_frame);
            *frame = held;
        }
        let mut same = combined(&found) == stamp;
        // The stamp of embedded images covers all of their bytes, so they need no record.
        let record = self.decoded.get().filter(|_| !is_embedded(stamp));
        if let (true, Some(decoded)) = (same, record) {
            same = decoded.is_same(number, &content.finalize())?;
        }
        if same { Ok(()) } else { Err(changed(&name, "the image that was indexed")) }
    }
}

/// Returns a text of everything that determines an index, except the content of the rows.
fn key(entries: &[DatasetConfig], encoder: &Encoder, longest: Longest) -> String {
    let mut key = format!("{} {longest:?} {:?} {}\n", env!("CARGO_PKG_VERSION"), encoder.purpose, encoder.key);
    for entry in entries {
        let DatasetConfig { path, name, split, data_folder, data_type, limit, .. } = entry;
        // Indexes of runs that are older than lists of names have `None` or `Some(name)`.
        let name = if name.len() > 1 { format!("{name:?}") } else { format!("{:?}", name.first()) };
        key += &format!("{path:?} {name} {split:?} {data_folder:?} {data_type:?} {limit:?}");
        let DatasetConfig { prompt, gold, system_prompt, columns, .. } = entry;
        key += &format!(" {prompt:?} {gold:?} {system_prompt:?} {columns:?}\n");
    }
    key
}

/// Samples that are made when they are requested.
pub struct Streamed<T> {
    index: Arc<Index>,
    rows: Arc<RowFiles>,
    make: Box<dyn Fn(Row) -> RowResult<(T, u64)> + Send + Sync>,
}

impl<T: Send + Sync> Samples<T> for Streamed<T> {
    /// Returns an error if the row's file or an image file has changed since it was indexed.
    fn get(&self, i: usize) -> Result<Made<T>> {
        let number = self.index.number(i);
        let place = self.rows.places.get(number);
        let source = &self.rows.sources[place.file];
        source.check()?;
        let differs = || changed(&self.rows.place(number), "the row that was indexed");
        let row = source.file.row(place.at)?.map_err(|bad| *bad.error)?;
        if row.trained_messages().len() < place.turn {
            return Err(differs());
        }
        let mut row = row.of_turn(place.turn);
        let media = self.index.images(number);
        let stamps = self.rows.places.stamps(media.clone());
        let spans = row.spans();
        if spans.len() != stamps.len() {
            return Err(differs());
        }
        let mut rest = &mut row.images[..];
        for (((len, _), stamp), number) in spans.into_iter().zip(stamps).zip(media) {
            let frames;
            (frames, rest) = rest.split_at_mut(len);
            self.rows.hold(frames, &row.place, number, *stamp)?;
        }
        let id = row.id.clone();
        match (self.make)(row) {
            Ok((sample, hash)) if hash == place.hash => Ok(Ok(Arc::new(sample))),
            Ok(_) => Err(differs()),
            Err(bad) => Ok(Err(BadRow { id: Some(id), ..bad })),
        }
    }
}
