//! Reads the images of class folders, such as `train/cat/1.png`, as rows: the question asks for the class, and the name
//! of the folder is the answer.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::row_source::{RowPosition, RowSink, RowSource};
use crate::rows::RowResult;
use crate::rows::files::paths;
use crate::rows::forms::fields::{Fields, RawImage};
use omr_base::error::{Error, Result};

/// Maximum number of classes that the question lists.
const LISTED: usize = 20;

/// A folder with one folder of images per class.
pub struct ClassFolder {
    path: PathBuf,
    /// Paths of the images below the folder, sorted.
    images: Vec<PathBuf>,
    question: String,
}

impl ClassFolder {
    /// Lists the images of a folder. Returns an error if an image is in no class folder.
    pub fn open(path: &Path) -> Result<ClassFolder> {
        let images = paths::images(path)?;
        let mut classes = BTreeSet::new();
        for image in &images {
            let class = class(image).ok_or_else(|| {
                let found = format!("{}, an image without a class folder and without a metadata file", image.display());
                Error::input(path, found, "DIR/CLASS/IMAGE, or a file metadata.csv or metadata.jsonl")
            })?;
            classes.insert(class.to_owned());
        }
        let classes = Vec::from_iter(classes);
        let question = match classes.len() {
            ..=LISTED => format!("Which of these does the picture show: {}?", classes.join(", ")),
            _ => "What does the picture show?".to_owned(),
        };
        Ok(ClassFolder { path: path.to_owned(), images, question })
    }

    fn fields(&self, image: &Path) -> Fields {
        let answer = class(image).unwrap_or_default();
        let path = image.to_string_lossy().into_owned();
        let fields = [("id", path.as_str()), ("question", &self.question), ("answer", answer)];
        let fields: Map<String, Value> =
            fields.map(|(name, text)| (name.to_owned(), text.into())).into_iter().collect();
        (fields, Some(vec![RawImage { path: Some(path), ..RawImage::default() }]))
    }
}

/// Returns the name of the folder of an image.
fn class(image: &Path) -> Option<&str> {
    image.parent()?.file_name()?.to_str()
}

impl RowSource for ClassFolder {
    fn for_range(&self, range: Range<usize>, take: RowSink) -> Result<()> {
        let rows = self.images.iter().enumerate().skip(range.start).take(range.len());
        for (index, image) in rows {
            take(RowPosition { index: index as u32, offset: index as u64 }, Ok(self.fields(image)))?;
        }
        Ok(())
    }

    fn row(&self, at: RowPosition) -> Result<RowResult<Fields>> {
        let image = self.images.get(at.index as usize);
        let gone = || Error::input(&self.path, "fewer images than at the start of the run", "the same images");
        Ok(Ok(self.fields(image.ok_or_else(gone)?)))
    }

    fn columns(&self, _: usize) -> Result<Vec<(String, String)>> {
        Ok(vec![("image".to_owned(), "path".to_owned()), ("answer".to_owned(), "name of the folder".to_owned())])
    }

    fn count(&self) -> Result<usize> {
        Ok(self.images.len())
    }
}
